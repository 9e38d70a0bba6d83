"""Computes accuracies of every tagger alone by DupSet, NoDupSet and in total, like Table 1 of Nguyen et al.

The labels are decided from one tagger's posteriors of stage 7, without the vote of its system.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s5.inference.results import Posteriors, Results
from s5.metrics.class_aware import repeats
from s5.metrics.labels import active, label_counts
from s5.report.results import Result
from s5.system.config import SystemConfig, system_name
from s5.utils.config import ROOT, load_yaml
from s5.utils.errors import InputError

SUBSETS = ("DupSet", "NoDupSet", "Total")


@dataclass(frozen=True)
class TaggerAccuracy:
    """Accuracies of one tagger on one data set in percent by subset; None for a subset without mixtures.

    Attributes:
        name: name of the tagger in its system.
        set: name of the data set.
        channels: number of input channels, if its configuration states it.
        source: TP / (TP + FP + FN) over all sources.
        mixture: share of mixtures with all labels right.
    """

    name: str
    set: str
    channels: int | None
    source: dict[str, float | None]
    mixture: dict[str, float | None]


def tagger_accuracies(results: Sequence[Result], expdir: str | Path) -> list[TaggerAccuracy]:
    """Accuracies of all taggers with posteriors beside the results; each counts once a data set, the newest first.

    Args:
        results: results, newest first.
        expdir: the experiment folder with the taggers' configurations.
    """
    found: dict[tuple[str, str], TaggerAccuracy] = {}
    for result in results:
        if result.oracle:
            continue
        references = {row["utt"]: row["ref_labels"] for row in result.scores["mixtures"]}
        try:
            folders = None
            known = {name for set_name, name in found if set_name == result.set}
            for name, labels in _decided(Results(result.path).posteriors, known):
                if folders is None:
                    folders = _folders(result.system, Path(expdir))
                channels = _channels(Path(expdir), folders.get(name, name))
                found[result.set, name] = _accuracy(name, result.set, channels, labels, references)
        except InputError as e:
            logging.warning("left out of the table of taggers: %s", e)
    return list(found.values())


def _decided(posteriors: Posteriors, known: Collection[str]) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Name and labels by utterance of each tagger in a folder ``posteriors``, except for known ones."""
    taggers = [name for name in posteriors.taggers() if name not in known]
    if not taggers:
        return
    from s5.fusion.voting import VoteConfig, decide

    names, n_slots = posteriors.labels(), posteriors.n_slots()
    for tagger in taggers:
        labels = {}
        for utt, posterior in posteriors.table(tagger).items():
            decision = decide([posterior], [1.0], VoteConfig(), len(names), n_slots)
            labels[utt] = [names.name(i) for i in decision.index]
        yield tagger, labels


def _accuracy(
    name: str, set_name: str, channels: int | None, labels: dict[str, list[str]], references: dict[str, list[str]]
) -> TaggerAccuracy:
    source: dict[str, float | None] = {}
    mixture: dict[str, float | None] = {}
    for subset in SUBSETS:
        pairs = [(labels[utt], ref) for utt, ref in references.items() if utt in labels and _within(ref, subset)]
        counts = [label_counts(*pair) for pair in pairs]
        total = sum(one.total for one in counts)
        source[subset] = 100 * sum(one.tp for one in counts) / total if total else None
        mixture[subset] = 100 * sum(one.correct for one in counts) / len(counts) if counts else None
    return TaggerAccuracy(name, set_name, channels, source, mixture)


def _within(ref_labels: Sequence[str], subset: str) -> bool:
    in_subset = subset == "Total" or repeats(ref_labels) == (subset == "DupSet")
    return in_subset and bool(active(ref_labels))  # Nguyen et al. have no mixture without a source


def _folders(system: str, expdir: Path) -> dict[str, str]:
    """Experiment folder by tagger from the system's YAML in the recipe or the repository; empty without a YAML."""
    names = (
        f"{path}{size}"
        for base in (expdir.absolute().parent, ROOT)
        for path in sorted(base.glob("conf/systems/**/*.yaml"))
        for size in ("", *(f":{path.stem}" for path in sorted(base.glob("conf/sizes/*.yaml"))))
    )
    try:
        config = next(SystemConfig.load(name) for name in names if system_name(name) == system)
    except (StopIteration, InputError):
        return {}
    return {model.name: model.folder() for model in config.taggers}


def _channels(expdir: Path, folder: str) -> int | None:
    """Number of a tagger's input channels, from the configuration of its last training."""
    for found in [*sorted(expdir.glob(f"{folder}_ft*"), reverse=True), expdir / folder]:
        if (found / "config.yaml").is_file():
            conf: Any = load_yaml(found / "config.yaml").get("network_conf") or {}
            encoder = conf.get("encoder") if isinstance(conf.get("encoder"), dict) else {}
            value = conf.get("n_channels", encoder.get("n_channels"))
            return value if isinstance(value, int) else None
    return None
