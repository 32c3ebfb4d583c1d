"""Memory of the machine and of this process, on Linux, macOS and Windows."""

import ctypes
import os
import sys
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource: Any = None


def peak_bytes() -> int:
    """The largest resident memory of this process so far, in bytes."""
    if resource is None:
        return _windows_peak_bytes()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS reports bytes, Linux kilobytes


def total_bytes() -> int:
    """The machine's memory in bytes."""
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return _windows_total_bytes()


class _ProcessMemory(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS of the Windows API."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("page_faults", ctypes.c_uint32),
        ("peak_working_set", ctypes.c_size_t),
        *((f"other{i}", ctypes.c_size_t) for i in range(7)),
    )


class _MachineMemory(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_ulonglong),
        *((f"other{i}", ctypes.c_ulonglong) for i in range(6)),
    )


def _windows_peak_bytes() -> int:
    kernel: Any = ctypes.WinDLL("kernel32")  # pyright: ignore[reportAttributeAccessIssue]
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    counters = _ProcessMemory(size=ctypes.sizeof(_ProcessMemory))
    process = ctypes.c_void_p(kernel.GetCurrentProcess())
    kernel.K32GetProcessMemoryInfo(process, ctypes.byref(counters), counters.size)
    return counters.peak_working_set


def _windows_total_bytes() -> int:
    kernel: Any = ctypes.WinDLL("kernel32")  # pyright: ignore[reportAttributeAccessIssue]
    status = _MachineMemory(size=ctypes.sizeof(_MachineMemory))
    kernel.GlobalMemoryStatusEx(ctypes.byref(status))
    return status.total
