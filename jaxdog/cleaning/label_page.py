"""Mode label: a web page for labeling crops one by one, with one keystroke each.

The page is only available on this machine. Each label is written to `labels.csv` before the next crop is
shown, so labeling can be stopped and resumed at any time.
"""

import http.server
import importlib.resources
import io
import json
import logging
import os
import signal
import sys
import threading
from http import HTTPStatus
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from jaxdog.cleaning import labels
from jaxdog.data import crop_dataset
from jaxdog.utils import errors, interrupts, untrusted

log = logging.getLogger("jaxdog")

HOST = "127.0.0.1"
MAX_BYTES = 1000  # in the body of a request
# Content security policy: only allows the page's own scripts, styles and images.
POLICY = (
    "default-src 'none'; img-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
MAX_DIGITS = 9  # of a number in a request


class Question(NamedTuple):
    """The content of the page: the next crop, and progress."""

    crop: int | None  # index of the crop; None: all are labeled
    name: str  # file name of its photo
    done: int  # number of crops labeled so far
    total: int
    counts: dict[str, int]  # number of crops with each label


class Session:
    """The crops in random order, and the labels so far. Thread-safe.

    Args:
      crops: the crops to label.
      path: the file of labels; an existing file is continued.
      seed: seed of the random order. It makes the labels of a partial session a random sample.
    """

    def __init__(self, crops: crop_dataset.CropDataset, path: str | os.PathLike, seed: int):
        self.crops, self.keys = crops, labels.crop_keys(crops)
        self._log = labels.LabelLog(path)
        self._answers = dict(labels.read(path).label)  # in the order they were given
        self._order = np.random.default_rng(seed).permutation(len(self.keys)).tolist()
        self._rows = {key: i for i, key in enumerate(self.keys)}
        self._lock = threading.Lock()

    def question(self) -> Question:
        """The next crop without a label."""
        with self._lock:
            return self._question()

    def answer(self, crop: int, label: str) -> Question:
        """Saves a label; raises errors.UserError for an unknown label, or if the crop already has a label."""
        with self._lock:
            if label not in labels.LABELS or not 0 <= crop < len(self.keys):
                raise errors.UserError(f"crop {crop}, label {label!r}; labels: {', '.join(labels.LABELS)}")
            if self.keys[crop] in self._answers:  # the key was pressed twice
                raise errors.UserError(f"crop {crop} already has a label")
            self._log.append(self.keys[crop], label)
            self._answers[self.keys[crop]] = label
            return self._question()

    def undo(self) -> Question:
        """Removes the latest label, if any, and asks for it again."""
        with self._lock:
            answered = [key for key in self._answers if key in self._rows]
            if answered:
                self._log.append(answered[-1], labels.UNDO)
                del self._answers[answered[-1]]
                self._order.insert(0, self._rows[answered[-1]])
            return self._question()

    def close(self) -> None:
        """Closes the file of labels."""
        self._log.close()

    def _question(self) -> Question:
        crop = next((i for i in self._order if self.keys[i] not in self._answers), None)
        given = [label for key, label in self._answers.items() if key in self._rows]
        counts = {label: given.count(label) for label in labels.LABELS}
        name = "" if crop is None else self.crops.names[self.crops.photo[crop]]
        return Question(crop, name, len(given), len(self.keys), counts)


def serve(crops: crop_dataset.CropDataset, path: str | os.PathLike, seed: int, port: int) -> None:
    """Serves the page until interrupted (Ctrl-C or SIGTERM).

    Args:
      crops: the crops to label.
      path: labels.csv.
      seed: seed of the order in which crops are shown.
      port: port of the page; 0: any free port.

    Raises errors.UserError if the port is not available.
    """
    session = Session(crops, path, seed)
    try:
        server = Server(session, port)
    except OSError as error:
        session.close()
        raise errors.UserError(
            f"--port={port} is not available ({error}); use 0 for any free port"
        ) from error
    question = session.question()
    log.info("%d of %d crops are labeled in %s", question.done, question.total, path)
    log.info("open %s in a browser; stop with Ctrl-C", server.address)

    def stop(*_: Any) -> None:
        threading.Thread(target=server.shutdown).start()

    try:
        with interrupts.handled((signal.SIGINT, signal.SIGTERM), stop):
            server.serve_forever(poll_interval=0.1)
    finally:
        server.server_close()
        session.close()
    log.info("%d of %d crops are labeled", session.question().done, question.total)


class Server(http.server.ThreadingHTTPServer):
    """Serves the page on 127.0.0.1; raises OSError if the port is in use."""

    daemon_threads = True

    def __init__(self, session: Session, port: int):
        self.session = session
        super().__init__((HOST, port), Handler)
        self.address = f"http://{HOST}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints a traceback, but not for a browser that has closed the connection before the reply."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(http.server.BaseHTTPRequestHandler):
    """GET / (the page), /question, /crop/<row>.png; POST /answer {"crop", "label"}, /undo.

    Other pages in the same browser can neither read nor write labels: the Host header must be this server's
    own address (against DNS rebinding), and so must the Origin header, if any.
    """

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds

    def do_GET(self) -> None:
        session = self.server.session
        if not self._is_own_request():
            return
        if self.path == "/":
            page = importlib.resources.files("jaxdog.cleaning").joinpath("templates/label.html").read_bytes()
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", page)
        elif self.path == "/question":
            self._send_question(session.question())
        elif (row := self._row()) is not None:
            file = io.BytesIO()
            PIL.Image.fromarray(session.crops.image[row]).save(file, "PNG")
            self._send(HTTPStatus.OK, "image/png", file.getvalue())
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > MAX_DIGITS or int(length) > MAX_BYTES:
            self.close_connection = True
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request has at most {MAX_BYTES} bytes")
            return
        body = self.rfile.read(int(length))
        if not self._is_own_request():
            return
        try:
            question = self._answered(body)
        except ValueError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except OSError as error:
            log.error("the label could not be written: %s", error)
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"the label could not be written: {error}")
        else:
            if question is None:
                self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")
            else:
                self._send_question(question)

    def _answered(self, body: bytes) -> Question | None:
        """Does what a POST request asks; returns the next question, or None if there is no such page."""
        if self.path == "/undo":
            return self.server.session.undo()
        if self.path != "/answer":
            return None
        answer = untrusted.parse_json(body)
        if type(answer) is not dict or type(answer.get("crop")) is not int:
            raise errors.UserError('an answer must be {"crop": number, "label": word}')
        return self.server.session.answer(answer["crop"], str(answer.get("label")))

    def _is_own_request(self) -> bool:
        """Whether the request is addressed to this server and from its own page; if not, refuses it."""
        port = self.server.server_address[1]
        hosts = (f"{HOST}:{port}", f"localhost:{port}")
        origin = self.headers.get("Origin")
        if self.headers.get("Host") in hosts and (
            origin is None or origin in [f"http://{host}" for host in hosts]
        ):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "this page only answers browsers on this machine")
        return False

    def _row(self) -> int | None:
        number = self.path.removeprefix("/crop/").removesuffix(".png")
        if self.path != f"/crop/{number}.png" or not number.isdecimal() or len(number) > MAX_DIGITS:
            return None
        return int(number) if int(number) < len(self.server.session.keys) else None

    def _send_question(self, question: Question) -> None:
        self._send(HTTPStatus.OK, "application/json", json.dumps(question._asdict()).encode())

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self._send(status, "text/plain; charset=utf-8", f"{reason}\n".encode())

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": POLICY,
            "Cross-Origin-Resource-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""
