"""Runs stage 12: writes RESULTS.md, figures and listening pages of an experiment folder."""

from __future__ import annotations

import logging
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from s5.data import DataDir, audio_info
from s5.report import environment
from s5.report.all_plots import KINDS, draw_all, figure_folder
from s5.report.markdown import DataSet, results_markdown
from s5.report.page import write_page
from s5.report.results import by_set, find_bounds, find_results, of_system
from s5.report.taggers import tagger_accuracies
from s5.report.training import find_trainings
from s5.system.archive import describe
from s5.system.config import system_name
from s5.system.sizes import split_size
from s5.utils.config import resolve
from s5.utils.errors import InputError
from s5.utils.files import write_text
from s5.utils.parallel import in_processes

_APART = ("learning", "features")
"""Kinds of figures that another process draws meanwhile, as they take longest; ``features`` also imports torch."""


def write_report(
    system: str | Path,
    expdir: str | Path = "exp",
    out: str | Path = "exp/RESULTS.md",
    data_root: str | Path = "data",
    n_mixtures: int = 12,
    figures: bool = True,
    compare: str | None = None,
) -> None:
    """Writes a listening page for every data set of the system, its figures, then RESULTS.md with all systems.

    Args:
        system: the system's YAML; its results are in ``<expdir>/<system_name>``.
        expdir: the experiment folder.
        out: the Markdown file, which is written last.
        data_root: folder of the data directories.
        n_mixtures: largest number of mixtures on a page.
        figures: draw figures into ``<expdir>/<system_name>/report/figures``.
        compare: name of another system in the experiment folder, for comparison on each page.

    Raises:
        InputError: the system has no scores, or scores, estimates and data do not fit together.
    """
    if not resolve(split_size(system)[0]).is_file():
        raise InputError(system, "no such file", "the YAML of a system")
    if n_mixtures < 1:
        raise InputError("--n_mixtures", n_mixtures, "at least 1")
    name, expdir, out = system_name(system), Path(expdir), Path(out)
    results = find_results(expdir)
    own = of_system(results, name, expdir)
    other = {} if compare is None else of_system(results, compare, expdir)
    if compare == name:
        raise InputError("--compare", compare, "another system")
    bounds = {set_name: find_bounds(expdir, set_name) for set_name in by_set(results)}
    pages, sizes = {}, []
    drawn: dict[str, dict[str, str]] = {}
    draw = partial(draw_all, name, results, expdir, data_root, None)
    with ThreadPoolExecutor(1) as pool:  # the thread waits for the process
        apart = pool.submit(list, in_processes(draw, [_APART], 1, "figures")) if figures else None
        for set_name in by_set(results):
            folder = Path(data_root) / set_name
            if set_name not in own and not folder.is_dir():
                continue  # another system's data set, which was removed; its scores are still reported
            data = DataDir.load(folder)
            sizes.append(_size(set_name, data))
            if set_name in own:
                start = time.perf_counter()
                page = own[set_name][0].path / "report"
                heard = sorted(own[set_name] + other.get(set_name, []), key=lambda result: result.oracle)
                shown = write_page(page, data, heard, n_mixtures, bounds[set_name])
                pages[set_name] = portable(page / "index.html", expdir.parent)
                logging.info("%s: %d mixtures, %.1f s", page / "index.html", shown, time.perf_counter() - start)
        taggers = tagger_accuracies(results, expdir)
        if apart is not None:
            here = [kind for kind in KINDS if kind not in _APART]
            parts = draw_all(name, results, expdir, data_root, kinds=here, taggers=taggers), *apart.result()
            for set_name, paths in (item for part in parts for item in part.items()):
                readable = {title: portable(path, out.parent) for title, path in paths.items()}
                drawn.setdefault(set_name, {}).update(readable)
            logging.info("%s: %d figures", figure_folder(expdir, name), sum(map(len, drawn.values())))
    text = results_markdown(
        system=name,
        results=results,
        data=sizes,
        trainings=find_trainings(expdir),
        environment=environment.describe(ignore=[out]),
        command=command_line(system, expdir, out, data_root, n_mixtures, compare),
        date=datetime.now(UTC),
        pages=pages,
        taggers=taggers,
        figures=drawn,
        recipe=expdir.resolve().parent.name,
        archives={path.name: describe(path) for path in sorted(expdir.absolute().parent.glob("*.s5"))},
        bounds=bounds,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    logging.info("%s: %d results", out, len(results))


def command_line(
    system: str | Path, expdir: Path, out: Path, data_root: str | Path, n_mixtures: int, compare: str | None = None
) -> str:
    """The command that makes the report, for RESULTS.md, without absolute paths."""
    options = {"system": system, "expdir": expdir, "out": out, "data_root": data_root}
    words = [f"--{key} {shlex.quote(portable(path))}" for key, path in options.items()]
    words += [f"--n_mixtures {n_mixtures}", *([f"--compare {shlex.quote(compare)}"] if compare else [])]
    return " ".join(["python -m s5.bin.report", *words])


def portable(path: str | Path, base: str | Path = ".") -> str:
    """A path without the machine's folders: relative to ``base`` if possible; of other absolute paths the name.

    Example:
        >>> portable("exp/mini"), portable("/somewhere/exp"), portable("/a/exp/mini", "/a")
        ('exp/mini', 'exp', 'exp/mini')
    """
    path, absolute, root = Path(path), Path(path).absolute(), Path(base).absolute()
    if absolute.is_relative_to(root):
        return absolute.relative_to(root).as_posix()
    return path.name if path.is_absolute() else path.as_posix()


def _size(name: str, data: DataDir) -> DataSet:
    """Size of a data set from its mixtures' headers; channels and sampling rate are those of the first mixture."""
    infos = [audio_info(data.mixture_path(utt)) for utt in data.utts]
    channels, _, fs = infos[0]
    lengths = tuple(samples / rate for _, samples, rate in infos)
    used = [label for utt in data.utts for label in data.labels.get(utt, ())]
    return DataSet(name, lengths, channels, fs, len(used), len(set(used)))
