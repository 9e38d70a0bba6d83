"""A system: taggers, their vote, separators and their fusion, from one YAML; the Python API.

Example:
    system = S5System.from_yaml("conf/systems/mini.yaml")
    for source in system(mixture, fs):
        print(source.label, source.probability, source.waveform.shape)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from s5.config import load_yaml, parse, resolve
from s5.errors import InputError, one_of
from s5.fusion import fuse, vote
from s5.labels import LabelSet


@dataclass
class ModelConfig:
    """One tagger or separator of a system."""

    name: str
    """Name of its experiment folder below ``exp/``."""
    train: str
    """Training YAML."""
    finetune: str | None = None
    """YAML of a second training that starts from the first one's best checkpoint, in ``exp/<name>_ft``."""
    weight: float = 1.0
    """Of a tagger in the vote (alpha of Eq. (1), seed 000)."""
    checkpoint: str | None = None
    """File in the experiment folder; by default the average or the best by the training's own criterion."""

    def phases(self) -> dict[str, str]:
        """Training YAML of each phase that there is."""
        return {"train": self.train} | ({"finetune": self.finetune} if self.finetune else {})

    def folder(self, phase: str | None = None) -> str:
        """Name of the experiment folder of a phase; by default of the last one, which the system decodes with."""
        last = phase or ("finetune" if self.finetune else "train")
        return f"{self.name}_ft" if last == "finetune" else self.name


@dataclass
class VoteConfig:
    """How taggers become labels; see :func:`s5.fusion.vote`."""

    gamma: float = 1.0
    align: bool = True


@dataclass
class FusionConfig:
    """How separators become waveforms; see :func:`s5.fusion.fuse`."""

    default: dict[str, float] | None = None
    """Weight of each separator; by default the first alone."""
    classes: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass
class SystemConfig:
    """The content of a system's YAML."""

    taggers: list[ModelConfig]
    separators: list[ModelConfig]
    vote: VoteConfig = field(default_factory=VoteConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    bf16: bool = False
    """Run the networks in bfloat16."""

    @classmethod
    def load(cls, path: str | Path) -> SystemConfig:
        """Reads and checks a system's YAML. Raises InputError naming the file and the key."""
        config: SystemConfig = parse(cls, load_yaml(path), path)
        names = [m.name for m in [*config.taggers, *config.separators]]
        for key, models in (("taggers", config.taggers), ("separators", config.separators)):
            if not models:
                raise InputError(f"{path}: key {key}", "an empty list", "at least one model")
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"{path}: key name", f"{name} twice", "another name for each model")
        separators = [m.name for m in config.separators]
        rules = {"default": config.fusion.default or {}, **config.fusion.classes}
        for rule, weights in rules.items():
            for name in weights:
                if name not in separators:
                    raise InputError(f"{path}: key fusion: {rule}", f"separator {name}", one_of(separators, name))
        return config

    def models(self, kind: str) -> list[ModelConfig]:
        """The taggers or the separators."""
        return self.taggers if kind == "tagger" else self.separators

    def find(self, name: str) -> tuple[str, ModelConfig]:
        """Kind and configuration of a model by name."""
        for kind in ("tagger", "separator"):
            for model in self.models(kind):
                if model.name == name:
                    return kind, model
        raise InputError("model", name, one_of([m.name for m in [*self.taggers, *self.separators]], name))


@dataclass
class Source:
    """One separated source.

    Attributes:
        label: its class.
        probability: of the label, 0 to 1.
        waveform: [samples] float32, at the sampling rate of the mixture.
    """

    label: str
    probability: float
    waveform: np.ndarray


class S5System:
    """Tags, votes, separates and fuses. Networks are loaded on first use.

    Args:
        config: a :class:`SystemConfig`.
        expdir: folder of the experiments.
        device: torch device; by default the GPU if there is one.
        where: what complaints name, e.g. the YAML file.
    """

    def __init__(
        self, config: SystemConfig, expdir: str | Path = "exp", device: str | None = None, where: object = "system"
    ) -> None:
        self.config, self.expdir, self.where = config, Path(expdir), where
        self._device = device

    @classmethod
    def from_yaml(cls, path: str | Path, expdir: str | Path = "exp", device: str | None = None) -> S5System:
        """A system from its YAML and the experiments that it names.

        Raises:
            InputError: unknown key or model in the YAML. Missing experiments are refused on first use.
        """
        return cls(SystemConfig.load(path), expdir, device, resolve(path))

    @cached_property
    def device(self) -> str:
        """Torch device that the networks run on."""
        import torch

        return self._device or ("cuda" if torch.cuda.is_available() else "cpu")

    @cached_property
    def taggers(self) -> dict[str, Any]:
        """Loaded taggers by name."""
        return self._load("tagger")

    @cached_property
    def separators(self) -> dict[str, Any]:
        """Loaded separators by name."""
        return self._load("separator")

    def _load(self, kind: str) -> dict[str, Any]:
        from s5.experiment import load_experiment

        models = self.config.models(kind)
        loaded = {m.name: load_experiment(self.expdir / m.folder(), m.checkpoint, kind, self.device) for m in models}
        first = next(iter(loaded.values()))
        for name, model in loaded.items():
            for key in ("labels", "n_slots", "sampling_rate"):
                if getattr(model, key) != getattr(first, key):
                    raise InputError(f"{self.expdir}/{name}: {key}", getattr(model, key), getattr(first, key))
        return loaded

    def _any(self) -> Any:
        """A loaded model, for what all share: prefers the kind that is loaded already."""
        table = self.__dict__.get("separators") or self.taggers
        return next(iter(table.values()))

    @property
    def labels(self) -> LabelSet:
        """The label set of the models."""
        return self._any().labels

    @property
    def n_slots(self) -> int:
        """K, sources a mixture at most."""
        return self._any().n_slots

    @property
    def sampling_rate(self) -> int:
        """In Hz, of the models."""
        return self._any().sampling_rate

    def tag(self, mixture: np.ndarray) -> dict[str, np.ndarray]:
        """Posteriors of every tagger.

        Args:
            mixture: [M, samples] float32 at the models' sampling rate.

        Returns:
            [K, C + 1] float32 by tagger name; rows sum to 1.
        """
        return {name: model.posterior(mixture, self.config.bf16) for name, model in self.taggers.items()}

    def vote(self, posteriors: Mapping[str, np.ndarray], labels: LabelSet) -> tuple[list[str], list[float]]:
        """Labels of the active slots and their probabilities.

        Args:
            posteriors: [K, C + 1] by tagger name.
            labels: the label set.
        """
        weights = {m.name: m.weight for m in self.config.taggers}
        if set(posteriors) != set(weights):
            raise InputError("posteriors", " ".join(sorted(posteriors)), f"those of {' '.join(weights)}")
        index, share = vote(
            [posteriors[name] for name in weights],
            list(weights.values()),
            self.config.vote.gamma,
            self.config.vote.align,
        )
        active = index != labels.silence_index
        return [labels.name(i) for i in index[active]], [float(p) for p in share[active]]

    def separate(self, mixture: np.ndarray, labels: Sequence[str]) -> dict[str, np.ndarray]:
        """Every separator's sources for the given labels.

        Args:
            mixture: [M, samples] float32 at the models' sampling rate.
            labels: at most K labels, active slots only.

        Returns:
            [K, samples] float32 by separator name, zeros in the slots behind the labels.
        """
        return {name: model.separate(mixture, labels, self.config.bf16) for name, model in self.separators.items()}

    def fuse(self, outputs: Mapping[str, np.ndarray], labels: Sequence[str]) -> np.ndarray:
        """The final sources [K, samples] float32 from the separators' outputs."""
        default = self.config.fusion.default or {self.config.separators[0].name: 1.0}
        return fuse(
            {m.name: outputs[m.name] for m in self.config.separators}, labels, default, self.config.fusion.classes
        )

    def __call__(self, mixture: np.ndarray, fs: int) -> list[Source]:
        """Separates one recording.

        Args:
            mixture: [M, samples] float.
            fs: its sampling rate in Hz; another one than the models' is converted, there and back.

        Returns:
            The active sources, possibly none, each as long as the mixture.

        Raises:
            InputError: a wrong shape, or values that are not finite.
        """
        mixture = np.asarray(mixture, dtype=np.float32)
        if mixture.ndim != 2 or mixture.shape[0] > mixture.shape[1]:
            raise InputError("mixture", f"shape {list(mixture.shape)}", "[channels, samples]")
        if not np.isfinite(mixture).all():
            raise InputError("mixture", "NaN or infinite samples", "finite ones")
        length = mixture.shape[1]
        x = _resample(mixture, fs, self.sampling_rate)
        labels, probabilities = self.vote(self.tag(x), self.labels)
        if not labels:
            return []
        sources = _resample(self.fuse(self.separate(x, labels), labels), self.sampling_rate, fs)
        sources = np.pad(sources, ((0, 0), (0, max(0, length - sources.shape[1]))))[:, :length]
        return [Source(*parts) for parts in zip(labels, probabilities, sources, strict=False)]


def _resample(x: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """[n, samples] at another sampling rate, soxr high quality."""
    if rate == new_rate:
        return x
    import soxr

    return soxr.resample(x.T, rate, new_rate).T
