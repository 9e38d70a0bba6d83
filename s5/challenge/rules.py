"""Checks the zip file of any submission by the challenge's rules; each violation is one line that explains it."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s5.challenge.submission import AUDIO, EVAL_JSON, MOST, TEST_JSON
from s5.data import DataDir, audio_info, open_audio
from s5.data.names import FORM, FORM_2025, audio_files, parse
from s5.labels import SILENCE, LabelSet
from s5.metrics.labels import label_counts
from s5.utils.errors import InputError
from s5.utils.zips import ZipReader

if TYPE_CHECKING:
    from zipfile import ZipInfo

LARGEST = 100_000_000
"""Bytes above which a file is refused unread. Files of real submissions are far smaller."""

TEXT, NUMBER, WHOLE, TRUTH, LIST, MAPPING = "text", "a number", "a whole number", "true or false", "a list", "a mapping"
COUNT = "the number of parameters"
"""Kinds of values in a JSON document, as error messages name them."""

ACCURACIES = ("accuracy_mix", "accuracy_src")
"""Keys under ``label_metrics``."""


@dataclass
class Rules:
    """Facts that a submission is checked against.

    Attributes:
        soundscapes: samples of each soundscape of the evaluation set; None if only its name is known.
        tests: names of the soundscapes of the development set's test part; None accepts any name.
        year: 2026, or 2025: no slot in file names, distinct labels, a source in every soundscape, no JSON files.
        labels: the label set.
        n_slots: K, sources of a soundscape at most.
        fs: sampling rate in Hz.
        duration: length in seconds of soundscapes of which only the name is known.
    """

    soundscapes: Mapping[str, int | None]
    tests: Collection[str] | None = None
    year: int = 2026
    labels: LabelSet = field(default_factory=LabelSet)
    n_slots: int = 3
    fs: int = 32000
    duration: float = 10.0

    def samples(self, soundscape: str) -> int:
        """Number of samples that an estimate of a soundscape must have."""
        return self.soundscapes[soundscape] or round(self.duration * self.fs)


def evaluation_names() -> dict[str, int | None]:
    """Names of the soundscapes of 2026's evaluation set: eval_0000 to eval_2566."""
    return {f"eval_{i:04d}": None for i in range(2567)}


def soundscapes(path: str | Path) -> dict[str, int | None]:
    """Number of samples of each soundscape in a folder of wav files or a data directory. Raises InputError."""
    path = Path(path)
    if (path / "wav.scp").is_file():
        data = DataDir.load(path)
        files = {utt: data.mixture_path(utt) for utt in data.utts}
    else:
        files = audio_files(path)
    if not files:
        raise InputError(path, "neither wav.scp nor wav files", "a folder of soundscapes, or a data directory")
    return {utt: audio_info(file)[1] for utt, file in files.items()}


def check_submission(path: str | Path, rules: Rules) -> list[str]:
    """Applies the rules to a zip file.

    Returns:
        A line for each violation, as ``<where>: found ..., expected ...``; an empty list for a valid submission.

    Raises:
        InputError: the file is no zip file, or is damaged.
    """
    path = Path(path)
    with ZipReader(path, "a submission's zip file") as archive:
        return list(_violations(path, archive, rules))


def _line(where: object, found: object, expected: object) -> str:
    """One violation as text that can be printed, whatever characters the file names contain."""
    return str(InputError(where, found, expected)).encode("utf-8", "backslashreplace").decode()


def _shown(value: Any) -> str:
    """The first 40 characters of a value in JSON."""
    return json.dumps(value)[:40]


def _violations(path: Path, archive: ZipReader, rules: Rules) -> Iterator[str]:
    name = re.fullmatch(r"[A-Za-z0-9-]+_[A-Za-z0-9-]+_task4_([0-9]+)(_out)?\.zip", path.name)
    if name is None:
        yield _line(path.name, "another name", "<Author>_<Affiliation>_task4_<n>_out.zip")
    elif not 1 <= int(name[1]) <= MOST:
        yield _line(path.name, f"submission number {name[1]}", f"1 to {MOST}")
    files = [info for info in archive.infos if not info.filename.endswith("/")]
    top = {info.filename.partition("/")[0] for info in files if "/" in info.filename}
    folder = path.stem if path.stem in top else path.stem.removesuffix("_out")
    if folder not in top:
        yield _line(path.name, f"{', '.join(sorted(top)) or 'no folder'} in it", f"the folder {path.stem}")
        folder = min(top, default="")
    names = [EVAL_JSON, TEST_JSON] if rules.year >= 2026 else []
    audio: dict[str, ZipInfo] = {}
    documents: dict[str, ZipInfo] = {}
    for info in files:
        parent, _, file = info.filename.rpartition("/")
        if parent == f"{folder}/{AUDIO}" and file.endswith(".wav"):
            place = audio
        elif parent == folder and file in names:
            place = documents
        else:
            expected = f"{folder}/{AUDIO}/*.wav" + "".join(f", {folder}/{name}" for name in names)
            yield _line(info.filename, "a file that does not belong there", expected)
            continue
        if file in place:
            yield _line(info.filename, "the same file twice", "each file once")
        place[file] = info
    sources: dict[str, list[str]] = {utt: [] for utt in rules.soundscapes}
    slots: set[tuple[str, int | None]] = set()
    for file, info in sorted(audio.items()):
        yield from _audio(archive, info, file, rules, sources, slots)
    yield from _counts(sources, rules)
    for file in names:
        if file not in documents:
            yield _line(f"{folder}/{file}", "no such file", "this file")
            continue
        content, wrong = _json(archive, documents[file])
        if wrong:
            yield _line(f"{folder}/{file}", wrong, "JSON")
        elif file == EVAL_JSON:
            yield from _eval_results(content, audio, rules)
        else:
            yield from _test_results(content, rules)


def _audio(
    archive: ZipReader,
    info: ZipInfo,
    name: str,
    rules: Rules,
    sources: dict[str, list[str]],
    slots: set[tuple[str, int | None]],
) -> Iterator[str]:
    """Checks one wav file. Adds its label to ``sources`` and its slot to ``slots``."""
    form = (FORM if rules.year >= 2026 else FORM_2025).replace("<utt>", "<soundscape>")
    try:
        found = parse(name.removesuffix(".wav"), sources, name)
    except InputError as e:
        yield str(e)
        return
    if found is None:
        yield _line(name, "a name of no soundscape of the evaluation set", form)
        return
    utt, slot, label = found.utt, found.slot, found.label
    if (slot is None) == (rules.year >= 2026):
        yield _line(name, f"a name with{'out' if slot is None else ''} slot", form)
        return
    sources[utt].append(label)
    if label == SILENCE:
        yield _line(name, "label silence", "no file for a silent slot")
    elif label not in rules.labels:
        yield _line(name, f"label {label}", f"one of {' '.join(rules.labels.names)}")
    if slot is not None and slot >= rules.n_slots:
        yield _line(name, f"slot {slot}", f"0 to {rules.n_slots - 1}")
    if slot is not None and (utt, slot) in slots:
        yield _line(name, f"a second file for slot {slot} of {utt}", "one file a slot")
    slots.add((utt, slot))
    if info.file_size > LARGEST:
        yield _line(name, f"{info.file_size} bytes", f"at most {LARGEST}")
        return
    content = archive.read(info)
    try:
        sound = open_audio(name, content)
    except InputError as e:
        yield str(e)
        return
    with sound:
        form = f"{sound.format} {sound.subtype}"
        if form not in ("WAV PCM_16", "WAVEX PCM_16"):
            yield _line(name, form, "wav of 16 bit")
        if sound.samplerate != rules.fs:
            yield _line(name, f"{sound.samplerate} Hz", f"{rules.fs} Hz")
        if sound.channels != 1:
            yield _line(name, f"{sound.channels} channels", "one channel")
        if sound.samplerate == rules.fs and sound.frames != rules.samples(utt):
            yield _line(name, f"{sound.frames} samples", f"{rules.samples(utt)}, as its soundscape has")


def _counts(sources: Mapping[str, Sequence[str]], rules: Rules) -> Iterator[str]:
    """Checks how many sources each soundscape has."""
    for utt, labels in sources.items():
        if len(labels) > rules.n_slots:
            yield _line(utt, f"{len(labels)} files", f"at most {rules.n_slots}")
        if rules.year < 2026 and not labels:
            yield _line(utt, "no file", f"1 to {rules.n_slots}")


def _json(archive: ZipReader, info: ZipInfo) -> tuple[Any, str | None]:
    """The content of a JSON file, and what is wrong with it.

    NaN and Infinity are wrong: Python writes them, but JSON does not have them.
    """

    def no_number(name: str) -> None:
        raise ValueError(f"{name} for a number")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for key, n in Counter(key for key, _ in pairs).items():
            if n > 1:
                raise ValueError(f"key {key} {n} times")
        return dict(pairs)

    if info.file_size > LARGEST:
        return None, f"{info.file_size} bytes"
    try:
        content = archive.read(info)
        return json.loads(content, parse_constant=no_number, object_pairs_hook=once), None
    except RecursionError:
        return None, "no JSON (nested too deeply)"
    except ValueError as e:
        return None, f"no JSON ({e})"


def _is(kind: str, value: Any) -> bool:
    """Whether a value is of a kind. Numbers must be finite.

    Example:
        >>> _is(NUMBER, 3), _is(NUMBER, True), _is(WHOLE, 3.0), _is(NUMBER, 10**400)
        (True, False, False, False)
    """
    types: dict[str, Any] = {TEXT: str, TRUTH: bool, LIST: list, MAPPING: dict, NUMBER: int | float}
    if not isinstance(value, types.get(kind, int)):
        return False
    if kind not in (NUMBER, WHOLE, COUNT):
        return True
    try:
        return not isinstance(value, bool) and math.isfinite(value) and (kind != COUNT or value >= 0)
    except OverflowError:  # a whole number that no float holds
        return False


def _fits(where: str, data: Any, kinds: Mapping[str, Any]) -> Generator[str, None, bool]:
    """Yields a line for each key of a mapping that is missing or of another kind; returns whether there is none.

    Args:
        where: the mapping's place in its document.
        data: the mapping.
        kinds: kind of each key's value, or the kinds of the keys in it.
    """
    if not isinstance(data, dict):
        yield _line(where, _shown(data), f"a mapping with {', '.join(kinds)}")
        return False
    good = True
    for key, kind in kinds.items():
        if key in data and isinstance(kind, Mapping):
            good &= yield from _fits(f"{where}: {key}", data[key], kind)
        elif key not in data:
            good = False
            yield _line(where, f"no key {key}", "this key")
        elif not _is(kind, data[key]):
            good = False
            yield _line(f"{where}: key {key}", _shown(data[key]), kind)
    return good


def _eval_results(data: Any, audio: Mapping[str, Any], rules: Rules) -> Iterator[str]:
    """Checks eval_results.json: every soundscape once, and every file once with its label and probability."""
    where = EVAL_JSON
    if not (yield from _fits(where, data, {"nparams": COUNT, "probabilities": LIST, "config": MAPPING})):
        return
    seen: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for i, entry in enumerate(data["probabilities"]):
        place = f"{where}: probabilities.{i}"
        if not (yield from _fits(place, entry, {"soundscape": TEXT, "estimate": LIST})):
            continue
        utt = entry["soundscape"]
        seen[utt] += 1
        if utt not in rules.soundscapes:
            yield _line(place, f"soundscape {utt}", "one of the evaluation set")
        for j, estimate in enumerate(entry["estimate"]):
            kinds = {"filename": TEXT, "label": TEXT, "probability": NUMBER}
            if not (yield from _fits(f"{where}: {utt}: estimate.{j}", estimate, kinds)):
                continue
            name, label, probability = (estimate[key] for key in kinds)
            files[name] += 1
            if not name.startswith(f"{utt}_"):
                yield _line(f"{where}: {utt}", f"file {name}", "a file of this soundscape")
            if not name.endswith(f"_{label}.wav"):
                yield _line(f"{where}: {name}", f"label {label}", "that of the file's name")
            if not 0 <= probability <= 1:
                yield _line(f"{where}: {name}", f"probability {probability}", "0 to 1")
    for utt in rules.soundscapes:
        if seen[utt] != 1:
            found = "no such soundscape" if not seen[utt] else f"{seen[utt]} entries"
            yield _line(f"{where}: {utt}", found, "one entry, with an empty estimate if there is no source")
    for name in sorted({*files, *audio}):
        if files[name] > 1:
            yield _line(f"{where}: {name}", f"{files[name]} entries", "one entry")
        elif name not in audio:
            yield _line(f"{where}: {name}", "no such file in the zip", "each listed file")
        elif not files[name]:
            yield _line(f"{where}: {name}", "no entry", "an entry for each file in the zip")


def _slots(where: str, entry: Mapping[str, Any], rules: Rules) -> Iterator[str]:
    """Checks that a soundscape has K labels of each side and K probabilities, all of them valid."""
    for key in ("ref_labels", "est_labels", "probabilities"):
        if len(entry[key]) != rules.n_slots:
            yield _line(f"{where}: {key}", f"{len(entry[key])} values", f"{rules.n_slots}, padded with silence")
    for key in ("ref_labels", "est_labels"):
        for label in entry[key]:
            if label != SILENCE and label not in rules.labels.names:
                found = label if isinstance(label, str) else _shown(label)
                yield _line(f"{where}: {key}", f"label {found}", "a label of the label set, or silence")
    for value in entry["probabilities"]:
        if not _is(NUMBER, value) or not 0 <= value <= 1:
            yield _line(f"{where}: probabilities", _shown(value), "numbers from 0 to 1")


def _details(where: str, entry: Mapping[str, Any], rules: Rules) -> Iterator[str]:
    """Checks a soundscape's labels and metrics. Its counts must follow from its labels."""
    yield from _slots(where, entry, rules)
    figures = {}
    for i, metric in enumerate(entry["metrics"]):
        if not (yield from _fits(f"{where}: metrics.{i}", metric, {"metric": TEXT})):
            return
        if "value" not in metric:
            yield _line(f"{where}: metrics.{i}", "no key value", "this key")
        figures[metric["metric"]] = metric.get("value")
    if len(entry["metrics"]) != 2 or set(figures) != {"CAPI-SDRi", "label_metrics"}:
        names = [metric["metric"] for metric in entry["metrics"]]
        yield _line(f"{where}: metrics", ", ".join(names) or "none", "CAPI-SDRi and label_metrics, once each")
        return
    if figures["CAPI-SDRi"] is not None and not _is(NUMBER, figures["CAPI-SDRi"]):
        yield _line(f"{where}: CAPI-SDRi", _shown(figures["CAPI-SDRi"]), "a number or null")
    stated, place = figures["label_metrics"], f"{where}: label_metrics"
    sound = yield from _fits(place, stated, {"acc": TRUTH, "tp": WHOLE, "fp": WHOLE, "fn": WHOLE})
    if not sound or not all(isinstance(label, str) for label in (*entry["est_labels"], *entry["ref_labels"])):
        return
    counts = label_counts(entry["est_labels"], entry["ref_labels"])
    for key, value in {"acc": counts.correct, "tp": counts.tp, "fp": counts.fp, "fn": counts.fn}.items():
        if stated[key] != value:
            yield _line(f"{place}: {key}", _shown(stated[key]), f"{_shown(value)}, by the labels")


def _test_results(data: Any, rules: Rules) -> Iterator[str]:
    """Checks dev_set_test_results.json: every soundscape once, and figures that are the means of the details."""
    where = TEST_JSON
    kinds: dict[str, Any] = {"nparams": COUNT, "details": LIST, "config": MAPPING}
    kinds |= {"CAPI-SDRi": {"mean": NUMBER}, "label_metrics": dict.fromkeys(ACCURACIES, NUMBER)}
    if not (yield from _fits(where, data, kinds)):
        return
    sound: list[Mapping[str, Any]] = []
    seen: Counter[str] = Counter()
    kinds = {"soundscape": TEXT, "ref_labels": LIST, "est_labels": LIST, "probabilities": LIST, "metrics": LIST}
    for i, entry in enumerate(data["details"]):
        place = f"{where}: details.{i}"
        if not (yield from _fits(place, entry, kinds)):
            continue
        utt = entry["soundscape"]
        seen[utt] += 1
        if not re.fullmatch(r"\S+", utt) or (rules.tests is not None and utt not in rules.tests):
            yield _line(place, f"soundscape {utt}", "one of the development set's test part")
        bad = list(_details(f"{where}: {utt}", entry, rules))
        yield from bad
        if not bad:
            sound.append(entry)
    for utt in sorted(seen):
        if seen[utt] > 1:
            yield _line(f"{where}: {utt}", f"{seen[utt]} entries", "one entry")
    for utt in sorted(set(rules.tests or ()) - set(seen)):
        yield _line(f"{where}: {utt}", "no entry", "one for each soundscape of the test part")
    if len(sound) == len(data["details"]):
        yield from _means(where, data, sound)


def _means(where: str, data: Mapping[str, Any], details: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Checks that the figures are the means of the details, which must be valid."""
    figures = [m["value"] for entry in details for m in entry["metrics"] if m["metric"] == "CAPI-SDRi"]
    values = [float(value) for value in figures if value is not None]
    counts = [label_counts(entry["est_labels"], entry["ref_labels"]) for entry in details]
    total = sum(c.total for c in counts)
    stated = {"CAPI-SDRi.mean": data["CAPI-SDRi"]["mean"], **{key: data["label_metrics"][key] for key in ACCURACIES}}
    actual = {
        "CAPI-SDRi.mean": (sum(values) / len(values) if values else None, 1e-3),
        "accuracy_mix": (100 * sum(c.correct for c in counts) / len(counts) if counts else None, 1e-2),
        "accuracy_src": (100 * sum(c.tp for c in counts) / total if total else None, 1e-2),
    }
    for key, (computed, tolerance) in actual.items():
        if computed is not None and not math.isclose(stated[key], computed, rel_tol=0, abs_tol=tolerance):
            yield _line(f"{where}: {key}", f"{stated[key]:g}", f"{computed:g}, the mean of the details")
