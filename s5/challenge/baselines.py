"""Converts published checkpoints of the challenge's baselines into experiment folders, which systems then name.

conf/official.yaml lists the checkpoints, their addresses and their networks.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

import yaml

from s5.challenge.corpus.download import PATIENT, File, Patience, download
from s5.labels import DCASE_LABELS
from s5.system.config import WEIGHTS, SystemConfig
from s5.system.sizes import split_size
from s5.utils.config import load_yaml, parse, resolve
from s5.utils.errors import InputError, one_of
from s5.utils.files import atomic_folder
from s5.utils.zips import ZipReader

PUBLISHED = "conf/official.yaml"
SAMPLING_RATE, N_SLOTS = 32000, 3
"""Sampling rate in Hz, and number of slots K, of all published models."""


@dataclass
class PublishedFile:
    """A zip file with checkpoints."""

    url: str
    mirrors: list[str] = field(default_factory=list)
    """Addresses that are tried in turn if the first one fails."""
    size: int | None = None
    """Published size in bytes."""
    checksum: str | None = None
    """Published checksum, ``md5:...`` or ``sha256:...``."""


@dataclass
class PublishedModel:
    """A checkpoint in a published file, and the network of this package that it fits."""

    file: str
    member: str
    """File name in the zip, without its folder."""
    kind: Literal["tagger", "separator"]
    network: str
    network_conf: dict[str, Any] = field(default_factory=dict)


@dataclass
class Published:
    """The content of conf/official.yaml."""

    files: dict[str, PublishedFile]
    models: dict[str, PublishedModel]

    @classmethod
    def load(cls, path: str | Path = PUBLISHED) -> Published:
        """Reads and checks the file. Raises InputError naming the key."""
        published: Published = parse(cls, load_yaml(path), path)
        for name, model in published.models.items():
            if model.file not in published.files:
                raise InputError(f"{path}: key models.{name}.file", model.file, one_of(published.files, model.file))
        return published


def download_models(
    system: str | Path,
    expdir: str | Path = "exp",
    downloads: str | Path = "data/downloads",
    file: str | Path | None = None,
    mirrors: tuple[str, ...] = (),
    published: str | Path = PUBLISHED,
    patience: Patience = PATIENT,
) -> list[Path]:
    """Makes experiment folders of the published models that a system names; existing ones are kept.

    Args:
        system: the system's YAML, or its name below conf/systems, e.g. ``official_2026_1c``.
        expdir: folder of the experiments.
        downloads: folder for the published files; an interrupted download is resumed there.
        file: the published file, if it is on this machine already; then nothing is downloaded.
        mirrors: addresses of the file to try first.
        published: YAML file that lists the published files and models.
        patience: limits of a download.

    Returns:
        The experiment folders.

    Raises:
        InputError: the system has no published models, the download fails, or size, checksum or content are wrong.
    """
    table = Published.load(published)
    config = SystemConfig.load(system_path(system))
    named = [model.experiment for _, model in config.all_models()]
    wanted = {name: table.models[name] for name in named if name in table.models}
    if not wanted:
        raise InputError(f"{system}: experiments", "no published model", one_of(table.models))
    folders = []
    for name, model in wanted.items():
        folder = Path(expdir) / str(name)
        folders.append(folder)
        if _is_complete(folder, model):
            logging.info("%s: kept, it is complete", folder)
            continue
        source = table.files[model.file]
        urls = (*mirrors, source.url, *source.mirrors)
        wanted_file = File(f"{model.file}.zip", urls, source.size, source.checksum)
        zipped = Path(file) if file else download([wanted_file], downloads, patience=patience)[0]
        _convert(folder, model, zipped, source.url)
        logging.info("%s: made from %s of %s", folder, model.member, source.url)
    return folders


def system_path(system: str | Path) -> Path:
    """Path of a system's YAML. The system is named by that path or by its name below conf/systems."""
    path = resolve(split_size(system)[0])
    return path if path.suffix == ".yaml" else resolve(f"conf/systems/{system}.yaml")


def _config(model: PublishedModel) -> dict[str, Any]:
    """Content of the experiment folder's config.yaml."""
    return {
        "published": {"file": model.file, "member": model.member},
        "labels": list(DCASE_LABELS),
        "n_slots": N_SLOTS,
        "sampling_rate": SAMPLING_RATE,
        "network": model.network,
        "network_conf": model.network_conf,
    }


def _is_complete(folder: Path, model: PublishedModel) -> bool:
    """Whether the folder holds the whole model. Raises InputError if it holds another experiment."""
    if not folder.exists():
        return False
    config = folder / "config.yaml"
    if not config.is_file() or "published" not in load_yaml(config):
        raise InputError(folder, "another experiment", "no folder of this name (choose another --expdir)")
    return load_yaml(config) == _config(model) and (folder / WEIGHTS).is_file() and (folder / ".done").is_file()


def _convert(folder: Path, model: PublishedModel, zipped: Path, url: str) -> None:
    """Makes an experiment folder of a checkpoint in a zip; an error leaves no folder."""
    from safetensors.torch import save_file

    with atomic_folder(folder) as partial:
        checkpoint = partial / Path(model.member).name
        digest = _extract(zipped, model.member, checkpoint)
        network = _converted(model, checkpoint, zipped)
        checkpoint.unlink()
        tensors = {key: value.clone().contiguous() for key, value in network.state_dict().items()}
        save_file(tensors, partial / WEIGHTS)
        text = yaml.safe_dump(_config(model), sort_keys=False)
        (partial / "config.yaml").write_text(f"# {model.member} of {url}\n{text}", encoding="utf-8")
        # The marker of a finished training, as run.sh writes it. Later stages are run again if it changes.
        (partial / ".done").write_text(f"{digest}  {model.member}\n", encoding="utf-8")
        if folder.exists():  # an older or incomplete version; weights are never removed
            folder.rename(_free_name(folder))


def _free_name(folder: Path) -> Path:
    """The folder's name with the time, as run.sh names the models that it puts aside."""
    base = f"{folder.name}.{datetime.now():%Y%m%d-%H%M%S}"
    names = chain([base], (f"{base}-{n}" for n in count(2)))
    return next(path for path in map(folder.with_name, names) if not path.exists())


def _extract(zipped: Path, member: str, path: Path) -> str:
    """Writes one file of a zip, which may be in any folder there, and returns its SHA-256."""
    digest = hashlib.sha256()
    with ZipReader(zipped, "the published zip file (delete it to fetch it again)") as archive:
        found = [info for info in archive.infos if info.filename.rpartition("/")[2] == member]
        if len(found) != 1:
            there = ", ".join(sorted(info.filename for info in archive.infos)[:5]) or "nothing"
            raise InputError(zipped, f"{len(found)} files {member} (but {there})", "one file of this name")
        with path.open("wb") as target:
            for block in archive.blocks(found[0]):
                digest.update(block)
                target.write(block)
    return digest.hexdigest()


def _build(model: PublishedModel) -> Any:
    """The network with random weights."""
    from s5.system.kinds import networks
    from s5.system.model import build_network

    table = networks(model.kind)
    if model.network not in table:
        raise InputError(f"{PUBLISHED}: network", model.network, one_of(table, model.network))
    where = f"{PUBLISHED}: network_conf"
    return build_network(table[model.network], model.network_conf, where, len(DCASE_LABELS), N_SLOTS)


def _converted(model: PublishedModel, checkpoint: Path, zipped: Path) -> Any:
    """The network with a checkpoint's weights.

    The checkpoint may hold tensors only, and needs every key of the network in its shape.
    """
    from s5.checkpoints import load_official, read_tensors

    try:
        tensors = read_tensors(checkpoint)
        network = _build(model)
        load_official(network, tensors)
        return network
    except InputError as e:
        raise InputError(zipped, f"a checkpoint that does not fit ({e})", "the published checkpoint") from None
