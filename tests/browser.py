"""A headless Chromium, driven over its debugging pipe: no package is needed, only the browser."""

import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import time
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-extensions", "--disable-background-networking", "--remote-debugging-pipe"),
)
PATIENCE = 120.0  # seconds
# Becomes the browser, with two of its descriptors put where the browser looks for them.
LAUNCH = """
import fcntl, os, sys
pair = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for here, there in zip(pair, (3, 4)):
    os.dup2(here, there)
os.execv(sys.argv[3], sys.argv[3:])
"""


def found() -> str:
    """The browser's path; the test skips where there is none."""
    path = next((path for name in NAMES if (path := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(NAMES)})")
    return path


class Page:
    """One page. Messages are JSON, ended by a zero byte, on the browser's descriptors 3 (in) and 4 (out)."""

    def __init__(self, folder: pathlib.Path):
        self._in, mine_out = os.pipe()
        mine_in, self._out = os.pipe()
        self._write, self._read, self._buffer, self._number = mine_out, mine_in, b"", 0
        words = [found(), *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(self._in), str(self._out), *words],
            pass_fds=(self._in, self._out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(self._in)
        os.close(self._out)
        target = self._send("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._send("Target.attachToTarget", {"targetId": target, "flatten": True})[
            "sessionId"
        ]

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._send("Browser.close", {})
        except (OSError, AssertionError):
            self._process.kill()
        self._process.wait(PATIENCE)
        os.close(self._write)
        os.close(self._read)

    def go(self, address: str) -> None:
        """Opens an address."""
        self._send("Page.navigate", {"url": address}, self._session)

    def value(self, script: str) -> Any:
        """What an expression of JavaScript is on the page."""
        sent = {"expression": script, "returnByValue": True, "awaitPromise": True}
        reply = self._send("Runtime.evaluate", sent, self._session)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def until(self, script: str) -> None:
        """Waits until an expression is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.value(script):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """A keystroke, as from the keyboard."""
        for kind in ("keyDown", "keyUp"):
            sent = {"type": kind, "key": key, "text": key if kind == "keyDown" else ""}
            self._send("Input.dispatchKeyEvent", sent, self._session)

    def _send(self, method: str, params: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": session} if session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            while b"\0" not in self._buffer:
                ready, _, _ = select.select([self._read], [], [], max(deadline - time.monotonic(), 0))
                assert ready, f"no answer to {method}"
                more = os.read(self._read, 1 << 16)
                assert more, f"the browser ended before its answer to {method}"
                self._buffer += more
            line, _, self._buffer = self._buffer.partition(b"\0")
            reply = json.loads(line)
            if reply.get("id") == self._number:
                assert "error" not in reply, reply
                return reply["result"]
