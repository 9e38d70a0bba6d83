"""Writes the challenge's submission (stage 13): a zip of estimates and results, a meta file and a list of addresses.

<Author>_<Affiliation>_task4_<n>_out.zip      holds a folder of that name with
    eval_out/<soundscape>_<slot>_<Label>.wav      16 bit, without silent slots
    eval_results.json                             number of parameters; labels and probabilities of every soundscape
    dev_set_test_results.json                     scores and labels of the development set's test part
<Author>_<Affiliation>_task4_<n>.meta.yaml
<Author>_<Affiliation>_task4.audio_url.txt
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from s5.data import DataDir
from s5.inference.results import Results, read_scores
from s5.labels import SILENCE, LabelSet
from s5.system.config import SystemConfig, system_name
from s5.utils.config import load_yaml, parse
from s5.utils.errors import InputError
from s5.utils.files import atomic_write, write_text

AUDIO, EVAL_JSON, TEST_JSON = "eval_out", "eval_results.json", "dev_set_test_results.json"
MOST = 4
"""Number of systems that a team may submit; they are numbered from 1."""


@dataclass
class Affiliation:
    """An author's place of work."""

    abbreviation: str
    institute: str
    location: str
    """City and country."""
    department: str = ""


@dataclass
class Author:
    """An author of the submission."""

    lastname: str
    firstname: str
    email: str
    affiliation: Affiliation
    corresponding: bool = False


@dataclass
class Submission:
    """Name, authors and address of the submission; conf/submission.yaml shows all keys."""

    number: int
    """Number of the system, 1 to 4."""
    name: str
    abbreviation: str
    """Short name for tables, at most 10 characters."""
    authors: list[Author]
    audio_url: str
    """Address from which the organisers download the zip."""


@dataclass
class Details:
    """Content of the authors' YAML file."""

    submission: Submission
    system: dict[str, Any] = field(default_factory=dict)
    """Answers to the organisers' form about the system; they are copied into the meta file."""

    @classmethod
    def load(cls, path: str | Path) -> Details:
        """Reads and checks the file. Raises InputError naming all missing fields, or the first wrong one."""
        data = load_yaml(path)
        absent = missing_fields(cls, data)
        if absent:
            raise InputError(path, f"nothing under {', '.join(absent)}", "a value")
        details: Details = parse(cls, data, path)
        about = details.submission
        n_corresponding = sum(author.corresponding for author in about.authors)
        rules = [
            ("authors", n_corresponding == 1, f"{n_corresponding} corresponding authors", "one"),
            ("number", 1 <= about.number <= MOST, about.number, f"1 to {MOST}"),
            ("abbreviation", len(about.abbreviation) <= 10, repr(about.abbreviation), "at most 10 characters"),
            (
                "audio_url",
                re.match(r"https?://\S+$", about.audio_url),
                repr(about.audio_url),
                "an address, https://...",
            ),
        ]
        for a in about.authors:
            rules.append(("authors: email", re.fullmatch(r"[^@\s]+@[^@\s]+", a.email), repr(a.email), "name@host"))
        for key, good, found, expected in rules:
            if not good:
                raise InputError(f"{path}: key submission.{key}", found, expected)
        if not re.fullmatch(r"[A-Za-z0-9-]+_[A-Za-z0-9-]+", details.team):
            raise InputError(f"{path}: last name, abbreviated affiliation", details.team, "letters and digits in both")
        return details

    @property
    def team(self) -> str:
        """``<Author>_<Affiliation>`` of the corresponding author, without spaces and accents."""
        author = next(author for author in self.submission.authors if author.corresponding)
        return f"{_plain(author.lastname)}_{_plain(author.affiliation.abbreviation)}"

    @property
    def label(self) -> str:
        """``<Author>_<Affiliation>_task4_<n>``."""
        return f"{self.team}_task4_{self.submission.number}"


def missing_fields(schema: Any, data: Any, prefix: str = "") -> list[str]:
    """Required fields of a dataclass that have no value in ``data``, at any depth.

    Example:
        >>> missing_fields(Author, {"lastname": "A", "email": None, "affiliation": {"institute": "B", "location": "C"}})
        ['firstname', 'email', 'affiliation.abbreviation']
    """
    if not isinstance(data, Mapping):
        return []
    absent = []
    hints = typing.get_type_hints(schema)
    for item in dataclasses.fields(schema):
        key, value = f"{prefix}{item.name}", data.get(item.name)
        needed = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if value in (None, "", []):
            absent += [key] if needed else []
            continue
        hint = hints[item.name]
        inner = next((h for h in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(h)), None)
        if inner is not None:
            parts = enumerate(value) if isinstance(value, list) else [(None, value)]
            for i, part in parts:
                absent += missing_fields(inner, part, f"{key}." if i is None else f"{key}.{i}.")
    return absent


def make_submission(
    details: Details,
    system: str | Path,
    eval_data: str | Path,
    eval_results: str | Path,
    scores: str | Path,
    n_parameters: int,
    out: str | Path,
    labels: LabelSet,
    n_slots: int = 3,
) -> Path:
    """Writes the zip, the meta file and the list of addresses.

    Args:
        details: content of the authors' YAML file.
        system: the system's YAML.
        eval_data: data directory of the evaluation set.
        eval_results: results folder of stages 7 to 10 for it.
        scores: scores.json of the development set's test part (stage 11).
        n_parameters: number of parameters of all networks together.
        out: folder for the three files.
        labels: the label set.
        n_slots: K, the number of slots.

    Returns:
        Path of the zip.

    Raises:
        InputError: a file is missing, or results, scores and data do not fit together.
    """
    config = {"system": system_name(system), **dataclasses.asdict(SystemConfig.load(system))}
    listed, audio = _evaluation(DataDir.load(eval_data).utts, Results(eval_results))
    evaluation = {"nparams": n_parameters, "probabilities": listed, "config": config}
    test, figures = _test_results(Path(scores), n_parameters, config, labels, n_slots)
    path = Path(out, f"{details.label}_out.zip")
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_zip(path, audio, {EVAL_JSON: evaluation, TEST_JSON: test})
    about = dataclasses.asdict(details.submission)
    meta = {
        "submission": {"label": details.label, **{key: about[key] for key in ("name", "abbreviation", "authors")}},
        "system": {**details.system, "complexity": {"total_parameters": n_parameters}},
        "results": {"development_test": figures},
    }
    text = yaml.safe_dump(meta, sort_keys=False, allow_unicode=True)
    write_text(path.with_name(f"{details.label}.meta.yaml"), text)
    _add_address(path.with_name(f"{details.team}_task4.audio_url.txt"), path.name, details.submission.audio_url)
    return path


def count_parameters(system: str | Path, expdir: str | Path) -> int:
    """Number of parameters of all networks of a system together; each experiment counts once."""
    from s5.system.model import load_model

    config = SystemConfig.load(system)
    models = {(model.folder(), model.checkpoint): kind for kind, model in config.all_models()}
    networks = [load_model(Path(expdir) / folder, file, kind).network for (folder, file), kind in models.items()]
    return sum(p.numel() for network in networks for p in network.parameters())


def _plain(name: str) -> str:
    """A name without accents, spaces and signs other than hyphens, for file names."""
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9-]", "", letters)


def _evaluation(utts: Sequence[str], results: Results) -> tuple[list[dict[str, Any]], list[Path]]:
    """The list ``probabilities`` of eval_results.json, and the audio files of the estimates."""
    listed, audio = [], []
    for utt, final in results.final(utts).items():
        estimate = []
        for slot, (label, probability) in enumerate(zip(final.labels, final.probabilities, strict=True)):
            path = results.estimates.path(utt, slot, label)
            if not path.is_file():
                raise InputError(path, "no such file", f"an estimate for each label in {results.final_labels_file}")
            audio.append(path)
            estimate.append({"filename": path.name, "label": label, "probability": probability})
        listed.append({"soundscape": utt, "estimate": estimate})
    return listed, audio


def _test_results(
    file: Path, n_parameters: int, config: Mapping[str, Any], labels: LabelSet, n_slots: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Content of dev_set_test_results.json, and its totals for the meta file."""
    try:
        scores = read_scores(file)
        rows, metrics, oracle = scores["mixtures"], scores["metrics"], scores["oracle_labels"]
    except (KeyError, TypeError) as e:
        raise InputError(file, f"no scores ({e})", "a file that stage 11 wrote") from None
    if oracle:
        raise InputError(file, "scores with the true labels", "scores with the system's own labels")
    details = []
    for row in rows:
        counts = {key: row[key] for key in ("tp", "fp", "fn")}
        detail = {
            "soundscape": row["utt"],
            "ref_labels": _padded(row["ref_labels"], n_slots, SILENCE),
            "est_labels": _padded(row["est_labels"], n_slots, SILENCE),
            "probabilities": _padded(row.get("probabilities") or [], n_slots, 0.0),
            "metrics": [
                {"metric": "CAPI-SDRi", "value": row["CAPI-SDRi"]},
                {"metric": "label_metrics", "value": {"acc": counts["fp"] + counts["fn"] == 0, **counts}},
            ],
        }
        labels.indices(detail["est_labels"], n_slots, f"{file}: {row['utt']}")
        details.append(detail)
    accuracies = {key: metrics[key] for key in ("accuracy_mix", "accuracy_src")}
    content = {
        "CAPI-SDRi": {"mean": metrics["CAPI-SDRi"]},
        "label_metrics": accuracies,
        "nparams": n_parameters,
        "details": details,
        "config": config,
    }
    return content, {"CAPI-SDRi": metrics["CAPI-SDRi"], **accuracies}


def _padded(values: Sequence[Any], n_slots: int, filling: Any) -> list[Any]:
    return [*values, *[filling] * (n_slots - len(values))]


def _write_zip(path: Path, audio: Sequence[Path], documents: Mapping[str, Any]) -> None:
    """Writes the zip, one file at a time."""
    folder = path.stem
    with atomic_write(path) as target, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as z:
        for name, content in documents.items():
            z.writestr(_entry(f"{folder}/{name}"), json.dumps(content, indent=1, allow_nan=False))
        z.writestr(_entry(f"{folder}/{AUDIO}/"), "")
        for file in audio:
            z.writestr(_entry(f"{folder}/{AUDIO}/{file.name}"), file.read_bytes())


def _entry(name: str) -> zipfile.ZipInfo:
    """A zip entry with a fixed date, so that the same estimates make the same zip."""
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = (0o40755 << 16) | 0x10 if name.endswith("/") else 0o100644 << 16
    return info


def _add_address(file: Path, name: str, url: str) -> None:
    """Adds or replaces a submission's line ``<zip> <address>``; lines of the team's other submissions are kept."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    kept = [line for line in lines if line.split()[:1] != [name]]
    write_text(file, "".join(f"{line}\n" for line in sorted([*kept, f"{name} {url}"])))
