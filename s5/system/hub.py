"""Downloads model archives from the Hugging Face hub and uploads them; opens an archive from any place."""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from s5.system.archive import FILE_ON_HUB, check_folder, read_bytes, read_zip, unpack
from s5.utils.config import IN_REPOSITORY, ROOT, resolve
from s5.utils.errors import InputError

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def open_archive(source: str | Path, revision: str | None = None) -> Path:
    """Unpacks an archive if necessary, and returns the folder of its content.

    Args:
        source: an archive (relative to the working directory or the repository), the folder of an unpacked archive, or
            the name of a repository on the hub, ``user/name``.
        revision: revision of that repository.

    Raises:
        InputError: no archive of this name, or a damaged one.
    """
    path = resolve(source)
    if path.is_dir():
        check_folder(path)
        return path
    if not path.is_file():
        if not _HUB_NAME.fullmatch(str(source)) or path.suffix in (".s5", ".zip"):
            raise InputError(source, "no such file", "a model archive, or the name of one on the hub")
        path = download(str(source), revision)
    return unpack(path, cache() / hashlib.sha256(read_bytes(path)).hexdigest()[:32])


def cache() -> Path:
    """Folder for unpacked archives: ``archives`` in ``$S5_CACHE``, by default in ``.cache`` of the repository.

    With ``S5_CACHE=off``, in an installed package or in a repository without write permission, it is a temporary folder
    that is removed when the process ends.
    """
    chosen = os.environ.get("S5_CACHE")
    if chosen == "off" or not (chosen or (IN_REPOSITORY and os.access(ROOT, os.W_OK))):
        return _passing_folder()
    return Path(chosen or ROOT / ".cache") / "archives"


def download(name: str, revision: str | None = None) -> Path:
    """Downloads the archive of a repository on the hub, or finds it in the hub's cache. Raises InputError."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, FILE_ON_HUB, revision=revision, endpoint=_endpoint()))
    except Exception as e:  # the hub's client also raises errors of its HTTP library
        why = f"{type(e).__name__}: {e}".split("\n")[0]
        raise InputError(name, f"no such file, and none from the hub ({why})", "a model archive") from None


def upload(archive: str | Path, name: str, private: bool = False) -> str:
    """Uploads an archive and its README to the hub, in one commit.

    Args:
        archive: the archive's file.
        name: repository ``user/name``; created if it does not exist. Log in first: ``hf auth login``.
        private: whether a new repository is private.

    Returns:
        The commit's identifier.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    card = read_zip(Path(archive))["README.md"]
    try:
        hub = HfApi(endpoint=_endpoint())
        hub.create_repo(name, private=private, exist_ok=True)
        operations = [CommitOperationAdd(FILE_ON_HUB, str(archive)), CommitOperationAdd("README.md", card)]
        return hub.create_commit(name, operations, commit_message=f"Upload {Path(archive).name}").oid
    except Exception as e:
        why = f"{type(e).__name__}: {e}".split("\n")[0]
        raise InputError(name, f"no upload ({why})", "a repository that you may write to") from None


@functools.cache
def _passing_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="s5.")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _endpoint() -> str | None:
    """Address of the hub in ``HF_ENDPOINT``, which the hub's client itself reads on import only."""
    return os.environ.get("HF_ENDPOINT")
