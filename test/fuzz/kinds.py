"""The kinds of input: which files are mutated, what reads them, and what is known of a right result."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import random
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mutate
import numpy as np
import soundfile
import yaml
from mutate import mutate_bytes, mutate_json, mutate_lines, mutate_wav, mutate_yaml, mutate_zip
from originals import LABELS, RATE, SUBMISSION, N

Change = tuple[str, str]
"""File and what was done to it."""


@dataclass
class Mutant:
    """A folder with mutated files, which is the working directory."""

    original: Path
    """Folder of the original files."""
    world: Path
    """Folder of the originals of all kinds."""
    rng: random.Random
    changes: list[Change] = field(default_factory=list)

    @property
    def file(self) -> str:
        """The file that was mutated last."""
        return self.changes[-1][0]

    @property
    def remade(self) -> bool:
        """Whether an archive was written anew with another member, whose checksum fits."""
        return any(": " in done for _, done in self.changes)

    @property
    def cut(self) -> bool:
        """Whether all that was done was to cut off a file's end."""
        return len(self.changes) == 1 and self.changes[0][1] == "truncate"


class Wrong(Exception):
    """A result that is not right, without a word."""


@dataclass
class Kind:
    """A kind of input.

    Attributes:
        files: patterns of what is mutated, in the kind's folder.
        run: gives the mutant to what reads it; returns what there is to judge.
        judge: raises :class:`Wrong` for a result that is not right.
        share: of all mutants, relative to the other kinds.
        links: of the original's folders those that mutants only read.
    """

    files: tuple[str, ...]
    run: Callable[[Mutant], Any]
    judge: Callable[[Mutant, Any], None] = lambda mutant, result: None
    share: int = 1
    links: tuple[str, ...] = ()
    mutate: Callable[[Mutant, Path], str] | None = None
    """What is done to a file, by default by its suffix."""
    left: tuple[str, ...] = ()
    """Patterns of files that nothing of may be there after a refusal."""


def make_mutant(kind: Kind, mutant: Mutant) -> None:
    """Copies the originals into the working directory and mutates one file, or two."""
    rng = mutant.rng
    for entry in sorted(mutant.original.iterdir()):
        if entry.name in kind.links:
            os.symlink(entry, entry.name)
        elif entry.is_dir():
            shutil.copytree(entry, entry.name)
        else:
            shutil.copy(entry, entry.name)
    for _ in range(rng.choice((1, 1, 1, 1, 2))):
        pattern = rng.choice(kind.files)
        files = sorted(path for path in Path().glob(pattern) if path.is_file() and not path.is_symlink())
        if not files:
            continue
        path = rng.choice(files)
        try:
            done = kind.mutate(mutant, path) if kind.mutate else mutate_file(path, rng)
        except Exception:  # the file was mutated before, and has no structure left
            data, done = mutate_bytes(path.read_bytes() if path.is_file() else b"", rng)
            path.write_bytes(data)
        mutant.changes.append((str(path), done))


def mutate_file(path: Path, rng: random.Random) -> str:
    """Mutates a file in the way of its suffix; or removes it, renames it, makes a folder or a link of it."""
    if rng.random() < 0.04:
        kind = rng.choice(("remove", "folder", "dangling link", "loop", "pipe", "unreadable name"))
        path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "dangling link":
            path.symlink_to("nowhere")
        elif kind == "loop":
            path.symlink_to(path.name)
        elif kind == "pipe":
            path.symlink_to("/dev/null")
        elif kind == "unreadable name":
            path.with_name("\udcff" + path.name).write_bytes(b"x")
        return kind
    by_suffix = {
        ".json": mutate_json,
        ".yaml": mutate_yaml,
        ".wav": mutate_wav,
        ".zip": lambda data, rng: mutate_zip(data, rng, member),
        ".scp": mutate_lines,
        ".txt": mutate_lines,
        "": mutate_lines,
    }
    data, done = by_suffix.get(path.suffix, mutate_bytes)(path.read_bytes(), rng)
    path.write_bytes(data)
    return done


def member(name: str, data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Mutates a file of a zip file in the way of its suffix."""
    by_suffix = {".json": mutate_json, ".yaml": mutate_yaml, ".wav": mutate_wav, ".txt": mutate_lines}
    return by_suffix.get(Path(name).suffix, mutate_bytes)(data, rng)


def _finite_json(path: str | Path) -> Any:
    """A JSON file without NaN and Infinity."""

    def wrong(name: str) -> None:
        raise Wrong(f"{name} in {path}")

    return json.loads(Path(path).read_text(), parse_constant=wrong)


def _check_wavs(folder: Path, n_samples: int | None = None) -> list[Path]:
    """The files of a folder, all of which are of some length and finite."""
    files = sorted(folder.glob("*.wav"))
    for file in files:
        samples, _ = soundfile.read(file)
        if n_samples is not None and len(samples) != n_samples:
            raise Wrong(f"{file.name} has {len(samples)} samples, expected {n_samples}")
        if not len(samples) or not np.isfinite(samples).all():
            raise Wrong(f"{file.name} is empty or not finite")
    return files


# --- audio ------------------------------------------------------------------------------------------------------------

_systems: dict[Path, Any] = {}


def _system(world: Path, window: float = 10.0, overlap: float = 2.0) -> Any:
    """The originals' system, loaded once a process, with windows of so many seconds."""
    from s5 import DecodeConfig, S5System

    if world not in _systems:
        system = S5System.from_yaml(world / "system/system.yaml", world / "system/exp", "cpu")
        system.n_channels  # noqa: B018  (loads it)
        _systems[world] = system
    _systems[world].decode = DecodeConfig(window=window, overlap=overlap)
    return _systems[world]


def _wav_samples(data: bytes) -> tuple[int, int] | None:
    """Samples that a RIFF file holds by its data chunk's size, and those that are there behind the chunk's head.

    None where it says what cannot be judged: another format, or a length that a pipe leaves open.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return None
    at, align = 12, 0
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name == b"fmt ":
            kind, channels, align, bits = (int.from_bytes(data[at + i : at + i + 2], "little") for i in (8, 10, 20, 22))
            if kind not in (1, 3, 0xFFFE) or align != channels * bits // 8:
                return None
        if name == b"data":
            open_end = size == 0 or size >= 0x7FFF0000
            return None if open_end or not align else (size // align, (len(data) - at - 8) // align)
        at += 8 + size + size % 2
    return None


def _run_audio(mutant: Mutant) -> Any:
    from s5.data import DataDir, audio_info
    from s5.inference import stages
    from s5.scene import Scene
    from s5.scene.rendering.cpu import render

    name = mutant.file
    how = mutant.rng.choice(("separate", "separate", "windows", "data", "scene", "score"))
    if how in ("separate", "windows"):
        window, overlap = (10.0, 2.0) if how == "separate" else (0.3, 0.1)
        stages.separate_file(_system(mutant.world, window, overlap), name, "out", ["Speech"])
        return soundfile.info(next(Path("out").glob("*.wav"))).frames
    if how == "data":
        Path("data").mkdir()
        Path("data/wav.scp").write_text(f"a {name}\n")
        data = DataDir.load("data")
        data.check(decode=True)
        return audio_info(name)[1] if audio_info(name)[1] == data.mixture("a")[0].shape[1] else -1
    if how == "score":
        from s5.bin import score

        for folder in ("refs/soundscape", "refs/oracle_target", "est"):
            Path(folder).mkdir(parents=True)
        mono = soundfile.read(mutant.world / "audio/pcm16.wav")[0][:, 0]
        for file in ("refs/soundscape/a.wav", "refs/oracle_target/a_0_Speech.wav", "est/a_0_Speech.wav"):
            soundfile.write(file, mono, RATE)
        where = mutant.rng.choice(("refs/soundscape/a.wav", "refs/oracle_target/a_0_Speech.wav", "est/a_0_Speech.wav"))
        if where.startswith("refs/s"):
            shutil.copy(name, where)
        else:
            content = io.BytesIO()
            soundfile.write(content, mono, RATE, format="WAV", subtype="PCM_16")
            data, done = mutate_wav(content.getvalue(), mutant.rng)
            Path(where).write_bytes(data)
            mutant.changes[:] = [(where, done)]
        argv = ["--estimates", "est", "--references", "refs", "--out", "scores.json"]
        score.main([*argv, "--labels", str(mutant.world / "datadir/labels.txt"), "--resamples", "0"])
        _finite_json("scores.json")
        return soundfile.info(where).frames
    scene = json.loads((mutant.world / "scene/2026.json").read_text())
    scene["fg_events"] = scene["fg_events"][:1]
    scene["int_events"] = []
    scene["config"]["foreground_dir"] = "."
    scene["fg_events"][0] |= {"source_file": name, "event_duration": N / RATE}
    for event in scene["bg_events"]:
        event["source_file"] = str(mutant.world / "scene/raw/noise/1.wav")
    scene["config"]["background_dir"] = str(mutant.world / "scene/raw/noise")
    metadata = scene["room"]["args"]["metadata"]
    metadata["sofa_path"] = str(mutant.world / "scene/raw/room_ir/a.sofa")
    rendered = render(Scene.from_dict(scene))
    if not np.isfinite(rendered.mixture).all() or not np.isfinite(rendered.dry).all():
        raise Wrong("a scene that is not finite")
    from s5.scene.audio import clip

    return clip(name).info.n_frames


def _judge_audio(mutant: Mutant, n: int) -> None:
    path = Path(mutant.file)
    found = _wav_samples(path.read_bytes()) if path.is_file() else None
    if found is not None and n != found[0]:
        raise Wrong(f"{n} samples read, {found[0]} by its data chunk")
    if found is not None and n < N <= found[1]:
        raise Wrong(f"{n} samples read, though there are {found[1]}")
    if mutant.cut and n < N:
        raise Wrong(f"cut off, and taken for one of {n} samples")


# --- rooms and scenes -------------------------------------------------------------------------------------------------


def _mutate_sofa(mutant: Mutant, path: Path) -> str:
    """A SOFA file with another field, or other bytes."""
    import h5py

    rng = mutant.rng
    if rng.random() < 0.4:
        return mutate_file(path, rng)
    with h5py.File(path, "r+") as file:
        name = rng.choice(("Data.IR", "Data.SamplingRate", "SourcePosition", "ListenerPosition", "EmitterPosition"))
        data = file[name]
        how = rng.choice(("values", "values", "delete", "shape", "type", "attribute", "group", "scalar"))
        if how == "values":
            values = np.asarray(data[()], dtype=np.float64)
            number = rng.choice((math.nan, math.inf, 0.0, -1.0, 1e300, 1e-300, 16.0, 8.0, 1e9, 2.0**40))
            if rng.random() < 0.5:
                values.flat[rng.randrange(values.size)] = number
            else:
                values[...] = number
            data[...] = values
            return f"{name} = {number}"
        if how == "attribute":
            key = rng.choice(("Type", "Units"))
            value = rng.choice(
                ("", "spherical", "cartesian", "metre", "kilohertz", "radian", "é", 3, b"\xff", "hertz" * 99)
            )
            data.attrs[key] = value
            return f"{name}:{key} = {value!r}"
        values = np.asarray(data[()], dtype=np.float64)
        del file[name]
        if how == "shape":
            shape = rng.choice(
                ((0,), (1, 1), values.shape[::-1], (*values.shape, 1), values.shape[:1], (1, *values.shape))
            )
            file[name] = np.resize(values, shape)
            return f"{name} of shape {shape}"
        if how == "type":
            kind = rng.choice(("i4", "S4", "c16", "f2", "V8"))
            file[name] = np.zeros(values.shape, kind)
            return f"{name} of type {kind}"
        if how == "group":
            file.create_group(name)
        elif how == "scalar":
            file[name] = rng.choice((3.0, "x", math.nan))
        return f"{name}: {how}"


def _simulate(mutant: Mutant, *argv: str) -> Any:
    """A fixed set, and what is in it."""
    from s5.bin import simulate
    from s5.data import DataDir

    simulate.main([*argv, "--out", "out/set"])
    data = DataDir.load("out/set")
    data.check(decode=True)
    return data


def _judge_set(mutant: Mutant, data: Any) -> None:
    from s5.scene import Scene

    for utt in data.utts:
        scene = Scene.load(data.scene_path(utt))
        mixture, rate = data.mixture(utt)
        if rate != scene.config.sr or mixture.shape[1] != scene.config.n_samples or not mixture.any():
            raise Wrong(f"a mixture of {list(mixture.shape)}, {rate} Hz, peak {abs(mixture).max():g}")
        if list(data.labels[utt]) != scene.labels:
            raise Wrong(f"labels {data.labels[utt]} of a scene of {scene.labels}")
        if len(scene.labels) != sum(bool(source.any()) for source in data.sources(utt)):
            raise Wrong("a label whose source is silent")


def _run_sofa(mutant: Mutant) -> Any:
    name = Path(mutant.file).name if mutant.file.endswith(".sofa") else "plain.sofa"
    Path("2026.json").write_text(Path("2026.json").read_text().replace("raw/room_ir/a.sofa", name))
    if mutant.rng.random() < 0.5:
        return _simulate(mutant, "--scenes", "2026.json")
    from s5.scene.rendering.room import SofaRoom

    room = SofaRoom(name)
    for i in range(min(room.n_positions, 1000)):
        response = room.rir(i)
        if response.shape != (room.n_channels, room.rir_length) or not np.isfinite(response).all():
            raise Wrong(f"a response of {response.shape}, or not finite")
    return None


def _run_scene(mutant: Mutant) -> Any:
    name = mutant.file
    if name.endswith(".yaml"):
        if name == "sampler.yaml" and mutant.rng.random() < 0.2:
            from s5.bin import simulate

            simulate.main(["--config", name, "--out", "out/virtual", "--virtual"])
            return None
        return _simulate(mutant, "--config", name, "--num_scenes", "2")
    bad = mutant.rng.choice(("stop", "skip", "keep"))
    return _simulate(mutant, "--scenes", "list.json" if mutant.rng.random() < 0.3 else name, "--on_bad_audio", bad)


# --- systems ----------------------------------------------------------------------------------------------------------


def _noise() -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal((4, N)).astype(np.float32)


def _use(system: Any) -> None:
    """Runs it on noise."""
    posteriors = system.tag(_noise()[: system.n_channels])
    outputs = system.separate(_noise()[: system.n_channels], [system.labels.names[0]])
    for name, array in {**posteriors, **outputs}.items():
        if not np.isfinite(array).all():
            raise Wrong(f"an output of {name} that is not finite")
    system(_noise()[: system.n_channels], system.sampling_rate)


def _run_system(mutant: Mutant) -> Any:
    from s5 import S5System
    from s5.bin import models, pack

    name = mutant.file
    if name == "authors.yaml":
        from s5.challenge.submission import Details

        return Details.load(name)
    if name in ("parent.yaml", "named.yaml") or mutant.rng.random() < 0.2:
        shutil.copy(mutant.world / "training/tagger.yaml", "tagger.yaml")
        models.main(["--system", name if name.endswith(".yaml") and "/" not in name else "parent.yaml"])
    if name == "scores.json" or mutant.rng.random() < 0.3:
        pack.main(["--system", "system.yaml", "--expdir", "exp", "--out", "out/x.s5", "--scores", "scores.json"])
        return S5System.from_pretrained("out/x.s5", "cpu").n_channels
    if name != "named.yaml":
        _use(S5System.from_yaml("parent.yaml" if name == "parent.yaml" else "system.yaml", "exp", "cpu"))
    return None


def _run_archive(mutant: Mutant) -> Any:
    from s5 import S5System
    from s5.system.archive import describe
    from s5.system.hub import open_archive

    describe("tiny.s5")
    folder = open_archive("tiny.s5")
    _use(S5System.from_pretrained(folder, "cpu"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _mutate_archive(mutant: Mutant, path: Path) -> str:
    """An archive with other bytes; or with another file, of which archive.yaml tells the checksum."""
    rng = mutant.rng
    if rng.random() < 0.5:
        data, done = mutate_zip(path.read_bytes(), rng, member)
        path.write_bytes(data)
        return done
    members = {info.filename: content for info, content in mutate.read_zip(path.read_bytes())}
    name = rng.choice([name for name in members if name not in ("archive.yaml", "LICENSE", "README.md")])
    members[name], done = (_mutate_tensors if name.endswith("tensors") else member)(name, members[name], rng)
    manifest = yaml.safe_load(members["archive.yaml"])
    manifest["files"][name] = hashlib.sha256(members[name]).hexdigest()
    members["archive.yaml"] = yaml.safe_dump(manifest, sort_keys=False).encode()
    path.write_bytes(mutate.write_zip([(zipfile.ZipInfo(name), content) for name, content in members.items()]))
    return f"signed {name}: {done}"


def _mutate_tensors(name: str, data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Safetensors with another header, or other bytes."""
    if rng.random() < 0.4:
        return mutate_bytes(data, rng)
    n = int.from_bytes(data[:8], "little")
    header, done = mutate_json(data[8 : 8 + n], rng)
    return len(header).to_bytes(8, "little") + header + data[8 + n :], f"header {done}"


def _judge_archive(mutant: Mutant, found: dict[str, bytes]) -> None:
    if any("signed" in done for _, done in mutant.changes):
        return
    with zipfile.ZipFile(mutant.original / "tiny.s5") as archive:
        for name in archive.namelist():
            if name not in ("archive.yaml", "README.md", "LICENSE", "scores.json") and found.get(name) != archive.read(
                name
            ):
                raise Wrong(f"another {name}")


# --- checkpoints ------------------------------------------------------------------------------------------------------


def _mutate_checkpoint(mutant: Mutant, path: Path) -> str:
    import pickle

    import torch

    rng = mutant.rng
    if path.suffix == ".yaml" or (path.suffix == ".zip" and rng.random() < 0.5):
        return mutate_file(path, rng)
    if path.suffix == ".zip":
        members = mutate.read_zip(path.read_bytes())
        content, done = _mutate_torch(members[0][1], rng)
        path.write_bytes(mutate.write_zip([(members[0][0], content)]))
        return f"member {done}"
    if path.suffix == ".safetensors":
        data, done = _mutate_tensors("", path.read_bytes(), rng)
        path.write_bytes(data)
        return done
    if rng.random() < 0.3:  # another content
        content = torch.load(path, weights_only=False)
        odd: Any = rng.choice(
            (None, [], {}, 3, "x", mutate.Evil(), torch.ones(3), {"model": 3}, {1: torch.ones(1)}, math.nan)
        )
        if isinstance(content, dict) and rng.random() < 0.7:
            inner = next((content[key] for key in ("model", "state_dict") if key in content), content)
            key = rng.choice(list(inner))
            if isinstance(inner[key], torch.Tensor) and inner[key].ndim:
                odd = rng.choice((odd, *_odd_tensors(inner[key])))
            inner[key] = odd
        else:
            content = odd
        torch.save(content, path)
        return f"content {str(odd)[:30]!r}"
    if rng.random() < 0.1:
        path.write_bytes(pickle.dumps(mutate.Evil()))
        return "evil pickle"
    data, done = _mutate_torch(path.read_bytes(), rng)
    path.write_bytes(data)
    return done


def _odd_tensors(x: Any) -> tuple[Any, ...]:
    import torch

    real = x.float()
    kinds = (x.to(torch.int8), x.cfloat(), x.bool(), x.half(), x.to_sparse(), x.to("meta"))
    quantized = torch.quantize_per_tensor(real, 0.1, 0, torch.qint8)
    return (*kinds, x * math.nan, x.double() * 1e300, x[:0], quantized, torch.nn.Parameter(real))


def _mutate_torch(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    if data[:2] != b"PK":
        return mutate_bytes(data, rng)
    return mutate_zip(data, rng, lambda name, content, rng: mutate_bytes(content, rng))


_CHECKPOINTS = ("plain.safetensors", "legacy.pth", "lightning.ckpt", "checkpoint.pth", "published.zip", "exp/*/*")


def _run_checkpoint(mutant: Mutant) -> Any:

    from s5.challenge.baselines import download_models
    from s5.checkpoints import read_tensors
    from s5.system.model import load_model
    from s5.tasks.checkpoint import Checkpoints

    name = mutant.file
    if name == "published.zip":
        conf = {"n_fft": 128, "hop_length": 64, "widths": [2, 3], "condition_dim": 4}
        model = {
            "file": "f",
            "member": "separator.ckpt",
            "kind": "separator",
            "network": "resunetk",
            "network_conf": conf,
        }
        table = {"files": {"f": {"url": "https://a.org/f.zip"}}, "models": {"separator": model}}
        Path("table.yaml").write_text(yaml.safe_dump(table))
        download_models("system.yaml", "got", file=name, published="table.yaml")
        return None
    if name.startswith("exp/"):
        kind = name.split("/")[1]
        loaded = load_model(Path("exp", kind), None, kind)
        label = loaded.labels.names[0]
        outputs = loaded.posterior(_noise()) if kind == "tagger" else loaded.separate(_noise(), [label])
        if not np.isfinite(outputs).all():
            raise Wrong("outputs that are not finite")
        if name.endswith(".pth"):
            return read_tensors(name)
        return None
    if name == "checkpoint.pth" and mutant.rng.random() < 0.6:
        state = Checkpoints(Path()).load()
        return None if state is None else state.get("model") if isinstance(state, dict) else None
    return read_tensors(name)


def _judge_checkpoint(mutant: Mutant, found: dict[str, Any] | None) -> None:
    import torch

    if Path(mutate.RAN).exists():
        raise Wrong("code of the file ran")
    name = mutant.file
    done = "; ".join(done for _, done in mutant.changes)
    if found is None or "content" in done or "evil" in done:
        return
    # What has no checksum can only be held against its own form.
    unknown = name.endswith((".safetensors", "legacy.pth")) and not mutant.cut
    if unknown or re.search(r"\.(pkl|data)\S*: |data/|zip ", done):  # a record rewritten, with its checksum
        return
    from s5.checkpoints import read_tensors

    expected = read_tensors(mutant.original / name)
    if found.keys() != expected.keys():
        raise Wrong(f"{len(found)} tensors, expected {len(expected)}")
    for key, value in expected.items():
        if not torch.equal(torch.as_tensor(found[key]), value):
            raise Wrong(f"another {key}")


# --- data, estimates, results -----------------------------------------------------------------------------------------


def _run_datadir(mutant: Mutant) -> Any:
    from s5.bin import vote
    from s5.data import DataDir
    from s5.labels import LabelSet

    how = mutant.rng.choice(("load", "load", "score", "oracle"))
    if how == "score":
        _score(mutant)
        return None
    if how == "oracle":
        vote.main(["--system", "x.yaml", "--oracle", "data", "--out", "out"])
        rows = [line.split() for line in Path("out/labels").read_text().splitlines()]
        return {row[0]: tuple(row[1:]) for row in rows}
    data = DataDir.load("data", LabelSet.load("labels.txt"))
    data.check(decode=True)
    for utt in data.utts:
        if data.has_sources and data.sources(utt).shape != (data.n_slots, data.mixture(utt)[0].shape[1]):
            raise Wrong("sources of another shape")
        if data.interference(utt).shape != (data.n_interference, data.mixture(utt)[0].shape[1]):
            raise Wrong("interference of another shape")
        if data.has_rest() and data.rest(utt).shape != (1, data.mixture(utt)[0].shape[1]):
            raise Wrong("a rest of another shape")
    return data.labels


def _judge_datadir(mutant: Mutant, labels: dict[str, tuple[str, ...]] | None) -> None:
    if mutant.cut and labels is not None and labels != {"a": (), "b": ("Speech", "Speech"), "c": ("Cough",)}:
        raise Wrong(f"cut off, and taken for {labels}")


def _score(mutant: Mutant, *more: str, references: str = "data") -> Any:
    from s5.bin import score

    argv = ["--estimates", "estimates", "--references", references, "--labels", "labels.txt", "--out", "scores.json"]
    score.main([*argv, "--resamples", "20", *more])
    return _finite_json("scores.json")


def _mutate_estimates(mutant: Mutant, path: Path) -> str:
    """A file of another name, or mutated."""
    rng = mutant.rng
    if path.suffix == ".wav" and rng.random() < 0.5:
        utt, slot, label = rng.choice("abcx"), rng.choice("0123"), rng.choice((*LABELS, "silence", "Dog", ""))
        names = [
            f"{utt}_{slot}_{label}",
            f"{utt}_{label}",
            f"{utt}_{slot}",
            f"{utt}_-1_{label}",
            f"{utt}_99999_{label}",
        ]
        name = rng.choice(
            (*names, f"{utt}__{label}", f"_{label}", label or "x", f"{utt}_٣_{label}", f"{utt}_{slot}_{label}_x")
        )
        target = path.with_name(name.strip() + rng.choice((".wav", ".wav", ".wav", ".WAV", ".flac", "", ".wav.wav")))
        (shutil.copy if rng.random() < 0.3 else os.replace)(path, target) if target != path else None
        return f"renamed {target.name}"
    return mutate_file(path, rng)


def _run_estimates(mutant: Mutant) -> Any:
    more = ["--probabilities", "probabilities"] if mutant.rng.random() < 0.4 else []
    references = "challenge" if "challenge" in mutant.file or mutant.rng.random() < 0.3 else "data"
    return _score(mutant, *more, references=references)


def _run_labels(mutant: Mutant) -> Any:
    from s5.labels import LabelSet

    if mutant.rng.random() < 0.5:
        return LabelSet.load("labels.txt").names
    _score(mutant)
    return None


def _judge_labels(mutant: Mutant, names: tuple[str, ...] | None) -> None:
    for name in names or ():
        if not name.isprintable():
            raise Wrong(f"label {name!r}")
    # Of a list of names, nothing tells that its end is missing, but half a name would be one nobody meant.


def _mutate_results(mutant: Mutant, path: Path) -> str:
    """Results with other bytes, lines or arrays."""
    rng = mutant.rng
    if path.suffix == ".npy" and rng.random() < 0.5:
        array = np.load(path)
        shapes = (array[:1], array[:, :-1], array[0], array[None], array[:0], array.T, np.zeros((3, 0), np.float32))
        types = (array.astype("f8"), array.astype("c8"), array.astype("i2"), np.array([None, {}]), np.array("x"))
        odd = rng.choice((*shapes, *types, array * np.nan, array * 1e30))
        np.save(path, odd, allow_pickle=True)
        return f"array {odd.shape} {odd.dtype}"
    if path.suffix == ".ark" and rng.random() < 0.5:
        import kaldiio

        scp = path.with_suffix(".scp")
        tables = dict(kaldiio.load_scp_sequential(str(scp)))
        utt = rng.choice(list(tables))
        array = tables[utt]
        shapes = (array[:1], array[:, :-1], array[0], array[:0], array[:, :1])
        tables[utt] = rng.choice((*shapes, array * np.nan, array * 2, -array, array.astype("f8")))
        kaldiio.save_ark(str(path), tables, scp=str(scp))
        return f"posterior {tables[utt].shape}"
    return mutate_file(path, rng)


def _run_results(mutant: Mutant) -> Any:
    from s5.bin import fuse, vote

    how = mutant.rng.choice(("vote", "fuse", "fuse", "oracle"))
    if "posteriors" in mutant.file and how == "oracle":
        how = "vote"
    if how == "vote":
        vote.main(["--system", "system.yaml", "--out", "out"])
        return Path("out/labels").read_text()
    more = ["--oracle_labels"] if how == "oracle" else []
    fuse.main(
        ["--system", "system.yaml", "--expdir", "exp", "--data", "data", "--out", "out", "--device", "cpu", *more]
    )
    _check_wavs(Path("out/estimates"), N)
    return None


def _judge_results(mutant: Mutant, labels: str | None) -> None:
    if Path(mutate.RAN).exists():
        raise Wrong("code of the file ran")
    if labels is None:
        return
    rows = [line.split() for line in labels.splitlines()]
    if any(set(row[1:]) - set(LABELS) for row in rows) and not any("labels" in file for file, _ in mutant.changes):
        raise Wrong(f"labels {labels!r}")
    if mutant.cut and labels != "a\nb Speech Speech\nc Cough\n":
        raise Wrong(f"cut off, and taken for {labels!r}")


# --- submissions ------------------------------------------------------------------------------------------------------


def _run_submission(mutant: Mutant) -> Any:
    from s5.bin import check_submission

    options = ["--soundscapes", "soundscapes", "--sampling_rate", str(RATE), "--most", "1000"]
    check_submission.main([f"{SUBMISSION}.zip", *options])
    return _submitted(f"{SUBMISSION}.zip")


COUNTS = ("acc", "tp", "fp", "fn")


def _submitted(path: str | Path) -> Any:
    """What counts of a submission: its sources, their labels, and its figures."""
    with zipfile.ZipFile(path) as archive:
        files = {
            info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist() if not info.is_dir()
        }
    evaluation, test = (json.loads(files.pop(f"{name}_results.json")) for name in ("eval", "dev_set_test"))
    audio = {name: _samples(content) for name, content in files.items()}
    # Probabilities, a figure that a mean does not tell from another, sizes and configurations are the authors' own.
    listed = {
        entry["soundscape"]: [(estimate["filename"], estimate["label"]) for estimate in entry["estimate"]]
        for entry in evaluation["probabilities"]
    }
    rows = {
        row["soundscape"]: (
            sorted(row["ref_labels"]), sorted(row["est_labels"]), len(row["probabilities"]),
            # A further key beside the known ones changes no figure.
            [next(m["value"] for m in row["metrics"] if m["metric"] == "label_metrics")[k] for k in COUNTS],
        )
        for row in test["details"]
    }  # fmt: skip
    return audio, listed, rows, {key: round(test["label_metrics"][key], 1) for key in ("accuracy_mix", "accuracy_src")}


def _samples(content: bytes) -> bytes:
    samples, _ = soundfile.read(io.BytesIO(content), dtype="int16")
    return samples.tobytes()


def _judge_submission(mutant: Mutant, found: Any) -> None:
    expected = _submitted(mutant.original / f"{SUBMISSION}.zip")
    done = "; ".join(done for _, done in mutant.changes)
    for name, ours, theirs in zip(("sources", "list", "details", "figures"), found, expected, strict=True):
        if name == "sources" and ".wav: " in done:  # other sound, in a file that is sound
            if {k: len(v) for k, v in ours.items()} != {k: len(v) for k, v in theirs.items()}:
                raise Wrong("sources of other lengths")
            continue
        if ours != theirs:
            raise Wrong(f"another {name}, and nothing said")


# --- downloads --------------------------------------------------------------------------------------------------------


def _run_download(mutant: Mutant) -> Any:
    from s5.bin import verify
    from s5.challenge.corpus.archives import unpack

    name = mutant.file
    if name.startswith("a."):
        unpack(name, "out", nj=1)
        return Path("out")
    Path("raw").mkdir()
    verify.main(["--config", "data.yaml", "--raw", "raw", "--archives", "x", "--data", "data", "--on_missing", "stop"])
    return None


def _judge_download(mutant: Mutant, out: Path | None) -> None:
    if out is None or not mutant.file.endswith((".zip", ".gz", ".xz", ".bz2")) or mutant.remade:
        return
    for file in sorted(out.rglob("*.wav")):
        expected = mutant.original / "content" / file.relative_to(out)
        if file.is_file() and expected.is_file() and file.read_bytes() != expected.read_bytes():
            raise Wrong(f"another {file.name}")
    if mutant.cut and len(list(out.rglob("*.wav"))) != 3:
        raise Wrong("cut off, and taken for a smaller one")


# --- trainings --------------------------------------------------------------------------------------------------------


def _run_training(mutant: Mutant) -> Any:
    from s5.tasks.launch import train

    for model, task in (("tagger", "tagging"), ("separator", "separation")):
        if mutant.file.startswith((model, "train", "valid")):
            train(task, f"{model}.yaml", "train", "valid", "out", 0, ["--dry_run", "true"])
            return None
    return None


def _judge_set_if_any(mutant: Mutant, data: Any) -> None:
    if data is not None:
        _judge_set(mutant, data)


_RESULTS = (
    "out/posteriors/*",
    "out/posteriors/*",
    "out/separated/*/*",
    "out/labels",
    "out/probabilities",
    "system.yaml",
)
_ESTIMATES = ("estimates/*.wav", "estimates/*.wav", "challenge/*/*.wav", "probabilities")

KINDS: dict[str, Kind] = {
    "audio": Kind(("*",), _run_audio, _judge_audio, 5),
    "sofa": Kind(("*.sofa",), _run_sofa, _judge_set_if_any, 3, ("raw",), _mutate_sofa),
    "scene": Kind(("*.json", "*.yaml", "2026.json", "2025.json"), _run_scene, _judge_set_if_any, 4, ("raw",)),
    "system": Kind(("*.yaml", "exp/*/config.yaml", "scores.json"), _run_system, share=3),
    "archive": Kind(("tiny.s5",), _run_archive, _judge_archive, 3, (), _mutate_archive),
    "checkpoint": Kind(_CHECKPOINTS, _run_checkpoint, _judge_checkpoint, 3, (), _mutate_checkpoint),
    "datadir": Kind(("data/*", "data/*", "data/*", "*.wav"), _run_datadir, _judge_datadir, 2),
    "labels": Kind(("labels.txt",), _run_labels, _judge_labels, 1),
    "results": Kind(_RESULTS, _run_results, _judge_results, 4, (), _mutate_results),
    "submission": Kind(("*.zip",), _run_submission, _judge_submission, 4, ("soundscapes",)),
    "estimates": Kind(_ESTIMATES, _run_estimates, share=2, mutate=_mutate_estimates, left=("scores.json",)),
    "download": Kind(("a.*", "a.*", "a.*", "data.yaml", "data/dev_set/files.json"), _run_download, _judge_download, 2),
    "training": Kind(("*.yaml", "train/sampler.yaml"), _run_training, share=1, links=("raw",)),
}
