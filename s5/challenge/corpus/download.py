"""Downloads files: resumed, verified, several at a time, from mirrors. A file gets its name when it is complete.

<folder>/<name>              complete, with the published size and checksum
<folder>/<name>.part         incomplete; the next run resumes it
<folder>/<name>.part.json    address and version of the incomplete file, in case the server's file changes
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError
from urllib3.util import Retry

from s5.utils.errors import InputError
from s5.utils.files import write_json
from s5.utils.progress import LOG_INTERVAL
from s5.utils.text import read_json

BLOCK = 1 << 18
"""Number of bytes that are read at a time."""

KEPT_FREE = 1 << 30
"""Number of bytes of the disk that are kept free."""

GONE = (400, 401, 403, 404, 405, 410, 451)
"""HTTP statuses after which the address is not tried again."""

TEMPORARY = (".part", ".part.json")


@dataclass(frozen=True)
class File:
    """A file to download."""

    name: str
    urls: tuple[str, ...]
    """Addresses, tried in this order."""
    size: int | None = None
    """Published size in bytes."""
    checksum: str | None = None
    """Published checksum, ``md5:<hex>`` or ``sha256:<hex>``."""


@dataclass(frozen=True)
class Patience:
    """Limits of a download."""

    timeout: float = 60.0
    """Read timeout in seconds."""
    retries: int = 8
    """Number of retries without a new byte before the next address is tried."""
    first_wait: float = 1.0
    """Seconds before the first retry; they double with each further retry without a new byte."""
    longest_wait: float = 60.0

    def tries(self) -> Retry:
        """Retries of one address, counted from the last new byte."""
        return Retry(self.retries, backoff_factor=self.first_wait, backoff_max=self.longest_wait)


PATIENT = Patience()


class _Broken(Exception):
    """A failed try that is worth a retry. ``after`` is the answer's ``Retry-After``: seconds, or a date."""

    def __init__(self, reason: str, after: str | None = None) -> None:
        super().__init__(reason)
        self.after = after


class _Refused(Exception):
    """An address that does not serve the file; the next one is tried."""


class _Stopped(Exception):
    """The download was ended, after an error of another file or by the user."""


@dataclass
class _Meter:
    """Counts the bytes of all files and logs a line each minute."""

    total: int | None
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.last = self.began

    def add(self, n: int) -> None:
        with self.lock:
            self.done += n
            now = time.monotonic()
            if now - self.last < LOG_INTERVAL:
                return
            self.last = now
            of = f" of {in_words(self.total)}" if self.total else ""
            logging.info("download: %s%s, %s/s", in_words(self.done), of, in_words(self.done / (now - self.began)))


def in_words(n_bytes: float) -> str:
    """A number of bytes in a readable unit.

    Example:
        >>> in_words(512), in_words(2_500_000), in_words(31e9)
        ('512 B', '2.5 MB', '31.0 GB')
    """
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes:.0f} B"


def download(
    files: Sequence[File], folder: str | Path, jobs: int = 4, patience: Patience = PATIENT, recheck: bool = False
) -> list[Path]:
    """Downloads files, or resumes their download.

    Args:
        files: the files; those that exist with the right size are kept.
        folder: folder to write.
        jobs: number of files that are downloaded at a time.
        patience: limits of a download.
        recheck: also verify the checksums of existing files.

    Returns:
        Paths of the files.

    Raises:
        InputError: no address serves a file, an existing file differs from the published one, or the disk has not
            enough space (nothing is downloaded then). Incomplete files are kept.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [file for file in files if not _is_there(file, folder, recheck)]
    for file in missing:
        for url in file.urls:
            if urlsplit(url).scheme not in ("http", "https"):
                raise InputError(file.name, f"address {url}", "http://... or https://...")
    left = bytes_left(missing, folder)
    check_space(folder, left, f"{len(missing)} files")
    if missing:
        logging.info("download: %d files, %s, to %s", len(missing), in_words(left) if left else "sizes unknown", folder)
    meter, stop = _Meter(left or None), threading.Event()
    with ThreadPoolExecutor(max(1, min(jobs, len(missing)))) as pool:
        futures = [pool.submit(_Transfer(file, folder, patience, meter, stop).run) for file in missing]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # After an error or Ctrl-C the other downloads end soon and keep their .part files.
            if not all(future.done() and future.exception() is None for future in futures):
                stop.set()
            wait(futures)
        errors = [e for f in futures if (e := f.exception()) is not None and not isinstance(e, _Stopped)]
        if errors:
            raise errors[0]
    return [folder / file.name for file in files]


def bytes_left(files: Iterable[File], folder: Path) -> int:
    """Number of bytes that a folder lacks of some files; files of unknown size count as 0."""
    return sum(
        max(0, (file.size or 0) - _size(folder / f"{file.name}.part"))
        for file in files
        if not (folder / file.name).exists()
    )


def check_space(folder: Path, n_bytes: int, what: str) -> None:
    """Raises InputError unless a folder's disk has room for so many bytes and a GiB more."""
    free = shutil.disk_usage(folder).free
    if n_bytes and free < n_bytes + KEPT_FREE:
        raise InputError(folder, f"{in_words(free)} free", f"{in_words(n_bytes + KEPT_FREE)} for {what}")


def published(record: str, memory: Path, patience: Patience = PATIENT) -> dict[str, tuple[int, str]]:
    """Size in bytes and checksum by name of a Zenodo record's files.

    Args:
        record: address of the record, e.g. ``https://zenodo.org/api/records/19328046``.
        memory: file in which the record is kept; it is downloaded once.
        patience: limits of the download.

    Raises:
        InputError: there is no answer, or it is not a record.
    """
    if (listing := _listing(memory)) is not None:
        return listing
    memory.parent.mkdir(parents=True, exist_ok=True)
    name = f"record_{record.rstrip('/').rpartition('/')[2]}"
    short = replace(patience, retries=min(patience.retries, 3))
    found = download([File(name, (record,))], memory.parent, patience=short)[0]
    if (listing := _listing(found)) is None:
        found.unlink()
        raise InputError(record, "an answer without a list of files", "a record of Zenodo's API")
    os.replace(found, memory)
    return listing


def _listing(path: Path) -> dict[str, tuple[int, str]] | None:
    """Size in bytes and checksum by name of the files in a record; None if the file is no record."""
    try:
        files = read_json(path, "a record of Zenodo's API")["files"]
        return {file["key"]: (int(file["size"]), str(file["checksum"])) for file in files}
    except (InputError, ValueError, KeyError, TypeError):
        return None


def _is_there(file: File, folder: Path, recheck: bool) -> bool:
    path = folder / file.name
    if not path.is_file():
        return False
    if different := _difference(file, path, recheck):
        raise InputError(path, different[0], f"{different[1]}, as published (move it away)")
    return True


def _difference(file: File, path: Path, recheck: bool = True) -> tuple[str, str] | None:
    """Found and published size or checksum of a file, if they differ."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"{size} bytes", str(file.size)
    if recheck and file.checksum is not None:
        kind = file.checksum.partition(":")[0]
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, lambda: hashlib.new(kind, usedforsecurity=False))
        if (found := f"{kind}:{digest.hexdigest()}") != file.checksum:
            return found, file.checksum
    return None


class _Transfer:
    """The download of one file."""

    def __init__(self, file: File, folder: Path, patience: Patience, meter: _Meter, stop: threading.Event) -> None:
        self.file, self.patience, self.meter, self.stop = file, patience, meter, stop
        self.path = folder / file.name
        self.part, self.note = (folder / f"{file.name}{suffix}" for suffix in TEMPORARY)

    def run(self) -> None:
        reasons = []
        for url in self.file.urls:
            try:
                self._persist(url)
            except _Refused as e:
                host = urlsplit(url).netloc
                reasons.append(f"{host}: {e}")
                logging.warning("%s: %s failed: %s", self.file.name, host, e)
                continue
            os.replace(self.part, self.path)
            self.note.unlink(missing_ok=True)
            logging.info("%s: complete, %s", self.file.name, in_words(self.path.stat().st_size))
            return
        raise InputError(
            self.file.name, "; ".join(reasons) or "no address", "a download (--mirrors adds other addresses)"
        )

    def _persist(self, url: str) -> None:
        """Tries one address until the file is complete. Raises _Refused if the address has to be given up."""
        tries, damaged, most = self.patience.tries(), 0, _size(self.part)
        while True:
            after = None
            try:
                self._transfer(url)
                if different := _difference(self.file, self.part):
                    raise _Damaged(" instead of ".join(different))
                return
            except _Broken as e:
                reason, after = str(e), e.after
            except _Damaged as e:
                # Once more from the beginning: a resumed file may mix two versions.
                self._restart()
                reason, damaged, most = str(e), damaged + 1, 0
                if damaged > 1:
                    raise _Refused(reason) from e
            if _size(self.part) > most:
                tries, most = self.patience.tries(), _size(self.part)
            else:
                try:
                    tries = tries.increment("GET", url, error=HTTPError(reason))
                except MaxRetryError as e:
                    raise _Refused(f"{reason} ({len(tries.history) + 1} tries)") from e
            pause = self._pause(tries, after)
            logging.info("%s: %s; retry in %.0f s from byte %d", self.file.name, reason, pause, _size(self.part))
            if self.stop.wait(pause):
                raise _Stopped

    def _pause(self, tries: Retry, after: str | None) -> float:
        """Seconds before the next try: as long as the server asks for, within the limits."""
        try:
            asked = tries.parse_retry_after(after) if after else 0.0
        except InvalidHeader:
            asked = 0.0
        wait = max(asked, tries.get_backoff_time(), self.patience.first_wait)
        return min(wait, self.patience.longest_wait)

    def _transfer(self, url: str) -> None:
        """Downloads over one connection, from the end of the incomplete file."""
        have, validator = self._resumable(url)
        if have and have == self.file.size:
            return
        headers = {"User-Agent": "s5", "Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-"} | ({"If-Range": validator} if validator else {})
        request = urllib.request.Request(url, headers=headers)  # noqa: S310  (download() allows http and https only)
        try:
            response = urllib.request.urlopen(request, timeout=self.patience.timeout)  # noqa: S310
        except urllib.error.HTTPError as e:
            with e:
                self._refuse(e, have)
            return
        except (OSError, http.client.HTTPException) as e:
            raise _Broken(_reason(e)) from e
        with response:
            start, total = _extent(response, have)
            if start not in (0, have):
                self._restart()
                raise _Broken(f"bytes from {start} instead of {have}")
            if self.file.size is not None and total is not None and total != self.file.size:
                raise _Refused(f"{total} bytes instead of {self.file.size}")
            if not start:
                self._restart()
                check_space(self.path.parent, total or 0, self.file.name)
            tag = response.headers.get("ETag", "")
            strong = tag if tag.startswith('"') else response.headers.get("Last-Modified")
            write_json(self.note, {"url": url, "validator": strong})
            self._receive(response, total)

    def _receive(self, response: http.client.HTTPResponse, total: int | None) -> None:
        with self.part.open("ab") as out:
            while True:
                if self.stop.is_set():
                    raise _Stopped
                try:
                    block = response.read1(BLOCK)
                except (OSError, http.client.HTTPException) as e:
                    raise _Broken(_reason(e)) from e
                if not block:
                    break
                out.write(block)
                self.meter.add(len(block))
        have = _size(self.part)
        if total is not None and have < total:
            raise _Broken(f"the connection ended after {have} of {total} bytes")

    def _refuse(self, answer: urllib.error.HTTPError, have: int) -> None:
        """Raises the exception that fits an HTTP error."""
        if answer.code == 416 and have:  # the server's file ends here: ours is complete, or of another version
            if self.file.size is None and answer.headers.get("Content-Range") == f"bytes */{have}":
                return
            self._restart()
            raise _Broken("a partial file that is longer than the server's")
        words = f"HTTP {answer.code} {answer.reason}"
        if answer.code in GONE:
            raise _Refused(words)
        raise _Broken(words, answer.headers.get("Retry-After"))

    def _resumable(self, url: str) -> tuple[int, str | None]:
        """Number of bytes to resume from, and the version of the file that they are from, if it is known.

        Without a published checksum, only bytes of a known version are resumed.
        """
        have, noted = _size(self.part), {}
        with suppress(InputError, ValueError, TypeError):
            noted = dict(read_json(self.note, "what an earlier try noted"))
        validator = noted.get("validator") if noted.get("url") == url else None
        too_long = self.file.size is not None and have > self.file.size
        if have and (too_long or (self.file.checksum is None and not validator)):
            self._restart()
            return 0, None
        return have, validator

    def _restart(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


class _Damaged(Exception):
    """A complete file with a wrong size or checksum."""


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Position of an answer's first byte, and size of the whole file if the server states it."""
    length = response.headers.get("Content-Length", "")
    if response.status != 206:
        return 0, int(length) if length.isdigit() else None
    span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    start = span.partition("-")[0]
    return int(start) if start.isdigit() else -1, int(total) if total.isdigit() else None


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return "stalled"
    return str(getattr(cause, "strerror", None) or cause) or type(cause).__name__


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
