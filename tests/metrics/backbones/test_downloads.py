"""Downloads of weights: checked, continued, and explained where they fail."""

import hashlib
import http.server
import re
import threading

import pytest

from jaxdog.metrics.backbones import downloads
from jaxdog.utils import errors

CONTENT = b"weights" * 1000


@pytest.fixture
def remote(tmp_path):
    """A small file that stands for the published one."""
    content = b"weights" * 1000
    (tmp_path / "server.pth").write_bytes(content)
    url = (tmp_path / "server.pth").as_uri()
    return downloads.Remote(
        url, "published.pth", len(content), hashlib.sha256(content).hexdigest(), "config.eval.weights"
    )


def test_download_once(tmp_path, remote):
    cache = tmp_path / "cache"
    path = downloads.download(cache, remote)
    assert path.read_bytes() == b"weights" * 1000
    (tmp_path / "server.pth").unlink()
    assert downloads.download(cache, remote) == path  # offline now, and not needed
    assert [file.name for file in cache.iterdir()] == ["published.pth"]


def test_download_repairs_a_damaged_file(tmp_path, remote):
    (tmp_path / "published.pth").write_bytes(b"half")
    assert downloads.download(tmp_path, remote).stat().st_size == remote.size


@pytest.mark.parametrize("content", [b"weights" * 999, b"WEIGHTS" * 1000, b"weights" * 5000])
def test_download_of_something_else(tmp_path, remote, content):
    (tmp_path / "server.pth").write_bytes(content)
    with pytest.raises(downloads.DownloadError, match="not the published file"):
        downloads.download(tmp_path / "cache", remote)
    assert not list((tmp_path / "cache").iterdir())


def test_offline(tmp_path, remote):
    remote = remote._replace(url=(tmp_path / "gone.pth").as_uri())
    with pytest.raises(downloads.DownloadError) as caught:
        downloads.download(tmp_path / "cache", remote)
    message = str(caught.value)
    assert all(part in message for part in (remote.url, remote.sha256, "7,000 bytes", "config.eval.weights"))
    assert "\n" not in message and not list((tmp_path / "cache").iterdir())


class Server(http.server.BaseHTTPRequestHandler):
    """Sends CONTENT, or the part that is asked for, and ends the connection after `limit` bytes."""

    limit, parts, asked = len(CONTENT), True, []

    def do_GET(self):
        asked = self.headers.get("Range")
        self.asked.append(asked)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.parts else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + self.limit])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A `Remote` of CONTENT on a server of this process."""
    monkeypatch.setattr(Server, "asked", [])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{running.server_port}/server.pth"
        sha256 = hashlib.sha256(CONTENT).hexdigest()
        yield downloads.Remote(url, "published.pth", len(CONTENT), sha256, "config.eval.weights")
        running.shutdown()


@pytest.mark.parametrize("parts", [True, False])
def test_a_download_that_was_cut_off_is_continued(tmp_path, server, monkeypatch, parts):
    """Also by a server that only sends the whole file."""
    monkeypatch.setattr(Server, "limit", 3000)
    with pytest.raises(downloads.DownloadError, match="after 3,000 of 7,000 bytes; run the command again"):
        downloads.download(tmp_path, server)
    assert [file.name for file in tmp_path.iterdir()] == ["published.pth.part"]
    monkeypatch.setattr(Server, "limit", len(CONTENT))
    monkeypatch.setattr(Server, "parts", parts)
    assert downloads.download(tmp_path, server).read_bytes() == CONTENT
    assert Server.asked == [None, "bytes=3000-"]
    assert [file.name for file in tmp_path.iterdir()] == ["published.pth"]


@pytest.mark.parametrize("part", [b"other bytes", bytes(10_000)])
def test_a_damaged_part_is_received_again(tmp_path, server, part):
    (tmp_path / "published.pth.part").write_bytes(part)
    assert downloads.download(tmp_path, server).read_bytes() == CONTENT
    assert [file.name for file in tmp_path.iterdir()] == ["published.pth"]


def test_a_full_disk_is_no_fault_of_the_network(tmp_path, remote, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloads, "_append", full)
    with pytest.raises(errors.WriteError, match="could not be written"):
        downloads.download(tmp_path, remote)
