"""The challenge's rules for a submission's zip, applied to any such file; each violation is a line that explains it."""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from s5.data import DataDir, audio_info, open_audio
from s5.errors import DAMAGED_ZIP, InputError
from s5.inference.names import FORM, FORM_2025, audio_files, parse
from s5.labels import SILENCE, LabelSet
from s5.submission import AUDIO, EVAL_JSON, MOST, TEST_JSON

LARGEST = 100_000_000
"""Bytes: no wav of a submission comes near it."""


@dataclass
class Rules:
    """What a submission has to be.

    Attributes:
        soundscapes: samples of each soundscape of the evaluation set; None where only their names are known.
        tests: names of the soundscapes of the development set's test part; None: any.
        year: 2026, or 2025: no slot in file names, distinct labels, a source in every soundscape, no JSON files.
        labels: the label set.
        n_slots: K.
        fs: sampling rate, Hz.
        duration: seconds, where the soundscapes' own lengths are not known.
    """

    soundscapes: Mapping[str, int | None]
    tests: Collection[str] | None = None
    year: int = 2026
    labels: LabelSet = field(default_factory=LabelSet)
    n_slots: int = 3
    fs: int = 32000
    duration: float = 10.0

    def samples(self, soundscape: str) -> int:
        """Length of an estimate."""
        return self.soundscapes[soundscape] or round(self.duration * self.fs)


def evaluation_names() -> dict[str, int | None]:
    """Names of the soundscapes of 2026's evaluation set: eval_0000 to eval_2566."""
    return {f"eval_{i:04d}": None for i in range(2567)}


def soundscapes(path: str | Path) -> dict[str, int | None]:
    """Samples of each soundscape in a folder of wav files or a data directory. Raises InputError for another folder."""
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
        A line for each violation, as ``<where>: found ..., expected ...``; none for a sound submission.

    Raises:
        InputError: no zip file.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return list(_violations(path, archive, rules))
    except FileNotFoundError:
        raise InputError(path, "no such file", "a submission") from None
    except DAMAGED_ZIP as e:
        raise InputError(path, f"a damaged file ({e})", "a zip file") from None


def _line(where: object, found: object, expected: object) -> str:
    return str(InputError(where, found, expected))


def _violations(path: Path, archive: zipfile.ZipFile, rules: Rules) -> Iterator[str]:
    name = re.fullmatch(r"[A-Za-z0-9-]+_[A-Za-z0-9-]+_task4_([0-9]+)(_out)?\.zip", path.name)
    if name is None:
        yield _line(path.name, "another name", "<Author>_<Affiliation>_task4_<n>_out.zip")
    elif not 1 <= int(name[1]) <= MOST:
        yield _line(path.name, f"submission number {name[1]}", f"1 to {MOST}")
    files = [info for info in archive.infolist() if not info.is_dir()]
    top = {info.filename.partition("/")[0] for info in files if "/" in info.filename}
    folder = path.stem if path.stem in top else path.stem.removesuffix("_out")
    if folder not in top:
        yield _line(path.name, f"{', '.join(sorted(top)) or 'no folder'} in it", f"the folder {path.stem}")
        folder = min(top, default="")
    documents = [EVAL_JSON, TEST_JSON] if rules.year >= 2026 else []
    audio: dict[str, zipfile.ZipInfo] = {}
    found: dict[str, zipfile.ZipInfo] = {}
    for info in files:
        inner = info.filename.removeprefix(f"{folder}/")
        if inner.startswith(f"{AUDIO}/") and inner.endswith(".wav") and inner.count("/") == 1:
            if inner.rpartition("/")[2] in audio:
                yield _line(info.filename, "the same file twice", "once")
            audio[inner.rpartition("/")[2]] = info
        elif inner in documents:
            found[inner] = info
        else:
            expected = f"{folder}/{AUDIO}/*.wav" + "".join(f", {folder}/{d}" for d in documents)
            yield _line(info.filename, "a file that does not belong there", expected)
    sources: dict[str, list[str]] = {utt: [] for utt in rules.soundscapes}
    slots: set[tuple[str, int | None]] = set()
    for name_, info in sorted(audio.items()):
        yield from _audio(archive, info, name_, rules, sources, slots)
    yield from _counts(sources, rules)
    for document in documents:
        if document not in found:
            yield _line(f"{folder}/{document}", "no such file", "one")
    if EVAL_JSON in found:
        yield from _eval_results(_json(archive, found[EVAL_JSON]), audio, rules)
    if TEST_JSON in found:
        yield from _test_results(_json(archive, found[TEST_JSON]), rules)


def _audio(
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    name: str,
    rules: Rules,
    sources: dict[str, list[str]],
    slots: set[tuple[str, int | None]],
) -> Iterator[str]:
    """Rules for one wav file; its label is added to its soundscape's."""
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
        yield _line(name, f"a second file for slot {slot} of {utt}", "one")
    slots.add((utt, slot))
    if info.file_size > LARGEST:
        yield _line(name, f"{info.file_size} bytes", "a source of a soundscape")
        return
    try:
        sound = open_audio(name, archive.read(info))
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
            yield _line(name, f"{sound.channels} channels", "one")
        if sound.samplerate == rules.fs and sound.frames != rules.samples(utt):
            yield _line(name, f"{sound.frames} samples", f"{rules.samples(utt)}, as its soundscape")


def _counts(sources: Mapping[str, Sequence[str]], rules: Rules) -> Iterator[str]:
    """Rules for the files of a soundscape together."""
    for utt, labels in sources.items():
        if len(labels) > rules.n_slots:
            yield _line(utt, f"{len(labels)} files", f"at most {rules.n_slots}")
        if rules.year < 2026 and not labels:
            yield _line(utt, "no file", f"1 to {rules.n_slots}")


def _json(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Any:
    """The content, or a complaint in its place: of NaN and Infinity too, which Python writes and JSON does not know."""

    def no_number(name: str) -> None:
        raise ValueError(f"{name} for a number")

    try:
        return json.loads(archive.read(info), parse_constant=no_number)
    except (ValueError, RecursionError) as e:
        return InputError(info.filename, f"no JSON ({e})", "JSON")


def _shape(where: str, data: Any, **kinds: type) -> Iterator[str]:
    """Whether a mapping has some keys with values of some types."""
    if not isinstance(data, dict):
        yield _line(where, type(data).__name__, f"a mapping with {', '.join(kinds)}")
        return
    for key, kind in kinds.items():
        key = key.replace("CAPI_", "CAPI-")
        if key not in data:
            yield _line(where, f"no key {key}", "it")
        elif not isinstance(data[key], kind) or isinstance(data[key], bool) != (kind is bool):
            expected = {dict: "a mapping", list: "a list", bool: "true or false"}.get(kind, "a whole number")
            yield _line(f"{where}: key {key}", json.dumps(data[key])[:40], expected)


def _is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _eval_results(data: Any, audio: Mapping[str, Any], rules: Rules) -> Iterator[str]:
    """eval_results.json: every soundscape once, every file once, with its label and a probability."""
    where = EVAL_JSON
    if isinstance(data, InputError):
        yield str(data)
        return
    bad = list(_shape(where, data, nparams=int, probabilities=list, config=dict))
    yield from bad
    if bad:
        return
    seen: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for i, entry in enumerate(data["probabilities"]):
        if not isinstance(entry, dict) or not isinstance(entry.get("estimate"), list):
            yield _line(f"{where}: probabilities.{i}", json.dumps(entry)[:40], "soundscape and estimate")
            continue
        utt = str(entry.get("soundscape"))
        seen[utt] += 1
        if utt not in rules.soundscapes:
            yield _line(f"{where}: probabilities.{i}", f"soundscape {utt}", "one of the evaluation set")
        for estimate in entry["estimate"]:
            values = estimate if isinstance(estimate, dict) else {}
            name, label, probability = (values.get(key) for key in ("filename", "label", "probability"))
            files[str(name)] += 1
            if not str(name).startswith(f"{utt}_"):
                yield _line(f"{where}: {utt}", f"file {name}", "a file of that soundscape")
            if not str(name).endswith(f"_{label}.wav"):
                yield _line(f"{where}: {name}", f"label {label}", "that of the file's name")
            if not _is_number(probability) or not 0 <= probability <= 1:
                yield _line(f"{where}: {name}", f"probability {probability}", "0 to 1")
    for utt in rules.soundscapes:
        if seen[utt] != 1:
            found = "no such soundscape" if not seen[utt] else f"{seen[utt]} entries"
            yield _line(f"{where}: {utt}", found, "one entry, with an empty estimate if nothing is heard")
    for name in sorted({*files, *audio}):
        if files[name] > 1:
            yield _line(f"{where}: {name}", f"{files[name]} entries", "one")
        elif name not in audio:
            yield _line(f"{where}: {name}", "no such file in the zip", "one")
        elif not files[name]:
            yield _line(f"{where}: {name}", "no entry", "one for each file in the zip")


def _slots(where: str, entry: Mapping[str, Any], rules: Rules) -> Iterator[str]:
    """Whether labels and probabilities of a soundscape are K each, and what they may be."""
    for key in ("ref_labels", "est_labels", "probabilities"):
        if len(entry[key]) != rules.n_slots:
            yield _line(f"{where}: {key}", f"{len(entry[key])} values", f"{rules.n_slots}, padded with silence")
    for key in ("ref_labels", "est_labels"):
        for label in entry[key]:
            if label != SILENCE and label not in rules.labels.names:
                yield _line(f"{where}: {key}", f"label {label}", "one of the label set, or silence")
    for value in entry["probabilities"]:
        if not _is_number(value) or not 0 <= value <= 1:
            yield _line(f"{where}: probabilities", json.dumps(value)[:40], "numbers from 0 to 1")


def _test_results(data: Any, rules: Rules) -> Iterator[str]:
    """dev_set_test_results.json: every soundscape once, K labels each, figures that are the means of its details."""
    where = TEST_JSON
    if isinstance(data, InputError):
        yield str(data)
        return
    bad = list(_shape(where, data, CAPI_SDRi=dict, label_metrics=dict, nparams=int, details=list, config=dict))
    yield from bad
    if bad:
        return
    mean = data["CAPI-SDRi"].get("mean")
    accuracies = {key: data["label_metrics"].get(key) for key in ("accuracy_mix", "accuracy_src")}
    for key, value in {"CAPI-SDRi.mean": mean, **accuracies}.items():
        if not _is_number(value):
            yield _line(f"{where}: {key}", value, "a number")
    values, correct = [], []
    counts: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for i, entry in enumerate(data["details"]):
        place = f"{where}: details.{i}"
        wrong = list(_shape(place, entry, ref_labels=list, est_labels=list, probabilities=list, metrics=list))
        yield from wrong
        if wrong:
            continue
        utt = str(entry.get("soundscape"))
        seen[utt] += 1
        if rules.tests is not None and utt not in rules.tests:
            yield _line(place, f"soundscape {utt}", "one of the development set's test part")
        yield from _slots(f"{where}: {utt}", entry, rules)
        figures = {m.get("metric"): m.get("value") for m in entry["metrics"] if isinstance(m, dict)}
        if set(figures) != {"CAPI-SDRi", "label_metrics"}:
            yield _line(f"{where}: {utt}: metrics", sorted(map(str, figures)), "CAPI-SDRi and label_metrics")
            continue
        if figures["CAPI-SDRi"] is not None and not _is_number(figures["CAPI-SDRi"]):
            yield _line(f"{where}: {utt}: CAPI-SDRi", json.dumps(figures["CAPI-SDRi"])[:40], "a number or null")
        if figures["CAPI-SDRi"] is not None:
            values.append(figures["CAPI-SDRi"])
        hits = figures["label_metrics"]
        wrong = list(_shape(f"{where}: {utt}: label_metrics", hits, acc=bool, tp=int, fp=int, fn=int))
        yield from wrong
        if isinstance(hits, dict) and not wrong:
            correct.append(hits["acc"])
            counts.update({key: hits[key] for key in ("tp", "fp", "fn")})
    for utt in sorted(seen):
        if seen[utt] > 1:
            yield _line(f"{where}: {utt}", f"{seen[utt]} entries", "one")
    for utt in sorted(set(rules.tests or ()) - set(seen)):
        yield _line(f"{where}: {utt}", "no entry", "one for each soundscape of the test part")
    total = sum(counts.values())
    numbers = [value for value in values if _is_number(value)]
    actual = {
        "CAPI-SDRi.mean": (mean, sum(numbers) / len(numbers) if numbers else None, 1e-3),
        "accuracy_mix": (accuracies["accuracy_mix"], 100 * sum(correct) / len(correct) if correct else None, 1e-2),
        "accuracy_src": (accuracies["accuracy_src"], 100 * counts["tp"] / total if total else None, 1e-2),
    }
    for key, (stated, computed, tolerance) in actual.items():
        if _is_number(stated) and computed is not None and not math.isclose(stated, computed, abs_tol=tolerance):
            yield _line(f"{where}: {key}", f"{stated:g}", f"{computed:g}, the mean of the details")
