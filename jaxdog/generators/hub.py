"""Exported generators on the Hugging Face Hub (extra `hub`)."""

import pathlib
import re
from typing import Any

from jaxdog.generators import pretrained
from jaxdog.utils import errors, optional, untrusted

SCHEME = "hf://"
LIMITS = {pretrained.CONFIG: untrusted.MAX_JSON, pretrained.WEIGHTS: 4 << 30}  # bytes
ADDRESS = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def download(address: str) -> pathlib.Path:
    """The local folder of "hf://user/name" or "hf://user/name@revision", downloaded if it is not cached.

    Only config.json and model.safetensors are downloaded, of at most LIMITS bytes.
    Raises UserError if the address is malformed, cannot be downloaded or is too large, MissingExtraError
    without the extra.
    """
    parts = ADDRESS.fullmatch(address)
    if parts is None:
        raise errors.UserError(
            f"{address!r} is not an address of the form hf://user/name or hf://user/name@tag"
        )
    client = _client(address)
    try:
        sizes, failed = _sizes(client, parts["repo"], parts["revision"]), None
    except Exception as error:  # without network, a cached folder is used
        sizes, failed = {}, error
    for name, limit in LIMITS.items():
        if sizes.get(name, 0) > limit:
            raise errors.UserError(f"{address}: {name} has {sizes[name]:,} bytes; the limit is {limit:,}")
    try:
        folder = client.snapshot_download(
            parts["repo"],
            revision=parts["revision"],
            allow_patterns=list(LIMITS),
            local_files_only=failed is not None,
        )
    except Exception as error:  # of huggingface_hub, or of the network
        raise errors.UserError(f"{address} cannot be downloaded ({_reason(failed or error)})") from error
    return pathlib.Path(folder)


def _sizes(client: Any, repo: str, revision: str | None) -> dict[str, int]:
    """The size in bytes of each file of a repository."""
    info = client.HfApi().model_info(repo, revision=revision, files_metadata=True)
    return {file.rfilename: file.size or 0 for file in info.siblings or ()}


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
