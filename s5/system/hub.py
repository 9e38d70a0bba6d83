"""Model archives on the Hugging Face hub, and one interface to open an archive wherever it is."""

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
    """Folder of an archive's content.

    Args:
        source: an archive (from here, or below the repository), the folder of an unpacked one, or the name of a
            repository on the Hugging Face hub, ``user/name``.
        revision: of that repository.

    Raises:
        InputError: nothing of this name, or a bad archive.
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
    """Folder that archives are unpacked in: ``archives`` in ``$S5_CACHE``, else in ``.cache`` of the repository.

    ``S5_CACHE=off``, an installed package, or a repository that this user may not write to: a folder that goes when
    this process ends.
    """
    chosen = os.environ.get("S5_CACHE")
    if chosen == "off" or not (chosen or (IN_REPOSITORY and os.access(ROOT, os.W_OK))):
        return _passing_folder()
    return Path(chosen or ROOT / ".cache") / "archives"


def download(name: str, revision: str | None = None) -> Path:
    """The archive of a repository on the hub, or from its local cache. Raises InputError if there is none."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, FILE_ON_HUB, revision=revision, endpoint=_endpoint()))
    except Exception as e:  # the hub's client raises those of its HTTP library too
        why = f"{type(e).__name__}: {e}".split("\n")[0]
        raise InputError(name, f"no such file, and none from the hub ({why})", "a model archive") from None


def upload(archive: str | Path, name: str, private: bool = False) -> str:
    """Puts an archive and its README on the hub, in one commit.

    Args:
        archive: the file.
        name: repository ``user/name``; made if there is none. Who uploads is the hub's own setting (``hf auth login``).
        private: of a repository that is made.

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
    """Address of the hub where it is not the public one; the hub's client looks at it on import only."""
    return os.environ.get("HF_ENDPOINT")
