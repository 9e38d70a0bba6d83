"""Reads the YAML of a system: its models, their trainings, and the fusion of their outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal, NamedTuple

from s5.fusion import FusionConfig, GateConfig, ObjectsConfig, RefineConfig, VoteConfig, check_weights
from s5.system.decode import Precision
from s5.system.kinds import KEYS, KINDS
from s5.system.sizes import FULL, split_size, system_keys
from s5.utils.config import parse
from s5.utils.errors import InputError, one_of

WEIGHTS = "weights.safetensors"
"""Weights file in the folder of a model that was not trained here: one of an archive, or a published one."""


SystemKind = Literal["queried", "objects"]

ARCHIVE_SUFFIX = ".s5"
"""File suffix of model archives."""


@dataclass
class ModelConfig:
    """One model of a system."""

    name: str = ""
    """Name in the system, the key of its entry; weights, posteriors and separated sources carry it."""
    train: str = ""
    """Training YAML. Leave it out for a model that is not trained here, and name its folder under ``experiment``."""
    finetune: str | list[str] | None = None
    """YAML of a second training, in ``exp/<name>_ft``, or several YAMLs, in ``exp/<name>_ft``, ``exp/<name>_ft2`` etc.
    Each starts from the best checkpoint of the training before, and inherits the keys that its YAML leaves out."""
    experiment: str | None = None
    """Name of the experiment folder below ``exp/``; by default the model's name."""
    weight: float = 1.0
    """Weight of a tagger in the vote (alpha of Eq. (1), Deng et al.)."""
    checkpoint: str | None = None
    """File in the experiment folder; by default the average, or the best epoch by the training's criterion."""
    estimates: list[str] | dict[str, list[str]] = field(default_factory=list)
    """Models of the system whose outputs it is trained on, in all phases or by phase. They are trained before it."""
    frames: str | None = None
    """Tagger of the system whose frame posteriors a network with ``time_film`` receives, in training and decoding."""

    def phases(self) -> dict[str, str]:
        """Training YAML of each phase, in order: ``train``, ``finetune``, ``finetune2`` and so on."""
        more = [self.finetune] if isinstance(self.finetune, str) else self.finetune or []
        names = ["finetune", *(f"finetune{i}" for i in range(2, len(more) + 1))]
        return ({"train": self.train} if self.train else {}) | dict(zip(names, more, strict=False))

    def files(self, phase: str) -> list[str]:
        """YAMLs of the phases up to this one; later ones override earlier ones."""
        phases = self.phases()
        return list(phases.values())[: list(phases).index(phase) + 1]

    def folder(self, phase: str | None = None) -> str:
        """Name of a phase's experiment folder; by default of the last phase, which the system decodes with."""
        last = phase or next(reversed(self.phases()), "train")
        base = self.experiment or self.name
        return base if last == "train" else f"{base}_ft{last.removeprefix('finetune')}"

    def estimated(self, phase: str) -> list[str]:
        """Models of the system on whose waveforms this phase is trained."""
        return self.estimates.get(phase, []) if isinstance(self.estimates, dict) else self.estimates

    def estimators(self, phase: str) -> list[str]:
        """Models of the system whose outputs this phase is trained on: of ``estimates`` and of ``frames``."""
        return [*self.estimated(phase), *([self.frames] if self.frames else [])]

    def phase_before(self, phase: str) -> str | None:
        """The phase whose best checkpoint this phase starts from; None for the first."""
        names = list(self.phases())
        return names[names.index(phase) - 1] if phase != names[0] else None


class Training(NamedTuple):
    """One training of a system."""

    kind: str
    """Kind of its model, of :data:`s5.system.kinds.KINDS`."""
    model: ModelConfig
    phase: str
    before: str | None
    """Experiment folder of the phase that it starts from."""
    estimators: list[ModelConfig]
    """Models whose outputs it is trained on."""

    @property
    def needs(self) -> list[str]:
        """Experiment folders whose weights it needs."""
        return [*([self.before] if self.before else []), *(model.folder() for model in self.estimators)]


@dataclass
class SystemConfig:
    """The keys of a system's YAML; docs/systems.md explains them."""

    kind: SystemKind = "queried"
    """``queried``: taggers name the sources, separators get the names; ``objects``: docs/objects.md."""
    taggers: list[ModelConfig] = field(default_factory=list)
    separators: list[ModelConfig] = field(default_factory=list)
    uss: list[ModelConfig] = field(default_factory=list)
    """Universal sound separation of an objects system."""
    tse: list[ModelConfig] = field(default_factory=list)
    """Target sound extraction of an objects system."""
    source_taggers: list[ModelConfig] = field(default_factory=list)
    """Taggers of one separated source: of the slots of an objects system, or for ``refine: {tagger: NAME}``."""
    objects: ObjectsConfig = field(default_factory=ObjectsConfig)
    """Loop of an objects system."""
    vote: VoteConfig = field(default_factory=VoteConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    gate: GateConfig | None = None
    """Silences slots after separation; by default the vote alone decides."""
    refine: RefineConfig | None = None
    """Tags the separated sources again; off by default."""
    precision: Precision = "fp32"
    """Precision of the networks, ``fp32`` or ``bf16``; conf/decode.yaml or an option overrides it."""

    @classmethod
    def load(cls, path: str | Path) -> SystemConfig:
        """Reads and checks a system's YAML, ``PATH:SIZE`` at a size. Raises InputError naming the file and the key.

        ``inherit`` adds the keys of other files. ``taggers``, ``separators`` and so on are mappings by name: inherited
        entries and the file's own are merged, and a null removes a model.
        """
        return cls.from_keys(system_keys(path), path)

    @classmethod
    def from_keys(cls, data: Mapping[str, Any], where: object) -> SystemConfig:
        """Builds a system from the keys of its YAML. Raises InputError naming ``where`` and the key."""
        models = {kind: _models(data[kind], f"{where}: key {kind}") for kind in KEYS if kind in data}
        config: SystemConfig = parse(cls, {**data, **models}, where)
        config.check(where)
        return config

    def check(self, where: object) -> None:
        """Refuses names that are missing, used twice or unknown, and trainings in a cycle. Raises InputError."""
        names = [model.name for _, model in self.all_models()]
        for name, facts in KINDS.items():
            if facts.required == self.kind and not self.models(name):
                raise InputError(f"{where}: key {facts.key}", "none", "at least one model")
        self._check_kind(where)
        for kind, model in self.all_models():
            entry = f"{where}: key {KINDS[kind].key}.{model.name}"
            if not model.train and (model.finetune or not model.experiment):
                raise InputError(f"{entry}.train", "nothing", "a training YAML")
            self._check_estimates(kind, model, f"{entry}.estimates")
            if model.frames is not None:
                known = [tagger.name for tagger in self.taggers] if KINDS[kind].takes_frames else []
                _check_names([model.frames], known, f"{entry}.frames", "tagger")
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"{where}: key name", f"{name} twice", "another name for each model")
        taggers, separators = [m.name for m in self.taggers], [m.name for m in self.extractors()]
        _check_names(self.vote.weights, taggers, f"{where}: key vote: weights", "tagger")
        check_weights(self.weights(), f"{where}: weights of the taggers")
        _check_names(self.fusion.sharpen, separators, f"{where}: key fusion: sharpen", "separator")
        for rule, weights in {"default": self.fusion.default or {}, **self.fusion.rules()}.items():
            _check_names(weights, separators, f"{where}: key fusion: {rule}", "separator")
        if self.gate is not None and self.gate.taggers is not None:
            _check_names(self.gate.taggers, taggers, f"{where}: key gate: taggers", "tagger")
        if self.refine is not None and self.refine.tagger is not None:
            known = [m.name for m in self.source_taggers]
            _check_names([self.refine.tagger], known, f"{where}: key refine: tagger", "source tagger")
        self.trainings(where)

    def _check_kind(self, where: object) -> None:
        """Refuses keys that belong to the other kind of systems. Raises InputError."""
        if self.kind == "queried":
            for key, value in {"uss": self.uss, "tse": self.tse, "objects": self.objects != ObjectsConfig()}.items():
                if value:
                    raise InputError(f"{where}: key {key}", "it", "kind: objects, the systems that have this key")
            return
        for key in ("uss", "source_taggers", "tse"):
            if len(getattr(self, key)) > 1:
                raise InputError(f"{where}: key {key}", f"{len(getattr(self, key))} models", "one, with kind: objects")
        if self.refine is not None:
            raise InputError(f"{where}: key refine", "it", "none with kind: objects, whose loop takes its place")
        if self.gate is not None and self.gate.silence is not None:
            raise InputError(f"{where}: key gate: silence", self.gate.silence, "objects: thresholds instead")
        if self.objects.alpha and not self.taggers:
            raise InputError(f"{where}: key objects: alpha", self.objects.alpha, "taggers, whose prior it weighs, or 0")

    def _check_estimates(self, kind: str, model: ModelConfig, where: str) -> None:
        """Refuses estimates for a model that learns from none, of models without waveforms, or of unknown phases."""
        if model.estimates and not KINDS[kind].takes_estimates:
            raise InputError(where, "models", f"none, because a {kind} is not trained on estimates")
        phases = model.phases()
        for phase in model.estimates if isinstance(model.estimates, dict) else ():
            if phase not in phases:
                raise InputError(where, f"phase {phase}", one_of(phases, phase))
        known = [other.name for kind, other in self.all_models() if KINDS[kind].separates]
        for phase in phases:
            _check_names(model.estimated(phase), known, where, "model")
            for name in model.estimated(phase):
                if self.find(name)[1].frames:
                    raise InputError(where, f"model {name}, which needs frames", "models without")

    def models(self, kind: str) -> list[ModelConfig]:
        """Models of a kind of :data:`s5.system.kinds.KINDS`."""
        found: list[ModelConfig] = getattr(self, KINDS[kind].key)
        return found

    def all_models(self) -> list[tuple[str, ModelConfig]]:
        """All models, each with its kind."""
        return [(kind, model) for kind in KINDS for model in self.models(kind)]

    def trainings(self, where: object = "system") -> dict[str, Training]:
        """Trainings by experiment folder, each after those whose weights it needs. Raises InputError for a cycle."""
        found: dict[str, Training] = {}
        by_name = {model.name: model for _, model in self.all_models()}
        for kind, model in self.all_models():
            for phase in model.phases():  # several models of a system may be checkpoints of one training
                before = model.phase_before(phase)
                estimators = [by_name[name] for name in model.estimators(phase)]
                one = Training(kind, model, phase, model.folder(before) if before else None, estimators)
                found.setdefault(model.folder(phase), one)
        try:
            order = [*TopologicalSorter({folder: one.needs for folder, one in found.items()}).static_order()]
        except CycleError as e:
            expected = "models that can be trained one after another"
            raise InputError(f"{where}: key estimates", f"a cycle, {' -> '.join(e.args[1])}", expected) from None
        return {folder: found[folder] for folder in order if folder in found}

    def extractors(self) -> list[ModelConfig]:
        """Models whose waveforms are fused: of an objects system TSE and then its separators."""
        return [*self.tse, *self.separators]

    @property
    def tags(self) -> bool:
        """Whether the mixtures are tagged: always, but in an objects system without a prior."""
        return self.kind == "queried" or self.objects.alpha > 0

    def find(self, name: str) -> tuple[str, ModelConfig]:
        """Kind and configuration of a model by its name or its experiment's; of several, the one with most phases."""
        found = [(kind, model) for kind, model in self.all_models() if name in (model.name, model.experiment)]
        if not found:
            raise InputError("model", name, one_of([model.name for _, model in self.all_models()], name))
        return max(found, key=lambda entry: len(entry[1].phases()))

    def weights(self) -> dict[str, float]:
        """Weight of each tagger in the vote, or in the prior."""
        return {m.name: self.vote.weights.get(m.name, m.weight) for m in self.taggers}


def _models(entries: Any, where: str) -> list[ModelConfig]:
    """The models of a kind, in order."""
    if not isinstance(entries, Mapping):
        raise InputError(where, ascii(entries)[:80], "a mapping by name, e.g. {my_model: {train: YAML}}")
    found = []
    for name, entry in entries.items():
        if not isinstance(name, str) or not name:
            raise InputError(where, ascii(name)[:80], "the name of a model")
        model: ModelConfig = parse(ModelConfig, entry, f"{where}.{name}")
        if model.name:
            raise InputError(f"{where}.{name}: key name", model.name, "none: its name is the entry's")
        found.append(replace(model, name=name))
    return found


def _check_names(given: Iterable[str], known: Sequence[str], where: str, kind: str) -> None:
    for name in given:
        if name not in known:
            raise InputError(where, f"{kind} {name}", one_of(known, name))


def system_name(path: str | Path) -> str:
    """Name of a system and of its results folder: the YAML's path below a folder ``systems``, or its file name, and the
    size.

    Example:
        >>> [system_name(path) for path in ("conf/systems/deng2026/final.yaml:mini", "a/own.yaml")]
        ['deng2026_final_mini', 'own']
    """
    file, size = split_size(path)
    parts = Path(file).with_suffix("").parts
    last = len(parts) - 1 - parts[::-1].index("systems") if "systems" in parts else len(parts) - 2
    return "_".join([*parts[last + 1 :], *([size] if size != FULL else [])])
