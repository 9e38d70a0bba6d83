"""Finds the parts of a data set: in the user's folders, unpacked by stage 1, or still to be downloaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from s5.challenge.corpus import additions
from s5.challenge.corpus.archives import unpack, unpacked
from s5.challenge.corpus.config import DEV, Addition, Corpus, Part
from s5.challenge.corpus.download import PATIENT, File, Patience, bytes_left, check_space, download, in_words, published
from s5.utils.errors import InputError, one_of


@dataclass
class CorpusPaths:
    """Folders of a data set.

    Attributes:
        corpus: the data set.
        raw: folder of the files that stage 1 makes.
        archives: folder of downloads, ``<part>/<file>``.
        data_root: the user's folder with parts, which is only read.
        given: the user's folder of each part in ``--paths``, which is only read.
    """

    corpus: Corpus
    raw: Path = Path("data/raw")
    archives: Path = Path("data/download")
    data_root: Path | None = None
    given: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, path in self.given.items():
            if name not in self.corpus.parts:
                raise InputError("--paths", name, one_of(self.corpus.parts, name))
            if not _is_part(path, self.corpus.parts[name]):
                what = " and ".join(self.corpus.parts[name].holds)
                raise InputError(f"--paths: {path}", "no such content", f"the content of {name} ({what})")
        if self.data_root is not None:
            if not self.data_root.is_dir():
                raise InputError("--data_root", f"no folder {self.data_root}", "a folder")
            if not self.given and not any(self._of_user(name) for name in self.corpus.parts):
                places = ", ".join(place for part in self.corpus.parts.values() for place in part.found[:1])
                raise InputError(
                    f"--data_root: {self.data_root}", "no part of the data set", f"{places} or a similar folder in it"
                )

    def find(self, name: str) -> Path | None:
        """Folder of a part's content; None if it has to be downloaded or unpacked."""
        if (path := self._of_user(name)) is not None:
            return path
        if name not in self.corpus.parts:
            return None
        part, out = self.corpus.parts[name], self.unpacked(name)
        if all(unpacked(archive, out) is not None for archive in main_files(part.files)):
            return out / part.folder
        return None

    def _of_user(self, name: str) -> Path | None:
        """The user's folder of a part."""
        if name in self.given:
            return self.given[name].absolute()
        if name not in self.corpus.parts:
            return None
        part = self.corpus.parts[name]
        paths = [self.data_root / place for place in part.found] if self.data_root is not None else []
        return next((path.absolute() for path in paths if _is_part(path, part)), None)

    def unpacked(self, name: str) -> Path:
        """Folder that a part is unpacked in."""
        return self.raw / "unpacked" / name

    def needed(self, parts: Sequence[str]) -> list[str]:
        """The parts among ``parts`` that are missing and whose sounds are not in the development set already."""
        return [name for name in parts if self.find(name) is None and not self._added_before(name)]

    def _added_before(self, part: str) -> bool:
        """Whether all additions from a part are in the development set already."""
        of_part = [addition for addition in self.corpus.additions if addition.part == part]
        dev = self.find(DEV) if of_part else None
        return dev is not None and all(is_added(addition, dev) for addition in of_part)


def is_added(addition: Addition, dev: Path) -> bool:
    """Whether a development set has sounds of an addition already; the baseline's scripts put them there."""
    if addition.picks is not None:
        return any((dev / item.target).is_file() for item in additions.items_of(addition, Path(), dev))
    return any(
        next((dev / addition.into / split / name).glob("*.wav"), None) is not None
        for split in addition.splits.values()
        for name in addition.classes
    )


def main_files(files: Sequence[str]) -> list[str]:
    """The archives among a part's files; a split zip archive is named by its last file.

    Example:
        >>> main_files(["a.z01", "a.z02", "a.zip", "LICENCE.pdf"])
        ['a.zip']
    """
    return [name for name in files if name.endswith((".zip", ".tar", ".tar.gz", ".tgz"))]


def fetch(
    places: CorpusPaths,
    parts: Sequence[str],
    mirrors: Mapping[str, Sequence[str]] | None = None,
    jobs: int = 4,
    patience: Patience = PATIENT,
    recheck: bool = False,
) -> list[str]:
    """Downloads the archives of missing parts.

    Args:
        places: folders of the data set.
        parts: names of the parts.
        mirrors: addresses by part that are tried first.
        jobs: number of files that are downloaded at a time.
        patience: limits of a download.
        recheck: also verify the checksums of existing archives.

    Returns:
        Names of the parts that were missing.
    """
    needed = places.needed(parts)
    files = {name: files_of(places, name, (mirrors or {}).get(name, ()), patience) for name in needed}
    # Space for all parts is checked first, so that a long download does not fail at its end.
    places.archives.mkdir(parents=True, exist_ok=True)
    left = sum(bytes_left(files[name], places.archives / name) for name in needed)
    check_space(places.archives, left, f"the archives of {', '.join(needed)}")
    for name in needed:
        download(files[name], places.archives / name, jobs, patience, recheck)
    return needed


def files_of(places: CorpusPaths, name: str, mirrors: Sequence[str] = (), patience: Patience = PATIENT) -> list[File]:
    """Files of a part to download, with addresses, and with published sizes and checksums."""
    part = places.corpus.parts[name]
    known: Mapping[str, tuple[int, str]] = {}
    if part.record is not None:
        try:
            known = published(part.record, places.archives / name / ".record.json", patience)
        except InputError as e:
            logging.warning("%s: sizes and checksums are not known (%s)", name, e)
    files = []
    for file in part.files:
        if known and file not in known:
            raise InputError(part.record, f"no file {file}", one_of(known, file))
        urls = tuple(f"{base.rstrip('/')}/{quote(file)}" for base in (*mirrors, *part.urls))
        files.append(File(file, urls, *known.get(file, (None, part.checksums.get(file)))))
    return files


def describe(places: CorpusPaths, parts: Sequence[str], mirrors: Mapping[str, Sequence[str]]) -> str:
    """Lists the parts: the folder of each one that exists; files, size and first address of each missing one."""
    needed = set(places.needed(parts))
    lines = []
    for name in parts:
        found = places.find(name)
        if found is not None or name not in needed:
            lines.append(f"{name:18s} {found or 'in the development set already'}")
            continue
        files = files_of(places, name, mirrors.get(name, ()), Patience(retries=1))
        sizes = [file.size for file in files]
        size = in_words(sum(s for s in sizes if s)) if all(sizes) else "size not published"
        lines.append(f"{name:18s} {len(files):4d} files, {size}, from {files[0].urls[0].rpartition('/')[0]}")
    return "\n".join(lines)


def unpack_part(places: CorpusPaths, name: str, nj: int = 1, keep_archives: bool = True) -> Path:
    """Unpacks a missing part and returns its folder. Raises InputError for a missing, damaged or wrong archive."""
    found = places.find(name)
    if found is not None:
        return found
    part, out, folder = places.corpus.parts[name], places.unpacked(name), places.archives / name
    for archive in main_files(part.files):
        if unpacked(archive, out) is not None and not (folder / archive).is_file():
            continue  # unpacked before; the archive was removed afterwards
        if not (folder / archive).is_file():
            expected = f"the download of {name} (or --data_root, --paths {name}=...)"
            raise InputError(folder / archive, "no file", expected)
        unpack(folder / archive, out, nj, _wanted(places, name, archive))
    content = out / part.folder
    if not _is_part(content, part):
        raise InputError(out, f"no {part.folder} with {', '.join(part.holds)}", f"the content of {name}'s archives")
    if not keep_archives:
        for file in part.files:
            (folder / file).unlink(missing_ok=True)
        logging.info("%s: archives removed", folder)
    return content


def _wanted(places: CorpusPaths, name: str, archive: str) -> list[str] | None:
    """Members to unpack of an archive; None means all.

    If a corpus has a zip archive for each of its folders (EARS: one a speaker), only picked files are unpacked.
    """
    part = places.corpus.parts[name]
    of_part = [addition for addition in places.corpus.additions if addition.part == name]
    dev = places.find(DEV)
    if dev is None or not of_part or len(main_files(part.files)) < 2 or any(a.picks is None for a in of_part):
        return None
    picked = [Path(item.source).as_posix() for a in of_part for item in additions.items_of(a, Path(), dev)]
    tops = {file.partition(".")[0] for file in main_files(part.files)}
    if any(path.partition("/")[0] not in tops for path in picked):
        return None  # the folders are not named like the archives
    return [path for path in picked if path.partition("/")[0] == archive.partition(".")[0]]


def _is_part(path: Path, part: Part) -> bool:
    return path.is_dir() and all((path / name).exists() for name in part.holds)


def read_pairs(text: str | None, option: str) -> dict[str, str]:
    """Parses ``a=x,b=y`` into a mapping. Raises InputError for another form.

    Example:
        >>> read_pairs("ears=/data/EARS,dev_set=d", "--paths")
        {'ears': '/data/EARS', 'dev_set': 'd'}
    """
    pairs = {}
    for pair in filter(None, (text or "").split(",")):
        name, _, value = pair.partition("=")
        if not (name and value):
            raise InputError(option, pair, "PART=VALUE,PART=VALUE")
        pairs[name] = value
    return pairs


def read_mirrors(text: str | None, corpus: Corpus) -> dict[str, list[str]]:
    """Addresses by part from the option ``--mirrors``: ``PART=URL,...``, or one URL with a folder for each part."""
    if text and "=" not in text.partition("://")[0]:
        return {name: [f"{text.rstrip('/')}/{name}"] for name in corpus.parts}
    pairs = read_pairs(text, "--mirrors")
    for name in pairs:
        if name not in corpus.parts:
            raise InputError("--mirrors", name, one_of(corpus.parts, name))
    return {name: [url] for name, url in pairs.items()}
