"""Prepares a challenge recipe's data (stage 1): links parts, additions and curated events, writes data directories.

data/raw/unpacked/<part>/     unpacked downloads; parts in the user's folders are used in place
data/raw/added/               converted sounds of other corpora
data/raw/dev_set/             the development set as the challenge's scripts leave it: links to the files above
data/raw/eval_set             a link to the evaluation set
data/dev_set, data/eval_set   links to those two; paths in scenes start here
data/<set>/                   data directories of ready-made mixtures
data/raw/refinement.md        counts of training events
data/raw/.content             checksum of the files that scenes use; run.sh renders the scenes again if it changes
data/raw/.sources             the user's folders, one a line; run.sh runs the stage again if their files change
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from s5.challenge.corpus import additions
from s5.challenge.corpus.config import DEV, Corpus
from s5.challenge.corpus.curation import Curation, counts_table, curate, external_items
from s5.challenge.corpus.paths import CorpusPaths, is_added, unpack_part
from s5.challenge.corpus.sets import mixture_rows
from s5.data import write_data_dir
from s5.data.datadir import CONTENT
from s5.labels import LabelSet
from s5.utils.config import resolve
from s5.utils.errors import InputError
from s5.utils.files import atomic_folder, write_text
from s5.utils.files import link as make_link

MERGED = ("sound_event", "interference")
"""Folders of the development set that additions join."""

TRAIN = "sound_event/train/"
REPORT = "refinement.md"
SOURCES = ".sources"


def prepare(
    places: CorpusPaths,
    parts: Sequence[str],
    curation: Curation | None = None,
    nj: int = 1,
    keep_archives: bool = True,
    data: Path = Path("data"),
) -> None:
    """Makes all data that the later stages read.

    Args:
        places: folders of the data set.
        parts: names of the parts.
        curation: rules for the training events.
        nj: number of processes.
        keep_archives: keep the downloads after unpacking.
        data: folder of data directories and links.

    Raises:
        InputError: a file is missing or wrong; the data of an earlier run are kept.
    """
    corpus = places.corpus
    labels = LabelSet.load(resolve(corpus.labels))
    folders = {}
    for name in sorted(parts, key=lambda name: name != DEV):  # the development set picks the files of others
        if places.find(name) is not None or name in places.needed([name]):
            folders[name] = unpack_part(places, name, nj, keep_archives)
    if DEV in folders:
        files = _merged(places, folders, nj)
        if curation is not None:
            files = _curate(places, files, curation, labels, nj)
        _link_tree(folders[DEV], files, places.raw / DEV)
        _write_content(corpus, places.raw, folders[DEV], files)
    for name, folder in folders.items():
        if any(s.part == name for s in corpus.sets.values()) and name != DEV:
            _link(places.raw / name, folder)
    for name in folders:
        if (places.raw / name).exists():
            _link(data / name, places.raw / name)
    _write_sets(corpus, folders, labels, data)
    users = [str(folder) for folder in folders.values() if not _is_below(folder, places.raw)]
    write_text(places.raw / SOURCES, "".join(f"{folder}\n" for folder in users))


def _merged(places: CorpusPaths, folders: Mapping[str, Path], nj: int) -> dict[str, str]:
    """File by path in the development set, for the folders that additions join; includes the additions."""
    dev = folders[DEV]
    files = {path: str(dev / path) for top in MERGED for path in _walk(dev, top)}
    for addition in places.corpus.additions:
        if addition.part not in folders:
            if is_added(addition, dev):
                logging.info("%s: in the development set already", addition.name)
            else:
                logging.warning("%s: not added, because %s was left out", addition.name, addition.part)
            continue
        items = [item for item in additions.items_of(addition, folders[addition.part], dev) if item.target not in files]
        if not items:
            logging.info("%s: all files are in the development set already", addition.name)
            continue
        files |= _convert(places, addition.name, items, nj)
    return files


def _convert(places: CorpusPaths, name: str, items: Sequence[additions.Item], nj: int) -> dict[str, str]:
    """Converts files. Returns the converted file by path in the development set, for those that the rules keep."""
    out = places.raw / "added"
    found = additions.summary(additions.convert(name, items, out, places.corpus.keep, nj))
    words = ", ".join(f"{status} {n}" for status, n in found["statuses"].items())
    logging.info(
        "%s: %d files, %d kept, %d left out (%s)", name, found["files"], found["kept"], found["removed"], words
    )
    status = additions.statuses(name, out)
    kept = [item.target for item in items if status[item.target].startswith(additions.SELECTED)]
    return {target: str(out / target) for target in kept}


def _curate(places: CorpusPaths, files: dict[str, str], rules: Curation, labels: LabelSet, nj: int) -> dict[str, str]:
    """Curates the training events among the files, and writes the table of counts."""
    external: dict[str, str] = {}
    for source in rules.external:
        name = f"external_{Path(source.manifest).stem}"
        items = external_items(source, labels.names, TRAIN.rstrip("/"))
        for target, file in _convert(places, name, items, nj).items():
            if external.setdefault(target.removeprefix(TRAIN), file) != file:
                raise InputError(source.manifest, f"{target} of two manifests", "file names that differ")
    train = {path.removeprefix(TRAIN): file for path, file in files.items() if path.startswith(TRAIN)}
    curated = curate(train, rules, external)
    table = counts_table(curated, labels.names, rules.min_duration)
    places.raw.mkdir(parents=True, exist_ok=True)
    write_text(places.raw / REPORT, table)
    logging.info("training events:\n%s", table)
    rest = {path: file for path, file in files.items() if not path.startswith(TRAIN)}
    return rest | {TRAIN + path: file for path, file in curated.files.items()}


def _write_content(corpus: Corpus, raw: Path, part: Path, files: Mapping[str, str]) -> None:
    """Writes a checksum over names and sizes of the development set's files, without ready-made mixtures.

    The times of the user's own files count too, because they may be edited without a change of size. The folders of the
    files, other parts and options of stage 1 do not count, so that changing them does not start a training again.
    """
    dev = raw / DEV
    mixtures = {Path(s.mixtures).parts[0] for s in corpus.sets.values() if s.part == DEV}
    digest, n = hashlib.sha256(), 0
    for top in sorted(name for name in os.listdir(dev) if name not in mixtures):
        for path in sorted(_walk(dev, top)) if (dev / top).is_dir() else [top]:
            found = (dev / path).stat() if (dev / path).is_file() else None
            line = f"{path}\t{found.st_size if found else None}"
            if found and not _is_below(Path(files.get(path, part / path)), raw):
                line += f"\t{int(found.st_mtime)}"
            digest.update(f"{line}\n".encode())
            n += 1
    write_text(raw / CONTENT, f"{n} files, {digest.hexdigest()}\n")


def _is_below(path: Path, folder: Path) -> bool:
    return os.path.abspath(path).startswith(f"{os.path.abspath(folder)}{os.sep}")


def _walk(folder: Path, top: str) -> Iterator[str]:
    """Paths of the files below ``folder/top`` relative to ``folder``, without hidden files and folders."""
    for parent, folders, names in os.walk(folder / top, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield os.path.relpath(os.path.join(parent, name), folder)


def _link_tree(dev: Path, files: Mapping[str, str], out: Path) -> None:
    """Makes a folder of links to ``files`` and to everything else in ``dev``. An error leaves the old folder."""
    with atomic_folder(out) as new:
        for name in sorted(os.listdir(dev)):
            if name not in MERGED and not name.startswith("."):
                _link(new / name, dev / name)
        for path, file in files.items():
            _link(new / path, Path(file))


def _link(link: Path, target: Path) -> None:
    """Makes or replaces a symbolic link, relative if both lie in the recipe folder. Other files are not replaced."""
    link.parent.mkdir(parents=True, exist_ok=True)
    here = Path.cwd()
    text = str(target.absolute())
    if target.absolute().is_relative_to(here):
        text = os.path.relpath(target.absolute(), link.parent.absolute())
    if link.exists() and not link.is_symlink():
        raise InputError(
            link, "a folder or file", "nothing, or a link (move it away and pass its new path as --data_root)"
        )
    if not link.is_symlink() or os.readlink(link) != text:
        make_link(link, text)


def _write_sets(corpus: Corpus, folders: Mapping[str, Path], labels: LabelSet, data: Path) -> None:
    for name, found in corpus.sets.items():
        if found.part not in folders:
            continue
        base = data / found.part
        sources = None if found.sources is None else base / found.sources
        rows = mixture_rows(base / found.mixtures, sources, labels, corpus.n_slots)
        write_data_dir(data / name, rows, corpus.n_slots)
        logging.info("%s: %d mixtures, %d sources", data / name, len(rows), sum(len(row.sources) for row in rows))
