"""Published checkpoints of the challenge's baselines as experiment folders that systems name.

conf/official.yaml says where they are and of which networks they are the weights.
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
"""Of all of them, in Hz, and K."""


@dataclass
class PublishedFile:
    """A zip file with checkpoints."""

    url: str
    mirrors: list[str] = field(default_factory=list)
    """Tried in turn if the first address fails."""
    size: int | None = None
    """In bytes, where it is published."""
    checksum: str | None = None
    """``md5:...`` or ``sha256:...``, where it is published."""


@dataclass
class PublishedModel:
    """A checkpoint in such a file, and the network of ours that it is the weights of."""

    file: str
    member: str
    """Its name in the zip, in whatever folder."""
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
        """Reads and checks it. Raises InputError naming the key."""
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
    """Lays down the published models that a system names: fetches, verifies and converts what is not there yet.

    Args:
        system: the system's YAML, or its name below conf/systems, e.g. ``official_2026_1c``.
        expdir: folder of the experiments.
        downloads: folder for the published files; an interrupted download goes on there.
        file: the published file where it is on this machine already; nothing is fetched then.
        mirrors: addresses of the file to try first.
        published: what there is and where.
        patience: when to give up fetching.

    Returns:
        The experiment folders.

    Raises:
        InputError: a system without published models, no connection, a file of another size, checksum or content.
    """
    table = Published.load(published)
    config = SystemConfig.load(system_path(system))
    named = [model.experiment for model in (*config.taggers, *config.separators)]
    wanted = {name: table.models[name] for name in named if name in table.models}
    if not wanted:
        raise InputError(f"{system}: experiments", "none that is published", one_of(table.models))
    folders = []
    for name, model in wanted.items():
        folder = Path(expdir) / str(name)
        folders.append(folder)
        if _is_laid_down(folder, model):
            logging.info("%s: there already", folder)
            continue
        source = table.files[model.file]
        urls = (*mirrors, source.url, *source.mirrors)
        wanted_file = File(f"{model.file}.zip", urls, source.size, source.checksum)
        zipped = Path(file) if file else download([wanted_file], downloads, patience=patience)[0]
        _lay_down(folder, model, zipped, source.url)
        logging.info("%s: %s of %s", folder, model.member, source.url)
    return folders


def system_path(system: str | Path) -> Path:
    """The YAML of a system given by its path or its name below conf/systems."""
    path = resolve(split_size(system)[0])
    return path if path.suffix == ".yaml" else resolve(f"conf/systems/{system}.yaml")


def _config(model: PublishedModel) -> dict[str, Any]:
    """config.yaml of the experiment folder."""
    return {
        "published": {"file": model.file, "member": model.member},
        "labels": list(DCASE_LABELS),
        "n_slots": N_SLOTS,
        "sampling_rate": SAMPLING_RATE,
        "network": model.network,
        "network_conf": model.network_conf,
    }


def _is_laid_down(folder: Path, model: PublishedModel) -> bool:
    """Whether the folder holds the model. Raises InputError where it holds something else."""
    if not folder.exists():
        return False
    config = folder / "config.yaml"
    if not config.is_file() or "published" not in load_yaml(config):
        raise InputError(folder, "another experiment", "none of this name (another --expdir)")
    return load_yaml(config) == _config(model) and (folder / WEIGHTS).is_file() and (folder / ".done").is_file()


def _lay_down(folder: Path, model: PublishedModel, zipped: Path, url: str) -> None:
    """Makes an experiment folder of a checkpoint in a zip, whole or not at all."""
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
        # The marker of a finished training, as run.sh writes it: what depends on it is done again if it changes.
        (partial / ".done").write_text(f"{digest}  {model.member}\n", encoding="utf-8")
        if folder.exists():  # an older version of the same, or a part of it: weights are never removed
            folder.rename(_free_name(folder))


def _free_name(folder: Path) -> Path:
    """The folder's name with the time, as run.sh gives it to what it puts aside."""
    base = f"{folder.name}.{datetime.now():%Y%m%d-%H%M%S}"
    names = chain([base], (f"{base}-{n}" for n in count(2)))
    return next(path for path in map(folder.with_name, names) if not path.exists())


def _extract(zipped: Path, member: str, path: Path) -> str:
    """Writes one file of a zip, found by its name in whatever folder; its SHA-256."""
    digest = hashlib.sha256()
    with ZipReader(zipped, "the published zip file (delete it to fetch it again)") as archive:
        found = [info for info in archive.infos if info.filename.rpartition("/")[2] == member]
        if len(found) != 1:
            there = ", ".join(sorted(info.filename for info in archive.infos)[:5]) or "nothing"
            raise InputError(zipped, f"{len(found)} files {member} (but {there})", "one")
        with path.open("wb") as target:
            for block in archive.blocks(found[0]):
                digest.update(block)
                target.write(block)
    return digest.hexdigest()


def _build(model: PublishedModel) -> Any:
    """The network, of random weights."""
    from s5.separation import SEPARATORS
    from s5.system.model import build_network
    from s5.tagging import TAGGERS

    table: dict[str, Any] = dict(TAGGERS if model.kind == "tagger" else SEPARATORS)
    if model.network not in table:
        raise InputError(f"{PUBLISHED}: network", model.network, one_of(table, model.network))
    where = f"{PUBLISHED}: network_conf"
    return build_network(table[model.network], model.network_conf, where, len(DCASE_LABELS), N_SLOTS)


def _converted(model: PublishedModel, checkpoint: Path, zipped: Path) -> Any:
    """The network with a checkpoint's weights: tensors only, every key that the network has, of its shape."""
    from s5.checkpoints import load_official, read_tensors

    try:
        tensors = read_tensors(checkpoint)
        network = _build(model)
        load_official(network, tensors)
        return network
    except InputError as e:
        raise InputError(zipped, f"a checkpoint that does not fit ({e})", "the published one") from None
