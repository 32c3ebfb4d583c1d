"""Manual labels: the file of labels, the page over plain HTTP and in a browser, and refused requests."""

import csv
import http.client
import io
import json
import os
import pathlib
import socket
import threading

import numpy as np
import PIL.Image
import pytest

from jaxdog.cleaning import label_page, labels
from jaxdog.data import crop_dataset
from tests import browser


def crops(n: int = 6) -> crop_dataset.CropDataset:
    """Two boxes of each photo; crop i is of gray level 10 i."""
    image = np.repeat(np.arange(n, dtype=np.uint8) * 10, 16 * 16 * 3).reshape(n, 16, 16, 3)
    zeros, photo = np.zeros(n, np.int32), np.arange(n, dtype=np.int32) // 2
    box = np.stack([zeros, zeros, zeros + 9, 5 + np.arange(n, dtype=np.int32) % 2], 1)
    names = tuple(f"folder, {i}/a.jpg" for i in range(n))
    return crop_dataset.CropDataset(image, zeros, photo, np.full((n, 2), 16), zeros, names, ("dog",), (), box)


def lines(path: pathlib.Path) -> list[tuple[str, str, str]]:
    """(file, ymax, label) of each row."""
    return [(row["file"], row["ymax"], row["label"]) for row in csv.DictReader(io.StringIO(path.read_text()))]


def row(i: int, given: str) -> tuple[str, str, str]:
    return (f"folder, {i // 2}/a.jpg", str(5 + i % 2), given)


# ------------------------------------------------------------------ the file


def test_labels_round_trip(tmp_path):
    keys = labels.crop_keys(crops())
    assert keys[3] == ("folder, 1/a.jpg", (0, 0, 9, 6), 0) and len(set(keys)) == 6
    log = labels.LabelLog(tmp_path / "new" / "labels.csv")
    log.append(keys[1], "near")
    log.append(keys[4], "far")
    log.append(keys[0], "skip")
    log.append(keys[4], labels.UNDO)
    log.append(keys[4], labels.UNDO)  # of another page on the same file: without effect
    log.close()
    read = labels.read(tmp_path / "new" / "labels.csv")
    assert read.label == {keys[1]: "near", keys[0]: "skip"} and read.order == (keys[1], keys[0])


def test_each_crop_of_a_box_has_its_own_number():
    twice = crop_dataset.subset(crops(), np.array([0, 1, 0]))
    assert [key[2] for key in labels.crop_keys(twice)] == [0, 0, 1]
    with pytest.raises(ValueError, match="the boxes of these crops are unknown"):
        labels.crop_keys(crops()._replace(box=None))


def test_an_incomplete_last_row_is_ignored_and_removed(tmp_path):
    path, keys = tmp_path / "labels.csv", labels.crop_keys(crops())
    log = labels.LabelLog(path)
    log.append(keys[0], "near")
    log.append(keys[1], "far")
    log.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])  # killed while it was written
    assert labels.read(path).label == {keys[0]: "near"}
    log = labels.LabelLog(path)
    log.append(keys[1], "far")
    log.close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "has no column 'file'; it needs: file, xmin"),
        ("{head}a.jpg,0,0,9,9,0,close\n", "line 2: the label is 'close'; choices: near, far, skip, undo"),
        ("{head}a.jpg,0,0,9,nine,0,near\n", "line 2: invalid literal"),
        ("{head}a.jpg,0,0\n", "line 2: its number of cells differs"),
        ("no table", "has no column 'file'"),
    ],
)
def test_another_file_is_an_error_and_not_changed(tmp_path, text, message):
    path = tmp_path / "labels.csv"
    path.write_text(text.format(head=",".join(labels.COLUMNS) + "\n"))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        labels.LabelLog(path)
    assert path.read_bytes() == before
    with pytest.raises(FileNotFoundError, match="it should be a table of labels .written by jaxdog label"):
        labels.read(tmp_path / "none.csv")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "end"])
def test_rows_of_other_programs_are_kept(tmp_path, end, last):
    """Editors write other line ends, and leave out the last one."""
    path, keys = tmp_path / "labels.csv", labels.crop_keys(crops())
    log = labels.LabelLog(path)
    for i in range(3):
        log.append(keys[i], "near")
    log.close()
    text = path.read_text().rstrip("\n").replace("\n", end)
    path.write_text(text + (end if last else ""), newline="")
    assert labels.read(path).order == tuple(keys[:3])
    log = labels.LabelLog(path)
    log.append(keys[3], "far")
    log.close()
    assert labels.read(path).order == tuple(keys[:4])


def test_a_full_disk_is_an_error_and_saves_no_label(tmp_path, monkeypatch):
    session = label_page.Session(crops(), tmp_path / "labels.csv", 0)
    first, write = session.question().crop, os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, data: write(file, data[:9]))
        with pytest.raises(OSError, match="is the disk full"):
            session.answer(first, "near")
    assert session.question().crop == first and session.question().done == 0
    session.answer(first, "far")  # there is space again
    session.close()
    assert [*labels.read(tmp_path / "labels.csv").label.values()] == ["far"]


# ------------------------------------------------------------------ questions


def test_every_crop_is_shown_once_in_an_order_given_by_the_seed(tmp_path):
    orders = []
    for seed, name in [(0, "a"), (0, "b"), (1, "c")]:
        session, order = label_page.Session(crops(), tmp_path / name, seed), []
        while (asked := session.question()).crop is not None:
            assert asked.done == len(order) and asked.total == 6
            assert asked.name == crops().names[asked.crop // 2]
            order.append(asked.crop)
            session.answer(asked.crop, "far")
        assert session.question() == label_page.Question(None, "", 6, 6, {"near": 0, "far": 6, "skip": 0})
        session.close()
        orders.append(order)
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == list(range(6))


def test_a_session_resumes_and_undoes_earlier_labels(tmp_path):
    path = tmp_path / "labels.csv"
    session = label_page.Session(crops(), path, 0)
    order = [session.question().crop]
    order.append(session.answer(order[0], "near").crop)
    order.append(session.answer(order[1], "far").crop)
    session.close()
    session = label_page.Session(crops(), path, 0)
    assert session.question().crop == order[2] and session.question().counts == {
        "near": 1,
        "far": 1,
        "skip": 0,
    }
    assert session.undo().crop == order[1] and session.undo().crop == order[0]
    assert session.undo() == session.question()  # nothing left to take back
    session.answer(order[0], "skip")
    session.close()
    assert lines(path) == [
        *(row(order[0], "near"), row(order[1], "far"), row(order[1], "undo"), row(order[0], "undo")),
        row(order[0], "skip"),
    ]


def test_labels_of_other_crops_are_kept_and_ignored(tmp_path):
    path = tmp_path / "labels.csv"
    session = label_page.Session(crops(), path, 0)
    for i in range(6):
        session.answer(i, "near")
    session.close()
    fewer = crop_dataset.subset(crops(), np.array([0, 5]))._replace(names=tuple("x" * i for i in range(1, 7)))
    session = label_page.Session(fewer, path, 0)
    assert session.question().done == 0 and session.undo().done == 0
    session.close()
    assert len(lines(path)) == 6


def test_wrong_answers_are_refused(tmp_path):
    session = label_page.Session(crops(), tmp_path / "labels.csv", 0)
    for crop, given in [(6, "near"), (-1, "near"), (0, "undo"), (0, "close")]:
        with pytest.raises(ValueError, match=f"crop {crop}, label '{given}'; labels: near, far, skip"):
            session.answer(crop, given)
    session.answer(0, "near")
    with pytest.raises(ValueError, match="crop 0 already has a label"):
        session.answer(0, "far")
    session.close()
    assert lines(tmp_path / "labels.csv") == [row(0, "near")]


# ------------------------------------------------------------------ the page


@pytest.fixture
def served(tmp_path):
    """A running server, and its file."""
    session = label_page.Session(crops(), tmp_path / "labels.csv", 0)
    server = label_page.Server(session, 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server, tmp_path / "labels.csv"
    server.shutdown()
    thread.join()
    server.server_close()
    session.close()


def ask(server, method: str, path: str, body: str | bytes | None = None, **headers: str):
    """(status, type, body) of one request."""
    line = http.client.HTTPConnection(label_page.HOST, server.server_address[1], timeout=60)
    line.request(method, path, body, headers)
    reply = line.getresponse()
    found = reply.status, reply.headers["Content-Type"], reply.read()
    line.close()
    return found


def test_over_plain_http_each_answer_is_in_the_file_at_once(served):
    server, path = served
    status, kind, page = ask(server, "GET", "/")
    assert status == 200 and kind.startswith("text/html") and b"near or far" in page.lower()
    question = json.loads(ask(server, "GET", "/question")[2])
    given = []
    for word in ("near", "far", "skip"):
        status, kind, data = ask(server, "GET", f"/crop/{question['crop']}.png")
        assert (status, kind) == (200, "image/png")
        shown = np.asarray(PIL.Image.open(io.BytesIO(data)))
        np.testing.assert_array_equal(shown, crops().image[question["crop"]])
        given.append(row(question["crop"], word))
        status, _, reply = ask(
            server, "POST", "/answer", json.dumps({"crop": question["crop"], "label": word})
        )
        assert status == 200 and lines(path) == given
        question = json.loads(reply)
    assert question["done"] == 3 and question["counts"] == {"near": 1, "far": 1, "skip": 1}
    again = json.loads(ask(server, "POST", "/undo", "{}")[2])
    assert lines(path) == [*given, (*given[-1][:2], "undo")] and again["done"] == 2


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/crop/6.png", None, 404),
        ("GET", "/crop/-1.png", None, 404),
        ("GET", "/crop/../../etc/passwd", None, 404),
        ("GET", "/labels.csv", None, 404),
        ("POST", "/shutdown", "{}", 404),
        ("POST", "/answer", '{"crop": 0, "label": "close"}', 400),
        ("POST", "/answer", '{"crop": true, "label": "near"}', 400),
        ("POST", "/answer", '{"crop": "0", "label": "near"}', 400),
        ("POST", "/answer", '{"crop": 0}', 400),
        ("POST", "/answer", "[]", 400),
        ("POST", "/answer", "near", 400),
        ("POST", "/answer", b"\xff\xfe", 400),
        ("POST", "/answer", " " * 2000, 413),
        ("GET", "/crop/" + "9" * 5000 + ".png", None, 404),
        ("POST", "/answer", '{"crop": ' + "9" * 900 + ', "label": "near"}', 400),
        ("POST", "/answer", '{"crop": 1e999, "label": "near"}', 400),
        ("POST", "/answer", "[" * 1000, 400),
        ("POST", "/answer", '{"a":' * 199, 400),
    ],
    ids=lambda x: str(x)[:30],
)
def test_other_requests_change_nothing(served, method, path, body, status):
    server, file = served
    assert ask(server, method, path, body)[0] == status
    assert lines(file) == [] and ask(server, "GET", "/question")[0] == 200


def test_a_giant_length_is_refused(served):
    server, _ = served
    with socket.create_connection(server.server_address) as connection:
        host = f"127.0.0.1:{server.server_address[1]}"
        request = f"POST /answer HTTP/1.1\r\nHost: {host}\r\nContent-Length: {'9' * 5000}\r\n\r\n"
        connection.sendall(request.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("error", [BrokenPipeError, ConnectionResetError])
def test_a_browser_that_closes_the_connection_is_no_error(served, monkeypatch, caplog, capfd, error):
    """The label is in the file, so nothing says that it could not be written."""
    server, path = served

    def gone(*_):
        raise error("the browser has gone")

    with monkeypatch.context() as patched:
        patched.setattr(label_page.Handler, "_send", gone)
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            ask(server, "POST", "/answer", '{"crop": 0, "label": "near"}')
    assert lines(path) == [row(0, "near")] and not caplog.text and not capfd.readouterr().err
    assert ask(server, "GET", "/question")[0] == 200


def test_other_pages_may_not_show_it(served):
    """Neither in a frame nor as an image."""
    server, _ = served
    for path in ("/", "/question", "/crop/0.png", "/nowhere"):
        connection = http.client.HTTPConnection(*server.server_address)
        connection.request("GET", path)
        headers = connection.getresponse().headers
        connection.close()
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_other_pages_may_not_answer(served):
    """Requests by another host name (DNS rebinding) or from another page are refused."""
    server, file = served
    port, answer = server.server_address[1], '{"crop": 0, "label": "near"}'
    assert server.server_address[0] == "127.0.0.1"
    for headers in ({"Host": f"evil.example:{port}"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        assert ask(server, "POST", "/answer", answer, **headers)[0] == 403
        assert ask(server, "GET", "/question", **headers)[0] == 403
    assert lines(file) == []
    good = {"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"}
    assert ask(server, "POST", "/answer", answer, **good)[0] == 200


def test_a_port_in_use_is_an_error(served, tmp_path):
    port = served[0].server_address[1]
    with pytest.raises(ValueError, match=f"--port={port} is not available .*use 0 for any free port"):
        label_page.serve(crops(), tmp_path / "other.csv", 0, port)


def test_in_a_browser_keys_and_buttons_write_the_file(served, tmp_path):
    server, path = served
    order = np.random.default_rng(0).permutation(6).tolist()
    with browser.Page(tmp_path / "profile") as page:
        page.go(server.address)
        shown = "document.getElementById('crop')"

        def ready(done: int, crop: int) -> None:
            page.until(f"!busy && question && question.done === {done}")
            assert page.value(f"{shown}.getAttribute('src')") == f"/crop/{crop}.png"
            assert page.value(f"{shown}.naturalWidth") == 16  # it is there, and the policy lets it in
            assert page.value("document.getElementById('name').textContent") == crops().names[crop // 2]
            counts = page.value("document.getElementById('counts').textContent")
            assert counts.startswith(f"{done} of 6: near ")

        page.until("document.readyState === 'complete' && typeof question === 'object'")
        ready(0, order[0])
        page.press("x")  # means nothing
        for done, (key, word) in enumerate([("n", "near"), ("f", "far"), ("s", "skip")]):
            page.press(key)
            ready(done + 1, order[done + 1])
            assert lines(path)[-1] == row(order[done], word)
        page.press("u")
        ready(2, order[2])
        page.value("document.querySelector('button[data-key=n]').click()")
        ready(3, order[3])
        for done in (3, 4):
            page.press("f")
            ready(done + 1, order[done + 1])
        page.press("F")  # the last one
        page.until("!busy && question.crop === null")
        assert page.value("!document.getElementById('done').hidden && " + f"{shown}.hidden") is True
        page.press("n")  # nothing to label any more
        page.go(server.address)  # loaded again, it is still done
        page.until("typeof question === 'object' && question !== null && question.done === 6")
    words = ["near", "far", "skip", "undo", "near", "far", "far", "far"]
    rows = [0, 1, 2, 2, 2, 3, 4, 5]
    assert lines(path) == [row(order[i], word) for i, word in zip(rows, words, strict=True)]


def test_a_write_error_is_shown_on_the_page(served, tmp_path, monkeypatch):
    server, path = served
    write = os.write
    monkeypatch.setattr(
        os, "write", lambda file, data: len(data) - 1 if b",near\n" in data else write(file, data)
    )
    answer = '{"crop": 0, "label": "near"}'
    status, _, body = ask(server, "POST", "/answer", answer)
    assert status == 500 and b"could not be written" in body
