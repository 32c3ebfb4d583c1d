"""Memory in bytes, on every system."""

import ctypes
import importlib
import sys
import types

import pytest

from jaxdog.utils import memory


def test_this_machine() -> None:
    assert 1e7 < memory.peak_bytes() < memory.total_bytes() < 1e15


@pytest.mark.parametrize(("platform", "peak"), [("linux", 5_120), ("darwin", 5)])
def test_units(platform: str, peak: int, monkeypatch: pytest.MonkeyPatch) -> None:
    used = types.SimpleNamespace(ru_maxrss=5)
    monkeypatch.setattr(memory.resource, "getrusage", lambda who: used)
    monkeypatch.setattr(sys, "platform", platform)
    assert memory.peak_bytes() == peak


class Kernel:
    """The functions of Windows that are called, which fill the structures they are given."""

    class GetCurrentProcess:
        def __new__(cls):
            return 7

    @staticmethod
    def K32GetProcessMemoryInfo(process, counters, size) -> None:
        assert process.value == 7 and size == ctypes.sizeof(counters._obj)
        counters._obj.peak_working_set = 123

    @staticmethod
    def GlobalMemoryStatusEx(status) -> None:
        assert status._obj.size == 64  # as documented
        status._obj.total = 456


def test_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the modules and functions that Windows lacks."""
    try:
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "resource", None)
            importlib.reload(memory)
            patch.delattr(memory.os, "sysconf")
            patch.setattr(ctypes, "WinDLL", lambda name: Kernel, raising=False)
            assert memory.resource is None
            assert (memory.peak_bytes(), memory.total_bytes()) == (123, 456)
    finally:
        importlib.reload(memory)
