"""Packs a trained system into one file, a model archive, and reads such archives.

An archive is a zip file, nothing compressed:

    archive.yaml                       format, name, SHA-256 of every other file
    system.yaml                        the system, with nothing inherited
    labels.txt                         the label set, one label per line
    scores.json                        figures by test set; optional
    README.md, LICENSE
    models/<name>/config.yaml          network, labels, K and sampling rate
    models/<name>/weights.safetensors

Reading an archive runs no code from it: weights are safetensors, YAML is parsed strictly, and no other file is written.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import re
import stat
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from s5.system.config import WEIGHTS, SystemConfig, system_name
from s5.system.kinds import KEYS, KINDS
from s5.system.sizes import today
from s5.utils.config import IN_REPOSITORY, ROOT, load_yaml, parse, read_yaml
from s5.utils.errors import InputError
from s5.utils.files import write_bytes
from s5.utils.text import parse_json, parse_text, read_json
from s5.utils.zips import ZipReader

if TYPE_CHECKING:
    from s5.system.model import TrainedModel

FORMAT = 1
FILE_ON_HUB = "system.s5"
"""Name of the archive in a repository on the hub."""
MODEL_KEYS = ("labels", "n_slots", "sampling_rate", "network", "network_conf")
"""Keys of an experiment's configuration that define its model; the others describe its training."""
IN_CARD = ("CAPI-SDRi", "accuracy_mix", "accuracy_src")
"""Metrics that an archive's README shows."""
_TEXTS = ("system.yaml", "labels.txt", "scores.json", "README.md", "LICENSE")
_NAME = re.compile(rf"(?:{'|'.join(map(re.escape, _TEXTS))}|models/[A-Za-z0-9][\w.-]*/(?:config\.yaml|{WEIGHTS}))")


@dataclasses.dataclass
class Manifest:
    """The content of ``archive.yaml``."""

    format: int
    name: str
    files: dict[str, str]
    """SHA-256 by file name."""
    note: str = ""
    """How the system was trained."""


@dataclasses.dataclass
class Figures:
    """Figures of one test set in ``scores.json``."""

    metrics: dict[str, float | None]
    counts: dict[str, int]
    by_class: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for part, keys in (("metrics", IN_CARD), ("counts", ("mixtures",))):
            for key in keys:
                if key not in getattr(self, part):
                    raise InputError(f"key {part}", f"no {key}", "it")


@dataclasses.dataclass(frozen=True)
class Description:
    """Name, note, size and figures of an archive.

    Attributes:
        name: name of the system.
        note: how the system was trained.
        size: bytes of the file.
        figures: metrics and counts by test set, as in its ``scores.json``.
    """

    name: str
    note: str
    size: int
    figures: dict[str, Any]


def pack(
    system: str | Path,
    expdir: str | Path,
    out: str | Path,
    scores: Sequence[str | Path] = (),
    licence: str | Path | None = None,
    licence_name: str = "apache-2.0",
    note: str = "",
    half: bool = False,
) -> Path:
    """Writes a trained system as one file. Equal inputs make equal bytes.

    Args:
        system: the system's YAML.
        expdir: folder of its experiments.
        out: the archive to write, e.g. ``mini.s5``.
        scores: ``scores.json`` files of stage 11; the archive holds their totals, not their mixtures.
        licence: file of the weights' licence; by default the repository's. An installed package has no default.
        licence_name: name of the licence on the hub.
        note: paragraph of the archive's README on how the system was trained.
        half: store weights as 16-bit floating point: half the size, slightly different outputs.

    Raises:
        InputError: a model is not trained, or its files are damaged.
    """
    from s5.system.model import load_model

    if not licence and not IN_REPOSITORY:
        raise InputError("licence", "none, and no repository to take it from", "a file, the licence of the weights")
    config = SystemConfig.load(system)
    name = system_name(system)
    files: dict[str, bytes] = {}
    channels = 0
    for kind, model in config.all_models():
        if not _NAME.fullmatch(f"models/{model.name}/config.yaml"):
            raise InputError(f"{system}: model {model.name!r}", "a name that is no folder's", "letters and digits")
        loaded = load_model(Path(expdir) / model.folder(), model.checkpoint, kind)
        channels = max(channels, loaded.n_channels)
        first = _model_config(Path(loaded.name))
        files[f"models/{model.name}/config.yaml"] = _yaml(first)
        files[f"models/{model.name}/{WEIGHTS}"] = _weights(loaded, half)
    files["system.yaml"] = _yaml(_as_archived(config))
    files["labels.txt"] = "".join(f"{label}\n" for label in first["labels"]).encode()
    figures = _figures(scores)
    if figures:
        files["scores.json"] = (json.dumps(figures, indent=1, allow_nan=False) + "\n").encode()
    files["LICENSE"] = read_bytes(Path(licence) if licence else ROOT / "LICENSE")
    files["README.md"] = _card(name, first, channels, figures, licence_name, note).encode()
    sums = {path: hashlib.sha256(content).hexdigest() for path, content in sorted(files.items())}
    manifest = _yaml(dataclasses.asdict(Manifest(FORMAT, name, sums, note.strip())))
    _write_zip(Path(out), {"archive.yaml": manifest, **dict(sorted(files.items()))})
    return Path(out)


def unpack(archive: str | Path, folder: str | Path) -> Path:
    """Checks an archive and unpacks all of its files into a folder, or none of them.

    Args:
        archive: the file.
        folder: the folder to create. A folder that already holds this archive's content is left as it is.

    Returns:
        The folder.

    Raises:
        InputError: no archive, a damaged one, one with files that no archive has (another path, a link), or a folder
            with other content.
    """
    archive, folder = Path(archive), Path(folder)
    contents = read_zip(archive)
    if folder.exists():
        if _manifest_bytes(folder) == contents["archive.yaml"]:
            return folder
        raise InputError(folder, "a folder", "none of this name, to unpack into")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=f".{folder.name}.", ignore_cleanup_errors=True
    ) as temporary:
        partial = Path(temporary, "content")
        try:
            for name, content in contents.items():
                path = partial / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            check_folder(partial)
            os.replace(partial, folder)
        except InputError as e:
            raise InputError(archive, "a bad archive", f"a sound one: {str(e).replace(f'{partial}/', '')}") from None
        except OSError:
            # Another process has unpacked the same archive meanwhile.
            if _manifest_bytes(folder) != contents["archive.yaml"]:
                raise
    return folder


def describe(archive: str | Path) -> Description:
    """Describes an archive without unpacking it. Raises InputError for a file that is no archive."""
    contents = read_zip(Path(archive))
    manifest = _manifest(contents["archive.yaml"], f"{archive}: archive.yaml")
    figures = parse_json(contents.get("scores.json", b"{}"), f"{archive}: scores.json", "figures of test sets")
    sets: dict[str, Figures] = parse(dict[str, Figures], figures, f"{archive}: scores.json")
    parts = {name: {"metrics": found.metrics, "counts": found.counts} for name, found in sets.items()}
    return Description(manifest.name, manifest.note, Path(archive).stat().st_size, parts)


def check_folder(folder: str | Path) -> SystemConfig:
    """Checks all files of an unpacked archive against its manifest, and returns its system.

    Raises:
        InputError: a file is missing, changed or does not belong to an archive; a system names files outside.
    """
    folder = Path(folder)
    manifest = _manifest(read_bytes(folder / "archive.yaml"), folder / "archive.yaml")
    for name, expected in manifest.files.items():
        if not _NAME.fullmatch(name):
            raise InputError(folder / "archive.yaml", f"file {name}", "those of an archive")
        if hashlib.sha256(read_bytes(folder / name)).hexdigest() != expected:
            raise InputError(folder / name, "another content", "the content whose SHA-256 is in archive.yaml")
    where = folder / "system.yaml"
    config = read_system(folder)
    for _, model in config.all_models():
        named = f"models/{model.experiment}/{WEIGHTS}"
        if model.train or model.checkpoint or named not in manifest.files:
            raise InputError(f"{where}: model {model.name}", f"experiment {model.experiment}", "one of the archive")
    return config


def read_system(folder: str | Path) -> SystemConfig:
    """The system of an unpacked archive. Raises InputError as :meth:`SystemConfig.load`."""
    where = Path(folder, "system.yaml")
    return _system_of(load_yaml(where), where)


def archived_system(archive: str | Path) -> SystemConfig:
    """The system of an archive without its models. Raises InputError for a file that is no archive."""
    with ZipReader(archive, "a model archive") as files:
        for info in files.infos:
            if info.filename == "system.yaml":
                where = f"{archive}: system.yaml"
                return _system_of(read_yaml(parse_text(files.read(info), where, "YAML"), where), where)
    raise InputError(archive, "no system.yaml", "a model archive")


def _system_of(data: Any, where: object) -> SystemConfig:
    data = today(data)
    if "inherit" in data:
        raise InputError(f"{where}: key inherit", "a reference", "a system without it")
    for key in KEYS:
        if key in data:
            data[key] = _by_name(data[key])
    return SystemConfig.from_keys(data, where)


def _by_name(entries: Any) -> Any:
    """Models as a mapping by name. Archives from before November 2026 list entries with names."""
    named = isinstance(entries, list) and all(isinstance(entry, dict) and "name" in entry for entry in entries)
    if not named or len({str(entry["name"]) for entry in entries}) < len(entries):
        return entries
    return {entry["name"]: {key: value for key, value in entry.items() if key != "name"} for entry in entries}


def _weights(model: TrainedModel, half: bool) -> bytes:
    """A model's weights as safetensors; tensors with values too large for 16 bits stay in float32."""
    import torch
    from safetensors.torch import save

    tensors = {}
    for key, value in model.network.state_dict().items():
        small = half and value.dtype == torch.float32 and bool(torch.isfinite(value.half()).all())
        tensors[key] = (value.half() if small else value.clone()).contiguous()
    return save(tensors)


def _model_config(folder: Path) -> dict[str, Any]:
    """The keys of an experiment's configuration that define its model."""
    from s5.system.trained import read_config

    kept = {key: value for key, value in dataclasses.asdict(read_config(folder)).items() if key in MODEL_KEYS}
    encoder = kept["network_conf"].get("encoder") or {}
    if encoder.get("weights"):  # its name holds sizes; the path on this machine stays private
        encoder["weights"] = str(Path(*Path(encoder["weights"]).parts[-2:]))
    return kept


def _as_archived(config: SystemConfig) -> dict[str, Any]:
    """The system as plain data whose models are those of the archive."""
    data = dataclasses.asdict(config)
    for name, kind in KINDS.items():
        data[kind.key] = {
            m.name: {"experiment": m.name, "weight": m.weight, **({"frames": m.frames} if m.frames else {})}
            for m in config.models(name)
        }
    new = () if config.kind == "objects" else ("kind", "objects")  # older versions know no such keys
    return {key: value for key, value in data.items() if key not in new and (value or key not in KEYS)}


def _figures(files: Sequence[str | Path]) -> dict[str, Any]:
    """Totals of scores.json files by test set, ``<set> (oracle labels)`` for given labels."""
    figures = {}
    for file in files:
        scores = read_json(file, "scores that stage 11 writes")
        try:
            name = str(scores["set"]) + (" (oracle labels)" if scores["oracle_labels"] else "")
            found = {key: scores[key] for key in ("metrics", "counts", "by_class")}
        except (KeyError, TypeError) as e:
            raise InputError(file, f"no scores ({e})", "scores that stage 11 writes") from None
        figures[name] = dataclasses.asdict(parse(Figures, found, file))
    return figures


def _card(
    name: str, model: Mapping[str, Any], channels: int, figures: Mapping[str, Any], licence_name: str, note: str
) -> str:
    """README.md of an archive; on the hub it is the model's page."""
    rows = [
        f"| {set_name} | {' | '.join(_cell(f['metrics'][key]) for key in IN_CARD)} | {f['counts']['mixtures']} |"
        for set_name, f in figures.items()
    ]
    head = [
        "| test set | CAPI-SDRi (dB) | mixture accuracy (%) | source accuracy (%) | mixtures |",
        "|---|---|---|---|---|",
    ]
    parts = [
        f"---\nlicense: {licence_name}\ntags: [audio, sound-separation, audio-tagging]\n---",
        f"# {name}",
        "Spatial semantic segmentation of sound scenes: tags a recording and separates its sources, a label each.",
        f"Recordings of {channels} channels, first-order Ambisonics where there are four; the models run at "
        f"{model['sampling_rate']} Hz and find at most {model['n_slots']} sources. Labels: "
        f"{', '.join(model['labels'])}.",
        note.strip(),
        "\n".join(head + rows) if rows else "",
        "```python\nfrom s5 import S5System\n\n"
        f'system = S5System.from_pretrained("{FILE_ON_HUB}")  # this file, or the name of its repository on the hub\n'
        "for source in system(mixture, fs):  # mixture [channels, samples], any sampling rate\n"
        "    print(source.label, source.probability, source.waveform.shape)\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _yaml(data: Any) -> bytes:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode()


def read_bytes(path: Path) -> bytes:
    """Content of a file. Raises InputError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as e:
        raise InputError(path, e.strerror or "no file", "a file") from None


def _manifest_bytes(folder: Path) -> bytes | None:
    file = folder / "archive.yaml"
    return file.read_bytes() if file.is_file() else None


def _write_zip(path: Path, contents: Mapping[str, bytes]) -> None:
    """Writes a zip file that depends on the contents alone."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            info = zipfile.ZipInfo(name)  # the date of all files is 1980-01-01
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, target.getvalue())


def read_zip(path: Path) -> dict[str, bytes]:
    """All files of an archive by name. Nothing in it is compressed, so the content is no larger than the file."""
    contents: dict[str, bytes] = {}
    with ZipReader(path, "a model archive") as archive:
        for info in archive.infos:
            link = stat.S_ISLNK(info.external_attr >> 16)
            if link or not (info.filename == "archive.yaml" or _NAME.fullmatch(info.filename)):
                found = f"{'a link' if link else 'a file'} {info.filename!r}"
                raise InputError(path, found, "the files of a model archive")
            if info.filename in contents or info.compress_type != zipfile.ZIP_STORED:
                how = "twice" if info.filename in contents else "compressed"
                raise InputError(path, f"{info.filename} {how}", "each file once, uncompressed")
            contents[info.filename] = archive.read(info)
    if "archive.yaml" not in contents:
        raise InputError(path, "no archive.yaml", "a model archive")
    named = _manifest(contents["archive.yaml"], f"{path}: archive.yaml").files
    if odd := named.keys() ^ (contents.keys() - {"archive.yaml"}):
        raise InputError(path, f"{min(odd)} in one of archive.yaml and the archive", "in both")
    return contents


def _manifest(content: bytes, where: object) -> Manifest:
    """The content of ``archive.yaml``. Raises InputError for another format."""
    data = read_yaml(parse_text(content, where, "a YAML file"), where)
    if data.get("format") != FORMAT:
        raise InputError(where, f"format {data.get('format')}", FORMAT)
    manifest: Manifest = parse(Manifest, data, where)
    return manifest
