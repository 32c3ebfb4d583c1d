"""Ends by signals: SIGTERM, Ctrl-C and the others of SIGNALS end a training soon, and without loss.

Within `deferred` they are only noted: the training looks between two steps, and `check`, which evaluations
call between two batches, raises Interrupted. A thread of the command line, `watch`, ends the process where
the main thread cannot look, as it compiles.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

log = logging.getLogger("jaxdog")

GRACE = 8.0  # seconds until a process ends that has nothing to lose, but does not look
HURRY = 1.0  # seconds until it ends after a second Ctrl-C
POLL = 0.1  # seconds
# What asks a process to end: `kill`, Ctrl-C, a terminal that closes, Ctrl-Break of Windows, and what batch
# systems send some time before a limit is reached (Slurm's --signal=USR1@60) or exceeded (SIGXCPU).
NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK", "SIGUSR1", "SIGXCPU")
# Heeded even where the process ignores them, as a shell has it for what it starts in the background.
ALWAYS = (signal.SIGTERM, signal.SIGINT)
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))


class Interrupted(Exception):
    """A signal came in the middle of work that can be given up."""


class Stop:
    """What a signal asks for within `deferred`."""

    def __init__(self, in_batches: bool) -> None:
        self.in_batches = in_batches  # whether `check` raises
        self.asked = threading.Event()
        self.seen = False  # whether the training has seen it, and ends
        self.nothing_to_lose: Callable[[], bool] = lambda: True


_current: Stop | None = None  # that of `deferred`: signal handlers belong to the whole process


@contextlib.contextmanager
def handled(numbers: Iterable[int], handle: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """`handle` takes these signals within the block, then their former handlers again. Main thread only."""
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that is not Python's cannot be set again
                signal.signal(number, handler)


@contextlib.contextmanager
def deferred(in_batches: bool) -> Iterator[Stop]:
    """A signal of SIGNALS only sets `asked`; a second Ctrl-C raises KeyboardInterrupt.

    in_batches: whether `check` may raise; not in one of several processes, which work together: the others
      would wait for it forever.

    SIGHUP remains ignored under nohup, and so does any other signal that the process ignores, except SIGTERM
    and SIGINT. In other threads than the main one, which cannot handle signals, `asked` is never set.
    """
    global _current
    stop = Stop(in_batches)

    def handle(number: int, frame: object) -> None:
        del frame
        if stop.asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    ignored = (signal.SIG_IGN, None)  # None: a handler that is not Python's
    heeded = [n for n in SIGNALS if n in ALWAYS or signal.getsignal(n) not in ignored]
    with handled(heeded, handle):
        _current = stop
        try:
            yield stop
        finally:
            _current = None


def check() -> None:
    """Raises Interrupted if a signal came within `deferred` that the training has not seen."""
    stop = _current
    if stop is not None and stop.in_batches and stop.asked.is_set() and not stop.seen:
        raise Interrupted


def watch() -> None:
    """Starts a thread that ends the process HURRY seconds after a second Ctrl-C, whatever it does.

    It also ends it GRACE seconds after a signal within `deferred` once there is nothing to lose, unless it is
    one of several processes. Nothing is ended in an interactive session.
    """
    if hasattr(sys, "ps1") or threading.current_thread() is not threading.main_thread():
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(read,), daemon=True, name="signals").start()


def _watch(read: int) -> None:
    pressed = 0
    while number := os.read(read, 1):
        pressed += number[0] == signal.SIGINT
        if pressed > 1:
            time.sleep(HURRY)
            os._exit(128 + signal.SIGINT)
        if _current is not None and number[0] in SIGNALS:
            end = threading.Thread(target=_end, args=(_current, number[0]), daemon=True)
            end.start()


def _end(stop: Stop, number: int) -> None:
    time.sleep(GRACE)
    while _current is stop and not stop.seen:
        if stop.in_batches and stop.nothing_to_lose():  # several processes end together, or not at all
            log.info("stopped at once, and nothing was lost. Rerun the command to resume.")
            os._exit(128 + number)
        time.sleep(POLL)
