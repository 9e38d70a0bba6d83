"""Configuration of a system: its taggers and separators, how each is trained, and how their outputs are fused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s5.fusion import (
    FusionConfig,
    GateConfig,
    RefineConfig,
    VoteConfig,
    check_weights,
)
from s5.system.decode import Precision
from s5.utils.config import load_inherited, parse
from s5.utils.errors import InputError, one_of

WEIGHTS = "weights.safetensors"
"""File of the weights in the folder of a model from elsewhere: of an archive, or a published one."""


ARCHIVE_SUFFIX = ".s5"
"""Of model archives."""


@dataclass
class ModelConfig:
    """One tagger or separator of a system. What the key ``models`` says of it by its name need not stand here."""

    name: str = ""
    """Its name in the system: in weights, posteriors and separated sources."""
    train: str = ""
    """Training YAML. Left out with a name under ``experiment``: that folder holds a model from elsewhere, of an archive
    or a published one, and nothing is trained."""
    finetune: str | list[str] | None = None
    """YAML of a second training that starts from the first one's best checkpoint, in ``exp/<name>_ft``; or several,
    each of which starts from the best checkpoint of the one before, in ``exp/<name>_ft``, ``exp/<name>_ft2`` etc."""
    experiment: str | None = None
    """Name of its experiment folder below ``exp/``; by default its own."""
    weight: float = 1.0
    """Of a tagger in the vote (alpha of Eq. (1), Deng et al.)."""
    checkpoint: str | None = None
    """File in the experiment folder; by default the average or the best by the training's own criterion."""

    def phases(self) -> dict[str, str]:
        """Training YAML of each phase that there is, in order: ``train``, ``finetune``, ``finetune2`` and so on."""
        more = [self.finetune] if isinstance(self.finetune, str) else self.finetune or []
        names = ["finetune", *(f"finetune{i}" for i in range(2, len(more) + 1))]
        return ({"train": self.train} if self.train else {}) | dict(zip(names, more, strict=False))

    def folder(self, phase: str | None = None) -> str:
        """Name of the experiment folder of a phase; by default of the last one, which the system decodes with."""
        last = phase or next(reversed(self.phases()), "train")
        base = self.experiment or self.name
        return base if last == "train" else f"{base}_ft{last.removeprefix('finetune')}"

    def phase_before(self, phase: str) -> str | None:
        """The phase whose best checkpoint a phase starts from; None for the first."""
        names = list(self.phases())
        return names[names.index(phase) - 1] if phase != names[0] else None


@dataclass
class SystemConfig:
    """The content of a system's YAML; docs/systems.md shows all keys."""

    taggers: list[ModelConfig]
    separators: list[ModelConfig]
    vote: VoteConfig = field(default_factory=VoteConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    gate: GateConfig | None = None
    """Silences slots after separation; by default the vote alone says what is silent."""
    refine: RefineConfig | None = None
    """Tags the separated sources again; by default not."""
    precision: Precision = "fp32"
    """What the networks compute in, unless conf/decode.yaml or an option says otherwise: ``fp32`` or ``bf16``."""

    @classmethod
    def load(cls, path: str | Path) -> SystemConfig:
        """Reads and checks a system's YAML. Raises InputError naming the file and the key.

        ``inherit`` takes over other files' keys. ``models`` says by name what the entries of ``taggers`` and
        ``separators`` do not say themselves, so that a file that inherits can exchange the models alone.
        """
        config: SystemConfig = parse(cls, system_keys(path), path)
        config.check(path)
        return config

    def check(self, where: object) -> None:
        """Refuses what does not fit together: names that are missing, stand twice or are not known."""
        names = [m.name for m in [*self.taggers, *self.separators]]
        for key, models in (("taggers", self.taggers), ("separators", self.separators)):
            if not models:
                raise InputError(f"{where}: key {key}", "an empty list", "at least one model")
            for i, model in enumerate(models):
                ready = bool(model.experiment and not model.finetune)
                for part in ("name",) if ready else ("name", "train"):
                    if not getattr(model, part):
                        raise InputError(f"{where}: key {key}.{i}.{part}", "nothing", "a value, here or under models")
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"{where}: key name", f"{name} twice", "another name for each model")
        taggers, separators = [m.name for m in self.taggers], [m.name for m in self.separators]
        _check_names(self.vote.weights, taggers, f"{where}: key vote: weights", "tagger")
        check_weights(self.weights(), f"{where}: weights of the taggers")
        _check_names(self.fusion.sharpen, separators, f"{where}: key fusion: sharpen", "separator")
        for rule, weights in {"default": self.fusion.default or {}, **self.fusion.rules()}.items():
            _check_names(weights, separators, f"{where}: key fusion: {rule}", "separator")
        if self.gate is not None and self.gate.taggers is not None:
            _check_names(self.gate.taggers, taggers, f"{where}: key gate: taggers", "tagger")

    def models(self, kind: str) -> list[ModelConfig]:
        """The taggers or the separators."""
        return self.taggers if kind == "tagger" else self.separators

    def find(self, name: str) -> tuple[str, ModelConfig]:
        """Kind and configuration of a model by its name or its experiment's; of several, the one trained furthest."""
        found = [
            (kind, model)
            for kind in ("tagger", "separator")
            for model in self.models(kind)
            if name in (model.name, model.experiment)
        ]
        if not found:
            raise InputError("model", name, one_of([m.name for m in [*self.taggers, *self.separators]], name))
        return max(found, key=lambda entry: len(entry[1].phases()))

    def weights(self) -> dict[str, float]:
        """Weight of each tagger in the vote."""
        return {m.name: self.vote.weights.get(m.name, m.weight) for m in self.taggers}


def today(keys: dict[str, Any]) -> dict[str, Any]:
    """Keys of a system as they are called today: ``bf16: true`` of older ones is ``precision: bf16``."""
    if not isinstance(keys.get("bf16"), bool):
        return keys
    return {k: v for k, v in keys.items() if k != "bf16"} | {"precision": "bf16" if keys["bf16"] else "fp32"}


def system_keys(path: str | Path) -> dict[str, Any]:
    """The keys of a system with all that it inherits; what ``models`` says of an entry stands in the entry."""
    data = today(load_inherited(path))
    known = data.pop("models", {})
    parse(dict[str, ModelConfig], known, f"{path}: models")
    for kind in ("taggers", "separators"):
        if isinstance(data.get(kind), list):
            data[kind] = [_filled(entry, known) for entry in data[kind]]
    return data


def _filled(entry: Any, known: Mapping[str, Any]) -> Any:
    """An entry of ``taggers`` or ``separators`` over what ``models`` says; a name alone stands for an entry."""
    if isinstance(entry, str):
        entry = {"name": entry}
    return {**known.get(str(entry.get("name")), {}), **entry} if isinstance(entry, dict) else entry


def _check_names(given: Iterable[str], known: Sequence[str], where: str, kind: str) -> None:
    for name in given:
        if name not in known:
            raise InputError(where, f"{kind} {name}", one_of(known, name))


def system_name(path: str | Path) -> str:
    """Name of a system, which its results folder has: of its YAML below a folder ``systems``, else of the file.

    Example:
        >>> [system_name(path) for path in ("conf/systems/mini.yaml", "conf/systems/deng2026/final.yaml", "a/own.yaml")]
        ['mini', 'deng2026_final', 'own']
    """
    parts = Path(path).with_suffix("").parts
    if "systems" in parts:
        last = len(parts) - 1 - parts[::-1].index("systems")
        return "_".join(parts[last + 1 :])
    return parts[-1]
