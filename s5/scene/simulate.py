"""Makes fixed sets: draws or lists scenes, renders each once and writes a data directory.

<out>/wav/<utt>.wav                     mixture (.flac on request)
<out>/source/<utt>_<slot>_<Label>.wav   dry targets in the order of the slots, slot from 0
<out>/interference/<utt>_<k>.wav        dry interferers in onset order, k from 0 (with a rest only)
<out>/rest/<utt>.wav                    rest of the mixture (noise/<utt>.wav: the backgrounds), on request
<out>/scene/<utt>.json                  scene, written last: the item is complete once it exists
<out>/simulate.json                     simulator, audio format and rest; if they change, all items are made again
<out>/bad_audio.tsv                     bad files and their defects, if any
<out>/summary.json, summary.png         counts of classes, histogram of SNRs
<out>/wav.scp, labels, source<k>.scp, scene.scp (interference<k>.scp, rest.scp or noise.scp)

Each item has its own files, and a run makes only incomplete items. So several processes never write the same file, and
a run resumes where a killed one stopped. :func:`make_virtual` writes virtual sets, whose scenes are drawn in training.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import yaml

from s5.data import Clipped, Row, remove_data_dir_files, write_audio, write_content, write_data_dir
from s5.data.datadir import RESTS
from s5.data.names import source_name
from s5.labels import LabelSet
from s5.scene.backends import simulator
from s5.scene.bad_audio import (
    REPORT,
    Finding,
    Use,
    find_bad_audio,
    material_files,
    scene_files,
    silent_cuts,
    write_excluded,
    write_report,
)
from s5.scene.config import Rest, SamplerConfig
from s5.scene.formats.lists import load_scenes
from s5.scene.prepare import Wanted, of_sampler, of_scenes, prepare
from s5.scene.ready import folder_of
from s5.scene.rendering.cpu import render
from s5.scene.sampler import Sampler
from s5.scene.spec import Scene
from s5.scene.summary import in_one_line, summarise, write_summary
from s5.utils.config import load_inherited, parse, resolve
from s5.utils.errors import InputError
from s5.utils.files import leftovers, write_json, write_text
from s5.utils.parallel import run_jobs
from s5.utils.shards import Shards, results
from s5.utils.text import read_json

SUBTYPES = {"float": "FLOAT", "16": "PCM_16", "24": "PCM_24"}
FORMATS = {"wav": ("float", "16", "24"), "flac": ("24", "16")}
"""Subtypes of each format; the first is the default."""

ON_BAD_AUDIO = ("stop", "skip", "keep")
"""Actions on bad audio. ``keep`` keeps silent files, as SpAudSyn does, and stops on other bad files."""

FOLDERS = ("wav", "source", "scene", "interference", *RESTS.values())
"""Folders of the items' files. Only a set with a rest has those after the first three."""

MEMORY = ".audio_check.json"
"""File beside the data directories that lists the audio files already checked."""


@dataclass(frozen=True)
class AudioForm:
    """File format of waveforms."""

    format: str = "wav"
    subtype: str = "float"

    @classmethod
    def of(cls, format: str = "wav", subtype: str | None = None) -> AudioForm:
        """Format with a subtype, by default its first one. Raises InputError for a subtype that the format lacks."""
        subtype = FORMATS[format][0] if subtype is None else subtype
        if subtype not in FORMATS[format]:
            raise InputError("--subtype", f"{subtype} with {format}", " or ".join(FORMATS[format]))
        return cls(format, subtype)


class SamplerScenes:
    """The scenes 0 .. N-1 (of epoch 0) of a sampler, drawn by a simulator."""

    def __init__(self, sampler: Sampler, simulator: str) -> None:
        self.sampler, self.simulator = sampler, simulator
        self.root, self.n_slots = sampler.root, sampler.config.n_slots
        self.n_interference = sampler.n_interference

    def material(self, items: Iterable[int]) -> dict[int, set[Wanted]]:
        """Files that the scenes read, by sampling rate."""
        return {self.sampler.config.sampling_rate: set(of_sampler(self.sampler))}

    def __len__(self) -> int:
        return self.sampler.config.num_scenes

    def draw(self, item: int) -> Scene:
        """Scene of an item."""
        return simulator(self.simulator).draw_scene(self.sampler, item)


class ListedScenes:
    """The scenes of a metadata list, or one scene.

    Args:
        path: path of the list or the scene.
        root: folder that the paths in the scenes start from.
        num_scenes: number of leading scenes to use; None: all.
    """

    simulator = "native"

    def __init__(self, path: str, root: str, num_scenes: int | None) -> None:
        self.path, self.root = path, root
        self.scenes = load_scenes(path)
        self.num_scenes = len(self.scenes) if num_scenes is None else min(num_scenes, len(self.scenes))

    def material(self, items: Iterable[int]) -> dict[int, set[Wanted]]:
        """Files that the scenes of some entries read, by sampling rate."""
        return of_scenes(map(self.draw, items), self.root)

    def __len__(self) -> int:
        return self.num_scenes

    @property
    def n_slots(self) -> int:
        """K, the most sources of a scene; at least 3."""
        return max([3, *(len(self.draw(item).fg_events) for item in range(len(self)))])

    @property
    def n_interference(self) -> int:
        """I, the most interferers of a scene."""
        return max(len(self.draw(item).int_events) for item in range(len(self)))

    def draw(self, item: int) -> Scene:
        """Scene of an entry."""
        return self.scenes[item]

    def silent_cuts(self, item: int) -> list[Finding]:
        """Targets of an entry that would be silent."""
        return silent_cuts(self.draw(item), self.root)


@dataclass
class _Work:
    """The work of a process; it is pickled."""

    scenes: SamplerScenes | ListedScenes
    out: Path
    utts: dict[int, str]
    form: AudioForm
    rest: Rest

    def make(self, item: int) -> tuple[Row, Clipped]:
        """Makes one item, unless it is complete with the same scene. Returns its row and the clipped samples."""
        scene = self.scenes.draw(item)
        row = self._row(self.utts[item], scene)
        path = Path(str(row.scene))
        if _load(path) == scene and all(map(os.path.exists, row.audio)):
            return row, Clipped()
        path.unlink(missing_ok=True)
        ready = folder_of(self.out.parent, scene.config.sr)
        rendered = simulator(self.scenes.simulator).render_scene(scene, self.scenes.root, ready, self.rest)
        others = [*rendered.dry]
        if rendered.dry_interference is not None and rendered.rest is not None:
            others += [*rendered.dry_interference, *rendered.rest]
        clipped = Clipped()
        for name, audio in zip(row.audio, (*others, rendered.mixture), strict=True):
            clipped = clipped.joined(write_audio(name, audio, scene.config.sr, SUBTYPES[self.form.subtype]))
        scene.save(path)
        return row, clipped

    def _row(self, utt: str, scene: Scene) -> Row:
        suffix, labels = f".{self.form.format}", tuple(scene.labels)
        sources = (self.out / "source" / source_name(utt, k, label, suffix) for k, label in enumerate(labels))
        wav, document = self.out / "wav" / f"{utt}{suffix}", self.out / "scene" / f"{utt}.json"
        row = Row(utt, str(wav), labels, tuple(map(str, sources)), str(document))
        if self.rest != "none":
            others = (self.out / "interference" / f"{utt}_{k}{suffix}" for k in range(len(scene.int_events)))
            row.interference = tuple(map(str, others))
            setattr(row, RESTS[self.rest], str(self.out / RESTS[self.rest] / f"{utt}{suffix}"))
        return row


@dataclass
class ListConfig:
    """Keys of a YAML that names a list of scenes instead of the rules to draw them."""

    scenes: str
    """Path of a metadata list of either challenge, from the recipe folder."""
    root: str = "."
    """Folder that the paths in the scenes start from."""
    num_scenes: int | None = None
    """Number of leading scenes to use; null: all."""
    rest: Rest = "none"
    """Further targets, as in :class:`s5.scene.config.SamplerConfig`."""


def simulate(
    config: str | Path | None,
    out: str | Path,
    scenes: str | Path | None = None,
    num_scenes: int | None = None,
    nj: int = 1,
    simulator_name: str = "native",
    form: AudioForm = AudioForm(),
    on_bad_audio: str = "stop",
    root: str = ".",
    shards: Shards | None = None,
    rest: Rest | None = None,
) -> list[Row]:
    """Makes a fixed set, or its missing items.

    Args:
        config: sampler YAML, or YAML of a :class:`ListConfig`; its paths and ``out`` start from the working directory.
        out: the data directory; its name begins the utterances' names (``test_0000``).
        scenes: metadata list of either challenge, or one scene; replaces ``config``.
        num_scenes: number of scenes instead of the configuration's; of a list the first ones.
        nj: number of processes; the files do not depend on it.
        simulator_name: name of a simulator in :data:`s5.scene.backends.SIMULATORS`.
        form: file format of the audio.
        on_bad_audio: one of :data:`ON_BAD_AUDIO`. ``skip`` draws scenes without the bad files, and leaves out a list's
            entries that need one.
        root: folder that the paths in listed scenes start from.
        shards: part of the work, if several jobs share it: first checking the audio and preparing the folder, then the
            items of each shard, then joining them.
        rest: further targets, instead of the configuration's.

    Returns:
        The rows of the data directory; none before all items are complete.

    Raises:
        InputError: the material is bad, or the configuration allows no scene.
    """
    out = Path(out)
    if any(c.isspace() for c in str(out)):
        raise InputError("--out", repr(str(out)), "a path without space")
    if (out / "sampler.yaml").exists():
        raise InputError(out, "sampler.yaml (a virtual set)", "a folder for a fixed set")
    # Until the last item is complete, the folder must not look like a complete set.
    remove_data_dir_files(out)
    nj = min(nj, len(os.sched_getaffinity(0)))
    known = shards.prepared() if shards and shards.index != 0 else None
    if scenes is None and config is not None and "scenes" in (keys := load_inherited(config)):
        listed: ListConfig = parse(ListConfig, keys, resolve(config))
        scenes, root, num_scenes = listed.scenes, listed.root, num_scenes or listed.num_scenes
        rest = rest or listed.rest
    found: SamplerScenes | ListedScenes
    excluded: list[str] = []
    if scenes is not None:
        if simulator_name != "native":
            raise InputError("--simulator", f"{simulator_name} with --scenes", "native: the scenes place the events")
        found = ListedScenes(str(scenes), root, num_scenes)
        items = known["items"] if known else _check_listed(found, out, on_bad_audio, nj)
    else:
        assert config is not None
        simulator(simulator_name)
        if known:
            sampler = _sampler(config, num_scenes, known["excluded"])
        else:
            sampler = _checked_sampler(config, out, on_bad_audio, nj, num_scenes)
        found = SamplerScenes(sampler, simulator_name)
        items, excluded = list(range(len(found))), sorted(sampler.excluded)
        rest = rest or sampler.config.rest
    digits = max(4, len(str(len(found) - 1)))
    work = _Work(found, out, {item: f"{out.name}_{item:0{digits}d}" for item in items}, form, rest or "none")
    if not known:
        for rate, wanted in found.material(items).items():
            prepare(wanted, rate, out.parent, nj)
        _make_folders(work)
    if shards and shards.index == 0:
        shards.prepare({"items": items, "excluded": excluded})
        return []
    made = results(
        shards,
        items,
        lambda part: ((vars(row), clipped) for row, clipped in run_jobs(work.make, part, nj, "simulate")),
    )
    if made is None:
        return []
    rows: list[Row] = []
    for known_row, clip in made:
        row, clipped = Row(**known_row), Clipped(*clip)
        rows.append(row)
        if clipped.samples:
            logging.warning("%s: %s; --subtype float keeps them, a lower ref_db avoids them", row.wav, clipped)
    _remove_others(out, rows)
    counts = summarise(rows, (Scene.load(row.scene) for row in rows if row.scene is not None))
    write_summary(counts, out)
    write_data_dir(out, rows, found.n_slots, 0 if work.rest == "none" else found.n_interference)
    write_content(out)
    logging.info("%s: %s", out, in_one_line(counts))
    return rows


def make_virtual(
    config: str | Path, out: str | Path, num_scenes: int | None = None, nj: int = 1, on_bad_audio: str = "stop"
) -> Path:
    """Writes a virtual set: ``sampler.yaml`` with the resolved configuration.

    First all audio is checked and prepared as for a fixed set, a scene with each possible number of events is drawn,
    and one scene is rendered, so that no training stops later. With ``on_bad_audio="skip"``, ``excluded.txt`` lists the
    bad files, and the training does not use them.

    Raises:
        InputError: the material is bad, the configuration allows no scene, or the folder holds a fixed set.
    """
    out = Path(out)
    if (out / "wav.scp").exists():
        raise InputError(out, "wav.scp (a fixed set)", "a folder for a virtual set")
    nj = min(nj, len(os.sched_getaffinity(0)))
    sampler = _checked_sampler(config, out, on_bad_audio, nj, num_scenes)
    sampler.check_requests()
    ready = prepare(of_sampler(sampler), sampler.config.sampling_rate, out.parent, nj)
    render(sampler.scene(0, 0), sampler.root, ready=ready)
    out.mkdir(parents=True, exist_ok=True)
    write_excluded(sorted(sampler.excluded), out)
    write_text(out / "sampler.yaml", yaml.safe_dump(sampler.to_dict(), sort_keys=False))
    write_content(out)
    return out / "sampler.yaml"


def _checked_sampler(config: str | Path, out: Path, on_bad_audio: str, nj: int, num_scenes: int | None) -> Sampler:
    """Sampler of a configuration without the bad files in its folders."""
    where = resolve(config)
    parsed: SamplerConfig = parse(SamplerConfig, load_inherited(config), where)
    labels = parsed.labels
    if isinstance(labels, str):
        labels = list(LabelSet.load(resolve(labels)).names)
    findings = find_bad_audio(material_files(parsed, labels), out.parent / MEMORY, nj)
    bad = _decide(findings, out, on_bad_audio)
    return _sampler(config, num_scenes, [finding.path for finding in bad])


def _sampler(config: str | Path, num_scenes: int | None, exclude: Sequence[str] = ()) -> Sampler:
    sampler = Sampler.from_yaml(config, exclude=exclude)
    if num_scenes is not None:
        sampler.config.num_scenes = num_scenes
    return sampler


def _check_listed(listed: ListedScenes, out: Path, on_bad_audio: str, nj: int) -> list[int]:
    """Items of a list whose audio is good."""
    needed = [scene_files(listed.draw(item), listed.root) for item in range(len(listed))]
    files: dict[str, Use] = {}
    for of_scene in needed:
        files |= of_scene
    findings = find_bad_audio(files, out.parent / MEMORY, nj)
    bad = {finding.path for finding in findings}
    items = [item for item, of_scene in enumerate(needed) if not bad & of_scene.keys()]
    cuts = dict(zip(items, run_jobs(listed.silent_cuts, items, nj, "check events"), strict=True))
    findings = sorted({*findings, *(finding for found in cuts.values() for finding in found)}, key=astuple)
    bad = {finding.path for finding in _decide(findings, out, on_bad_audio)}
    items = [item for item, of_scene in enumerate(needed) if not (bad & of_scene.keys() and cuts.get(item) != [])]
    if len(items) < len(needed):
        left_out = [str(item) for item in range(len(needed)) if item not in set(items)]
        logging.warning("%s: entries left out for bad audio: %s", listed.path, ", ".join(left_out))
    if not items:
        raise InputError(listed.path, "no scene without bad audio" if needed else "no scene", "at least one")
    return items


def _decide(findings: Sequence[Finding], out: Path, on_bad_audio: str) -> list[Finding]:
    """Writes the report and returns the files to exclude. Raises InputError if the run has to stop."""
    report = write_report(findings, out)
    if on_bad_audio == "skip":
        if findings:
            logging.warning("%d bad audio files are left out, see %s", len(findings), report)
        return list(findings)
    fatal = [f for f in findings if on_bad_audio == "stop" or not f.silent]
    if fatal:
        where = fatal[0].name if len(fatal) == 1 else f"{fatal[0].name} and {len(fatal) - 1} more in {report}"
        raise InputError(where, fatal[0].reason, "audio (--on_bad_audio skip leaves such files out)")
    if findings:
        logging.warning("%d silent audio files are kept, see %s", len(findings), report)
    return []


def _make_folders(work: _Work) -> None:
    """Makes the folders; removes half-written files of a killed run, and all items of another simulator or format."""
    needed = FOLDERS[:3] if work.rest == "none" else (*FOLDERS[:4], RESTS[work.rest])
    for name in FOLDERS:
        folder = work.out / name
        if name in needed:
            folder.mkdir(parents=True, exist_ok=True)
        for partial in leftovers(folder, f"{work.out.name}_*"):
            partial.unlink()
    for name in ("*.scp", "labels", "*.json", "summary.png", REPORT):
        for partial in leftovers(work.out, name):
            partial.unlink()
    made_with = {"simulator": work.scenes.simulator, **asdict(work.form)}
    if work.rest != "none":
        made_with["rest"] = work.rest
    path = work.out / "simulate.json"
    try:
        same = read_json(path, "what a set was made with") == made_with
    except InputError:
        same = False
    if not same:
        for scene in (work.out / "scene").glob(f"{work.out.name}_*.json"):
            scene.unlink()
        write_json(path, made_with)


def _remove_others(out: Path, rows: Iterable[Row]) -> None:
    """Removes files of items that the set no longer has, or has in another format."""
    kept = {Path(name) for row in rows for name in (*row.audio, str(row.scene))}
    for name in FOLDERS:
        folder = out / name
        for path in folder.glob(f"{out.name}_*"):
            if path not in kept:
                path.unlink()
        if name in FOLDERS[3:] and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _load(path: Path) -> Scene | None:
    try:
        return Scene.load(path)
    except InputError:
        return None
