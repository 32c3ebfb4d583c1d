"""Signals end a process soon, also one that is busy in compiled code, and never before its state is saved."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxdog.utils import interrupts

# Busy in C code without the interpreter, as while XLA compiles: no handler of Python is called.
PROGRAM = """
import hashlib, sys, threading, time
from jaxdog.utils import interrupts

interrupts.GRACE, interrupts.HURRY = 0.5, 0.1
interrupts.watch()
with interrupts.deferred(in_batches=True) as stop:
    start = time.monotonic()
    stop.nothing_to_lose = lambda: time.monotonic() > start + SAVED
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000_000)
"""


def run(saved: float, *signals: int, program: str = PROGRAM) -> tuple[int, float]:
    """Exit status of the program after these signals, and the seconds that it took."""
    program = [sys.executable, "-c", program.replace("SAVED", str(saved))]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    start = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.2)
    process.wait(60)
    process.stdout.close()
    return process.returncode, time.monotonic() - start


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_busy_process_ends_once_its_state_is_saved(number: int) -> None:
    code, seconds = run(1.5, number)
    assert code == 128 + number and 1.0 < seconds < 10.0


def test_one_of_several_processes_does_not_end_alone() -> None:
    several = PROGRAM.replace("in_batches=True", "in_batches=False").replace("200_000_000", "20_000_000")
    code, seconds = run(0.0, signal.SIGTERM, program=several + "print(stop.asked.is_set())")
    assert code == 0 and seconds > 1.0


def test_a_second_interrupt_ends_a_busy_process_at_once() -> None:
    code, seconds = run(3600.0, signal.SIGINT, signal.SIGINT)
    assert code == 128 + signal.SIGINT and seconds < 10.0


def test_work_between_batches_is_given_up_until_the_training_has_seen_the_signal() -> None:
    interrupts.check()
    with interrupts.deferred(in_batches=True) as stop:
        interrupts.check()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(interrupts.Interrupted):
            interrupts.check()
        stop.seen = True
        interrupts.check()
    interrupts.check()
    with interrupts.deferred(in_batches=False) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        interrupts.check()
        assert stop.asked.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGXCPU"])
def test_every_signal_that_announces_an_end_is_noted(name: str) -> None:
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with interrupts.deferred(in_batches=True) as stop:
            os.kill(os.getpid(), number)
            assert stop.asked.is_set()
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_what_the_process_ignores_is_ignored_in_training_too() -> None:
    """As nohup makes it: the terminal may close."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts.deferred(in_batches=True) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_leave_the_handlers_alone() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with interrupts.deferred(in_batches=True) as stop:
            seen.append((signal.getsignal(signal.SIGTERM), stop.asked.is_set()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
