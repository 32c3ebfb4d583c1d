"""Exported generators on the Hugging Face Hub (extra `hub`)."""

import pathlib
import re
from typing import Any

from jaxdog.generators import pretrained
from jaxdog.utils import errors, optional

SCHEME = "hf://"
ADDRESS = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def download(address: str) -> pathlib.Path:
    """The local folder of "hf://user/name" or "hf://user/name@revision", downloaded if it is not cached.

    Only config.json and model.safetensors are downloaded.
    Raises UserError if the address is malformed or cannot be downloaded, MissingExtraError without the extra.
    """
    parts = ADDRESS.fullmatch(address)
    if parts is None:
        raise errors.UserError(
            f"{address!r} is not an address of the form hf://user/name or hf://user/name@tag"
        )
    client = _client(address)
    try:
        folder = client.snapshot_download(
            parts["repo"],
            revision=parts["revision"],
            allow_patterns=[pretrained.CONFIG, pretrained.WEIGHTS],
        )
    except Exception as error:  # of huggingface_hub, or of the network
        raise errors.UserError(f"{address} cannot be downloaded ({_reason(error)})") from error
    return pathlib.Path(folder)


def upload(folder: pathlib.Path, repo_id: str, private: bool = False) -> str:
    """Uploads an exported folder to the repository "user/name", created if missing; returns its address.

    The client's own login is used. Raises UserError if that fails, MissingExtraError without the extra.
    """
    address = SCHEME + repo_id
    if ADDRESS.fullmatch(address) is None or "@" in repo_id:
        raise errors.UserError(f"repo_id is {repo_id!r}, and must have the form user/name")
    client = _client(address)
    try:
        client.create_repo(repo_id, private=private, exist_ok=True)
        client.upload_folder(repo_id=repo_id, folder_path=str(folder), allow_patterns=list(pretrained.FILES))
    except Exception as error:  # of huggingface_hub, or of the network
        raise errors.UserError(
            f"{folder} cannot be uploaded to {address} ({_reason(error)}); log in with `hf auth login`"
        ) from error
    return address


def _client(address: str) -> Any:
    return optional.load("huggingface_hub", address)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
