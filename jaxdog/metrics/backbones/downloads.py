"""Downloads of published weights: checked by size and sha256, and continued where an earlier one ended."""

import hashlib
import http.client
import os
import pathlib
import urllib.request
from typing import Any, NamedTuple

from jaxdog.utils import errors, files, progress

CHUNK = 1 << 20  # bytes


class Remote(NamedTuple):
    """A file that can be downloaded and checked."""

    url: str
    name: str  # of the file in the cache
    size: int  # bytes
    sha256: str
    setting: str  # the field of a config that names the file where there is no network


class DownloadError(errors.UserError):
    """A published file could not be downloaded."""


class _WrongFileError(Exception):
    """What was downloaded is not the published file."""


def file_sha256(path: pathlib.Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(folder: str | pathlib.Path, remote: Remote) -> pathlib.Path:
    """The path of the published file in `folder`, downloaded unless it is there, and checked.

    What a failed or interrupted call has received is kept as NAME.part, and the next call continues it.

    Raises DownloadError if the file cannot be downloaded or has another size or sha256. The write is atomic.
    """
    target = pathlib.Path(folder) / remote.name
    if target.is_file() and target.stat().st_size == remote.size and file_sha256(target) == remote.sha256:
        return target
    part = target.with_name(f"{remote.name}.part")
    with files.atomic_path(target) as temporary:
        continued = part.is_file()
        if continued:
            os.replace(part, temporary)  # so that no other process continues the same file
        try:
            try:
                _fetch(remote, temporary)
            except _WrongFileError:
                if not continued:
                    raise
                temporary.write_bytes(b"")  # what an earlier call had received was damaged
                _fetch(remote, temporary)
        except _WrongFileError as error:
            raise DownloadError(_explain(remote, str(error))) from error
        except BaseException as error:
            if temporary.stat().st_size:
                os.replace(temporary, part)
            if not isinstance(error, OSError | http.client.HTTPException) or _is_of_the_disk(error):
                raise
            raise DownloadError(_explain(remote, str(getattr(error, "reason", error)))) from error
    return target


def _fetch(remote: Remote, path: pathlib.Path) -> None:
    """Appends what is missing of the remote file to the one at `path`, with a progress bar."""
    digest = hashlib.sha256()
    with path.open("r+b") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
        if file.tell() < remote.size:
            digest = _append(remote, file, digest)
        _check(remote, file.tell(), digest)


def _append(remote: Remote, file: Any, digest: Any) -> Any:
    """Reads the rest from the server, or everything if it sends no parts; returns the digest of the whole."""
    start = file.tell()
    request = urllib.request.Request(remote.url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=30) as response:
        if start and response.status != http.HTTPStatus.PARTIAL_CONTENT:
            file.seek(start := 0)
            file.truncate()
            digest = hashlib.sha256()
        declared = response.headers.get("Content-Length")
        if declared is not None and start + int(declared) != remote.size:
            raise _WrongFileError(f"it has {start + int(declared):,} bytes, so it is not the published file")
        with progress.bar(remote.size, remote.name, "B", initial=start, unit_scale=True) as bar:
            while file.tell() <= remote.size and (chunk := response.read(CHUNK)):
                digest.update(chunk)
                file.write(chunk)
                bar.update(len(chunk))
    if file.tell() < remote.size:
        raise ConnectionError(
            f"the connection ended after {file.tell():,} of {remote.size:,} bytes; run the command again to "
            "continue"
        )
    return digest


def _is_of_the_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in files.WHILE_WRITING


def _check(remote: Remote, size: int, digest: Any) -> None:
    if (size, digest.hexdigest()) != (remote.size, remote.sha256):
        raise _WrongFileError(
            f"it has {size:,} bytes and sha256 {digest.hexdigest()}, so it is not the published file"
        )


def _explain(remote: Remote, problem: str) -> str:
    return (
        f"The published weights {remote.name} could not be downloaded from {remote.url}: {problem}. Without "
        f"network, download that file elsewhere ({remote.size:,} bytes, sha256 {remote.sha256}) and name "
        f"its path as {remote.setting} (jaxdog score: --weights)."
    )
