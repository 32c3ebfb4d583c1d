"""Mode label: a page in the browser that shows crops one by one and takes a keystroke for each.

Served by this process to this machine alone. Each answer is a row of `labels.csv`, on disk before the next
crop is shown, so that one can stop at any time and go on where one stopped.
"""

import http.server
import importlib.resources
import io
import json
import logging
import os
import signal
import threading
from http import HTTPStatus
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from jaxdog.cleaning import labels
from jaxdog.data import photos

log = logging.getLogger("jaxdog")

HOST = "127.0.0.1"
LARGEST = 1000  # bytes of a request; an answer is shorter
# Nothing but what this page brings along is loaded or run.
POLICY = (
    "default-src 'none'; img-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'"
)


class Question(NamedTuple):
    """What the page shows."""

    crop: int | None  # row of the crops; None: every one has its label
    name: str  # of its photo
    done: int
    total: int
    counts: dict[str, int]  # of each label


class Desk:
    """The crops, in an order of its own, and what was answered so far.

    Args:
      crops: what is labelled.
      path: the file of answers; one that is there is gone on with.
      seed: another seed is another order: whoever stops early has labelled a fair sample.
    """

    def __init__(self, crops: photos.Crops, path: str | os.PathLike, seed: int):
        self.crops, self.keys = crops, labels.keys(crops)
        self._log = labels.Log(path)
        self._given = dict(labels.read(path).label)  # in the order they were given
        self._order = np.random.default_rng(seed).permutation(len(self.keys)).tolist()
        self._rows = {key: i for i, key in enumerate(self.keys)}
        self._lock = threading.Lock()

    def question(self) -> Question:
        """The next crop without a label."""
        with self._lock:
            return self._question()

    def answer(self, crop: int, label: str) -> Question:
        """Keeps a label; raises ValueError for one not in labels.LABELS, or a crop that has its label."""
        with self._lock:
            if label not in labels.LABELS or not 0 <= crop < len(self.keys):
                raise ValueError(f"crop {crop}, label {label!r}; labels: {', '.join(labels.LABELS)}")
            if self.keys[crop] in self._given:  # a key that was pressed twice
                raise ValueError(f"crop {crop} has its label already")
            self._log.append(self.keys[crop], label)
            self._given[self.keys[crop]] = label
            return self._question()

    def undo(self) -> Question:
        """Takes the latest label back, if there is one, and asks for it again."""
        with self._lock:
            mine = [key for key in self._given if key in self._rows]
            if mine:
                self._log.append(mine[-1], labels.UNDO)
                del self._given[mine[-1]]
                self._order.insert(0, self._rows[mine[-1]])
            return self._question()

    def close(self) -> None:
        """Closes the file of answers."""
        self._log.close()

    def _question(self) -> Question:
        crop = next((i for i in self._order if self.keys[i] not in self._given), None)
        mine = [label for key, label in self._given.items() if key in self._rows]
        counts = {label: mine.count(label) for label in labels.LABELS}
        name = "" if crop is None else self.crops.names[self.crops.photo[crop]]
        return Question(crop, name, len(mine), len(self.keys), counts)


def serve(crops: photos.Crops, path: str | os.PathLike, seed: int, port: int) -> None:
    """Serves the page until interrupted (Ctrl-C or SIGTERM).

    Args:
      crops: what is labelled.
      path: labels.csv.
      seed: of the order in which crops are shown.
      port: 0: any that is free.

    Raises ValueError where the port cannot be had.
    """
    desk = Desk(crops, path, seed)
    try:
        server = Server(desk, port)
    except OSError as error:
        desk.close()
        raise ValueError(f"--port={port} cannot be served at ({error}); 0 takes one that is free") from error
    asked = desk.question()
    log.info("%d of %d crops have a label in %s", asked.done, asked.total, path)
    log.info("open %s in a browser; stop with Ctrl-C", server.address)

    def stop(*_: Any) -> None:
        threading.Thread(target=server.shutdown).start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.serve_forever(poll_interval=0.1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        server.server_close()
        desk.close()
    log.info("%d of %d crops have a label now", desk.question().done, asked.total)


class Server(http.server.ThreadingHTTPServer):
    """The page on 127.0.0.1; raises OSError where the port is taken."""

    daemon_threads = True

    def __init__(self, desk: Desk, port: int):
        self.desk = desk
        super().__init__((HOST, port), Handler)
        self.address = f"http://{HOST}:{self.server_address[1]}/"


class Handler(http.server.BaseHTTPRequestHandler):
    """GET / (the page), /question, /crop/<row>.png; POST /answer {"crop", "label"}, /undo.

    Other pages in the same browser can neither read nor answer: the host must be ours (no name that leads
    here), and so must be the page that a request says it comes from.
    """

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds

    def do_GET(self) -> None:
        desk = self.server.desk
        if not self._ours():
            return
        if self.path == "/":
            page = importlib.resources.files("jaxdog").joinpath("templates/label.html").read_bytes()
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", page)
        elif self.path == "/question":
            self._told(desk.question())
        elif (row := self._row()) is not None:
            file = io.BytesIO()
            PIL.Image.fromarray(desk.crops.image[row]).save(file, "PNG")
            self._send(HTTPStatus.OK, "image/png", file.getvalue())
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST:
            self.close_connection = True
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"an answer has at most {LARGEST} bytes")
            return
        body = self.rfile.read(int(length))
        if not self._ours():
            return
        try:
            if self.path == "/undo":
                self._told(self.server.desk.undo())
            elif self.path == "/answer":
                given = json.loads(body)
                if type(given) is not dict or type(given.get("crop")) is not int:
                    raise ValueError('an answer is {"crop": number, "label": word}')
                self._told(self.server.desk.answer(given["crop"], str(given.get("label"))))
            else:
                self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")
        except ValueError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except OSError as error:
            log.error("the label could not be written: %s", error)
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"the label could not be written: {error}")

    def _ours(self) -> bool:
        """Whether the request is meant for this server and comes from its own page; otherwise refuses it."""
        port = self.server.server_address[1]
        hosts = (f"{HOST}:{port}", f"localhost:{port}")
        origin = self.headers.get("Origin")
        if self.headers.get("Host") in hosts and (
            origin is None or origin in [f"http://{host}" for host in hosts]
        ):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "this page is for this machine's own browser")
        return False

    def _row(self) -> int | None:
        number = self.path.removeprefix("/crop/").removesuffix(".png")
        if self.path != f"/crop/{number}.png" or not number.isdecimal():
            return None
        return int(number) if int(number) < len(self.server.desk.keys) else None

    def _told(self, question: Question) -> None:
        self._send(HTTPStatus.OK, "application/json", json.dumps(question._asdict()).encode())

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(status, "text/plain; charset=utf-8", f"{why}\n".encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not told."""
