"""Runs a system of taggers, a vote, separators and their fusion: the Python API.

Example:
    system = S5System.from_yaml("conf/systems/mini.yaml")
    for source in system(mixture, fs):
        print(source.label, source.probability, source.waveform.shape)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from s5.fusion import (
    Counts,
    Pass,
    Vote,
    class_scores,
    decide,
    find_objects,
    fuse,
    gate,
    is_multi_hot,
    level,
    refinement,
)
from s5.fusion.label_correction import Refined, Request
from s5.labels import DCASE_LABELS, LabelSet
from s5.system.config import SystemConfig
from s5.system.decode import GPU_BATCH, DecodeConfig, Precision
from s5.system.kinds import KEYS, KINDS
from s5.system.sizes import split_size
from s5.system.trained import ModelMeta, read_meta
from s5.utils.errors import InputError, one_of

NETWORKS = ("s5.system.model", "s5.tagging.tagger", "s5.separation")
"""Modules that a system imports before it first runs a network."""

Separated = tuple[np.ndarray, Vote, Mapping[str, np.ndarray], Mapping[str, np.ndarray] | None]
"""Mixture, vote, outputs of separators and posteriors of taggers: the arguments of :meth:`S5System.finish`."""
SHORTEST = 0.5
"""Least length in seconds: shorter recordings are padded with zeros, because transforms need a whole window."""


@dataclass
class Source:
    """One separated source.

    Attributes:
        label: class of the source.
        probability: probability of the label, 0 to 1.
        waveform: [samples] float32, at the sampling rate of the mixture.
    """

    label: str
    probability: float
    waveform: np.ndarray


@dataclass
class Result:
    """Labels and sources of one mixture.

    Attributes:
        labels: labels of the active sources, possibly none.
        probabilities: probabilities of the labels.
        sources: [n, samples] float32.
        counts: counts of the refinement; None without one.
        gated: number of slots that a gate silenced.
    """

    labels: list[str]
    probabilities: list[float]
    sources: np.ndarray
    counts: Counts | None = None
    gated: int = 0


if TYPE_CHECKING:
    from s5.system.objects import ObjectNetworks


class Found(NamedTuple):
    """Result of the loop of an objects system for one mixture."""

    vote: Vote
    """Labels of the sources and their probabilities."""
    outputs: dict[str, np.ndarray]
    """Sources [K, samples] float32 of the extraction and of each separator, by name."""
    passes: list[Pass]
    """All slots after each pass."""


class S5System:
    """Tags, votes, separates, fuses and refines. Networks load on first use.

    Args:
        config: a :class:`SystemConfig`.
        expdir: folder of the experiments.
        device: torch device; by default that of ``decode``.
        where: name of the system in error messages, e.g. the YAML file.
        decode: device, precision, batches and windows.

    Raises:
        InputError: torch cannot use the device here.
    """

    def __init__(
        self,
        config: SystemConfig,
        expdir: str | Path = "exp",
        device: str | None = None,
        where: object = "system",
        decode: DecodeConfig | None = None,
    ) -> None:
        self.decode = decode or DecodeConfig()
        self._device = self.decode.device if device is None else device
        if self._device is not None:
            from s5.utils.device import check_device

            check_device(self._device)
        self.config, self.expdir, self.where = config, Path(expdir), where
        self.precision: Precision = self.decode.precision or config.precision

    @classmethod
    def from_yaml(
        cls, path: str | Path, expdir: str | Path = "exp", device: str | None = None, decode: DecodeConfig | None = None
    ) -> S5System:
        """Opens a system by its YAML; arguments as in :class:`S5System`.

        Raises:
            InputError: an unknown key or model in the YAML. Missing experiments are reported on first use.
        """
        return cls(SystemConfig.load(path), expdir, device, path, decode)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        device: str | None = None,
        decode: DecodeConfig | None = None,
        revision: str | None = None,
    ) -> S5System:
        """Opens a model archive (``python -m s5.bin.pack``).

        Args:
            source: the archive, the folder of an unpacked archive, or a repository on the hub, ``user/name``.
            device: torch device; by default that of ``decode``.
            decode: device, precision, batches and windows.
            revision: revision of the repository.

        Raises:
            InputError: the archive does not exist or is damaged.
        """
        from s5.system.archive import read_system
        from s5.system.hub import open_archive

        folder = open_archive(source, revision)
        return cls(read_system(folder), folder / "models", device, folder / "system.yaml", decode)

    @classmethod
    def open(
        cls,
        source: str | Path,
        expdir: str | Path = "exp",
        device: str | None = None,
        decode: DecodeConfig | None = None,
    ) -> S5System:
        """Opens a YAML file by :meth:`from_yaml`, anything else by :meth:`from_pretrained`."""
        if split_size(source)[0].endswith((".yaml", ".yml")):
            return cls.from_yaml(source, expdir, device, decode)
        return cls.from_pretrained(source, device, decode)

    def __getstate__(self) -> dict[str, Any]:
        """State for another process, which loads the networks itself."""
        return {k: v for k, v in vars(self).items() if k not in KEYS}

    @cached_property
    def device(self) -> str:
        """Torch device of the networks."""
        import torch

        return self._device or ("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def batch_size(self) -> int:
        """Number of mixtures or windows of one length in a batch."""
        return self.decode.batch_size or (1 if self.device == "cpu" else GPU_BATCH)

    @cached_property
    def taggers(self) -> dict[str, Any]:
        """Loaded taggers by name."""
        return self._load("tagger")

    @cached_property
    def separators(self) -> dict[str, Any]:
        """Loaded separators by name."""
        return self._load("separator")

    @cached_property
    def source_taggers(self) -> dict[str, Any]:
        """Loaded source taggers by name."""
        return self._load("source_tagger")

    @cached_property
    def uss(self) -> dict[str, Any]:
        """Loaded universal sound separation by name."""
        return self._load("uss")

    @cached_property
    def tse(self) -> dict[str, Any]:
        """Loaded target sound extraction by name."""
        return self._load("tse")

    @property
    def networks(self) -> ObjectNetworks:
        """The networks of the loop of an objects system."""
        from s5.system.objects import ObjectNetworks

        uss, source_tagger, tse = (next(iter(one.values())) for one in (self.uss, self.source_taggers, self.tse))
        frames = self.config.tse[0].frames
        return ObjectNetworks(uss, source_tagger, tse, self.taggers[frames] if frames else None, self.precision)

    def _load(self, kind: str) -> dict[str, Any]:
        from s5.system.model import load_model

        models = self.config.models(kind)
        if not models:
            return {}
        loaded = {m.name: load_model(self.expdir / m.folder(), m.checkpoint, kind, self.device) for m in models}
        first = next(iter([*self._loaded(), *loaded.values()]))
        for name, model in loaded.items():
            for key in ("labels", "n_slots", "sampling_rate"):
                if getattr(model, key) != getattr(first, key):
                    raise InputError(f"{self.expdir}/{name}: {key}", getattr(model, key), getattr(first, key))
        for m in models:
            wanted = getattr(loaded[m.name].network, "time_film", False)
            if wanted != (m.frames is not None):
                expected = f"{'a tagger' if wanted else 'none'}, because its network has time_film: {wanted}"
                raise InputError(f"{self.where}: key {KINDS[kind].key}.{m.name}.frames", m.frames or "none", expected)
        for label in self.config.fusion.rules():  # a smaller label set may lack labels of the challenge
            if label not in first.labels and label not in DCASE_LABELS:
                raise InputError(f"{self.where}: key fusion", f"label {label}", one_of(first.labels.names, label))
        return loaded

    def _loaded(self) -> list[Any]:
        """Models that are loaded already."""
        return [model for key in KEYS for model in vars(self).get(key, {}).values()]

    @cached_property
    def _meta(self) -> ModelMeta:
        """Facts that all models share, from a loaded model or the first one's experiment."""
        if loaded := self._loaded():
            return ModelMeta(loaded[0].labels, loaded[0].n_slots, loaded[0].sampling_rate)
        return read_meta(self.expdir / self.config.all_models()[0][1].folder())

    @property
    def labels(self) -> LabelSet:
        """Label set of the models."""
        return self._meta.labels

    @property
    def n_slots(self) -> int:
        """K, the greatest number of sources in a mixture."""
        return self._meta.n_slots

    @property
    def sampling_rate(self) -> int:
        """Sampling rate of the models in Hz."""
        return self._meta.sampling_rate

    @property
    def n_channels(self) -> int:
        """M, the number of channels that a mixture needs."""
        return max(model.n_channels for key in KEYS for model in getattr(self, key).values())

    def tag(self, mixture: np.ndarray) -> dict[str, np.ndarray]:
        """Tags mixtures with every tagger.

        Args:
            mixture: [M, samples] float32 at the models' sampling rate, or a batch [B, M, samples].

        Returns:
            Posteriors by tagger name: float32 [K, C + 1] whose rows sum to 1 (tracks), or [1, C] (multi-hot); for a
            batch [B, ...].
        """
        mixture = self._long_enough(mixture)
        return {name: model.posterior(mixture, self.precision) for name, model in self.taggers.items()}

    def vote(
        self, posteriors: Mapping[str, np.ndarray], labels: LabelSet | None = None, n_slots: int | None = None
    ) -> Vote:
        """Votes on the labels of the active slots, with their probabilities and the taggers' silence posteriors.

        Args:
            posteriors: [K, C + 1] or [1, C] by tagger name.
            labels: label set; by default that of the models.
            n_slots: K; by default that of the models.
        """
        labels, weights = labels or self.labels, self.config.weights()
        if set(posteriors) != set(weights):
            raise InputError("posteriors", " ".join(sorted(posteriors)), f"those of {' '.join(weights)}")
        given = [posteriors[name] for name in weights]
        # Tracks show K; multi-hot posteriors do not, so K comes from the separators.
        n_slots = n_slots or (self.n_slots if is_multi_hot(given, len(labels)) else len(given[0]))
        found = decide(given, list(weights.values()), self.config.vote, len(labels), n_slots)
        silence = None if found.silence is None else dict(zip(weights, found.silence, strict=True))
        return Vote([labels.name(i) for i in found.index], [float(p) for p in found.probability], silence)

    def gate_taggers(self) -> list[str]:
        """Taggers whose silence posteriors the gate uses; none without such a gate."""
        config = self.config.gate
        if config is None or config.silence is None:
            return []
        return config.taggers or [model.name for model in self.config.taggers]

    def separate(self, mixture: np.ndarray, labels: Sequence[Any]) -> dict[str, np.ndarray]:
        """Separates mixtures with every separator.

        Args:
            mixture: [M, samples] float32 at the models' sampling rate, or a batch [B, M, samples].
            labels: at most K labels of active slots; for a batch a list of labels for each mixture.

        Returns:
            [K, samples] float32 by separator name, zeros in the slots after the labels; for a batch [B, K, samples].
        """
        length, mixture = mixture.shape[-1], self._long_enough(mixture)
        of = {model.name: model.frames for model in self.config.separators}
        wanted = {tagger for tagger in of.values() if tagger}
        frames = {name: self.taggers[name].frame_posterior(mixture, self.precision) for name in wanted}
        outputs = {
            name: model.separate(mixture, labels, self.precision, frames.get(of[name] or ""))
            for name, model in self.separators.items()
        }
        return {name: output[..., :length] for name, output in outputs.items()}

    def prior(self, posteriors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Probability of each class in a mixture [C] by the taggers: the weighted mean of the highest in any slot.

        Args:
            posteriors: [K, C + 1] or [1, C] by tagger name.
        """
        weights = self.config.weights()
        return class_scores([posteriors[name] for name in weights], list(weights.values()), len(self.labels))[:-1]

    def find_objects(
        self,
        mixture: np.ndarray,
        labels: Sequence[Sequence[str]] | None = None,
        posteriors: Sequence[Mapping[str, np.ndarray]] | None = None,
    ) -> list[Found]:
        """Runs the loop of an objects system, and its separators on the labels that the loop found.

        Args:
            mixture: [B, M, samples] float32 at the models' sampling rate.
            labels: at most K labels of the sources of each mixture, if they are known.
            posteriors: posteriors of each mixture by tagger, from :meth:`tag`; needed if ``alpha`` is above 0.
        """
        config, length, mixture = self.config.objects, mixture.shape[-1], self._long_enough(mixture)
        priors = None
        if labels is None and self.config.tags:
            if not posteriors or not all(posteriors):
                raise InputError("posteriors", "none", "those of all taggers: key objects: alpha is above 0")
            priors = np.stack([self.prior(one) for one in posteriors])
        given = None if labels is None else [np.array([self.labels.index(n) for n in row], int) for row in labels]
        limits, networks = config.limits(self.labels, f"{self.where}: key objects"), self.networks
        loop = find_objects(
            mixture, networks.separate, networks.classify, networks.extract, config, limits, priors, given
        )
        name, found = self.config.tse[0].name, []
        for result in loop:
            for part in result.passes:
                part.waveforms = part.waveforms[:, :length]
            vote = Vote(
                [self.labels.name(i) for i in result.index], result.probability.tolist(), given=given is not None
            )
            found.append(Found(vote, {name: result.sources[:, :length]}, result.passes))
        active = [i for i, one in enumerate(found) if one.vote.labels]
        if self.config.separators and active:
            for separator, table in self.separate(mixture[active], [found[i].vote.labels for i in active]).items():
                for i, sources in zip(active, table, strict=True):
                    found[i].outputs[separator] = sources[:, :length]
        for one in found:
            for model in self.config.separators:
                one.outputs.setdefault(model.name, np.zeros_like(one.outputs[name]))
        return found

    def _long_enough(self, mixture: np.ndarray) -> np.ndarray:
        """[..., samples], padded with zeros to at least :data:`SHORTEST`."""
        missing = max(0, round(SHORTEST * self.sampling_rate) - mixture.shape[-1])
        return np.pad(mixture, [(0, 0)] * (mixture.ndim - 1) + [(0, missing)]) if missing else mixture

    def fuse(
        self, outputs: Mapping[str, np.ndarray], labels: Sequence[str], mixture: np.ndarray | None = None
    ) -> np.ndarray:
        """Fuses the separators' outputs to the final sources [K, samples] float32.

        Args:
            outputs: [K, samples] by separator.
            labels: labels of the active slots.
            mixture: [M, samples]; mask sharpening needs it.
        """
        config = self.config.fusion
        given = {m.name: outputs[m.name] for m in self.config.extractors()}
        for name, strength in config.sharpen.items():
            if strength and mixture is None:
                raise ValueError("mask sharpening needs the mixture")
            if strength and mixture is not None:
                given[name] = self.sharpen(given[name], mixture, strength)
        default = config.default or {next(iter(given)): 1.0}
        return fuse(given, labels, default, config.rules())

    @staticmethod
    def sharpen(output: np.ndarray, mixture: np.ndarray, strength: float) -> np.ndarray:
        """Sharpens the masks of a separator's sources [K, samples]; a strength of 0 changes nothing."""
        if not strength:
            return output
        from s5.separation.sharpen import sharpen

        return sharpen(output, mixture[0], strength)

    def finish(
        self,
        mixture: np.ndarray,
        vote: Vote,
        outputs: Mapping[str, np.ndarray],
        posteriors: Mapping[str, np.ndarray] | None = None,
    ) -> Result:
        """Turns the separators' outputs into the final sources: fusion, gate, refinement.

        Args:
            mixture: [M, samples] at the models' sampling rate.
            vote: labels of the active slots, their probabilities and silence posteriors. Labels given by the user are
                final: neither gate nor refinement changes them.
            outputs: [K, samples] by separator; may be empty if there is no label.
            posteriors: posteriors by tagger; a refinement needs them.

        Raises:
            InputError: the gate needs silence posteriors and the vote has none.
        """
        return self.finish_all([(mixture, vote, outputs, posteriors)])[0]

    def finish_all(self, given: Sequence[Separated]) -> list[Result]:
        """Applies :meth:`finish` to several mixtures; a refinement batches their requests to the networks."""
        results = []
        for mixture, vote, outputs, _ in given:
            labels = list(vote.labels)
            silent = np.zeros((0, mixture.shape[-1]), np.float32)
            sources = self.fuse(outputs, labels, mixture)[: len(labels)] if labels else silent
            result = Result(labels, list(vote.probabilities), sources)
            if self.config.gate is not None and labels and not vote.given:
                result = self._gate(result, mixture, vote)
            results.append(result)
        refined = [i for i, (_, vote, _, _) in enumerate(given) if self.config.refine is not None and not vote.given]
        steps = {i: self._refinement(results[i], given[i][3]) for i in refined}
        answers: dict[int, Any] = dict.fromkeys(refined)
        while steps:
            asked: dict[int, Request] = {}
            for i in list(steps):
                try:
                    asked[i] = steps[i].send(answers[i])
                except StopIteration as end:
                    del steps[i]
                    results[i] = self._refined(results[i], end.value)
            queries = {i: request for i, request in asked.items() if isinstance(request, tuple)}
            untagged = {i: request for i, request in asked.items() if not isinstance(request, tuple)}
            answers = {**self._answer_queries(queries, results, given), **self._scores_of(untagged)}
        return results

    def _gate(self, result: Result, mixture: np.ndarray, vote: Vote) -> Result:
        config = self.config.gate
        assert config is not None
        silence = None
        if vote.silence is not None and (names := self.gate_taggers()):
            silence = np.stack([vote.silence[name] for name in names])
        keep = gate(config, silence, level(result.sources), float(level(mixture[0])), f"{self.where}: key gate")
        slots = np.flatnonzero(keep)
        labels, probabilities = [result.labels[k] for k in slots], [result.probabilities[k] for k in slots]
        return Result(labels, probabilities, result.sources[slots], gated=len(keep) - len(slots))

    def _refinement(
        self, result: Result, posteriors: Mapping[str, np.ndarray] | None
    ) -> Generator[Request, np.ndarray, Refined]:
        """Starts the refinement of one result."""
        if not posteriors:
            raise InputError("posteriors", "none", "those of all taggers: a refinement needs them")
        assert self.config.refine is not None
        given = [posteriors[m.name] for m in self.config.taggers]
        scores = class_scores(given, list(self.config.weights().values()), len(self.labels))
        distinct = is_multi_hot(given, len(self.labels))
        return refinement(self._index(result), scores, self.config.refine, self.n_slots, distinct)

    def _index(self, result: Result) -> tuple[int, ...]:
        return tuple(self.labels.index(name) for name in result.labels)

    def _refined(self, result: Result, refined: Refined) -> Result:
        labels = [self.labels.name(i) for i in refined.index]
        sources = refined.sources if labels else result.sources[:0]
        probabilities = [min(p, 1.0) for p in refined.probability]  # rounding may raise a mean of ones above 1
        return Result(labels, probabilities, sources, refined.counts, result.gated)

    def _answer_queries(
        self, queries: Mapping[int, tuple[int, ...]], results: Sequence[Result], given: Sequence[Separated]
    ) -> dict[int, np.ndarray]:
        """Sources of the requested labels, by mixture."""
        config = self.config.refine
        assert config is not None
        answers = {}
        for i, index in queries.items():
            # After a gate, the query has changed, so sources are separated again; a verification reuses them.
            if index == self._index(results[i]) and (not results[i].gated or not config.separate_again):
                answers[i] = results[i].sources
        rest = {i: [self.labels.name(k) for k in index] for i, index in queries.items() if i not in answers}
        for group in _groups(rest, lambda i: given[i][0].shape, self.batch_size):
            mixtures = np.stack([given[i][0] for i in group])
            tables = self.separate(mixtures, [rest[i] for i in group])
            for n, i in enumerate(group):
                outputs = {name: table[n] for name, table in tables.items()}
                answers[i] = self.fuse(outputs, rest[i], given[i][0])[: len(rest[i])]
        return answers

    def _scores_of(self, sources: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Class scores [n, C + 1] of separated sources [n, samples], by mixture."""
        answers: dict[int, np.ndarray] = {}
        for group in _groups(sources, lambda i: sources[i].shape[1:], self.batch_size):
            joined = np.concatenate([sources[i] for i in group])
            ends = np.cumsum([len(sources[i]) for i in group])[:-1]
            answers |= dict(zip(group, np.split(self._tag_sources(joined), ends), strict=True))
        return answers

    def _tag_sources(self, sources: np.ndarray) -> np.ndarray:
        """Class scores [n, C + 1] of sources [n, samples]: the posteriors of the source tagger if the system has one,
        else the scores of the mixture's taggers, each source in all channels."""
        assert self.config.refine is not None
        if self.config.refine.tagger is not None:
            model = self.source_taggers[self.config.refine.tagger]
            scores: np.ndarray = model.source_posterior(self._long_enough(sources), self.precision)
            return scores
        weights, tables = self.config.weights(), self.tag(np.repeat(sources[:, None], self.n_channels, axis=1))
        rows = [[tables[name][n] for name in weights] for n in range(len(sources))]
        return np.stack([class_scores(row, list(weights.values()), len(self.labels)) for row in rows])

    def __call__(self, mixture: np.ndarray, fs: int, labels: Sequence[str] | None = None) -> list[Source]:
        """Separates one recording. A recording longer than ``decode.window`` is separated window by window.

        Args:
            mixture: [M, samples] float.
            fs: sampling rate in Hz; it is converted to the models' rate and back.
            labels: labels of the sources, if you know them. Then nothing is tagged, every probability is 1, and the
                labels apply to all windows.

        Returns:
            The active sources, possibly none, each as long as the mixture.

        Raises:
            InputError: a wrong shape, values that are not finite, unknown labels, or more than K labels.
        """
        mixture = np.asarray(mixture)
        if mixture.ndim != 2:
            raise InputError("mixture", f"shape {list(mixture.shape)}", "[channels, samples]")
        return self.batch([mixture], fs, None if labels is None else [labels])[0]

    def batch(
        self, mixtures: Sequence[np.ndarray] | np.ndarray, fs: int, labels: Sequence[Sequence[str]] | None = None
    ) -> list[list[Source]]:
        """Separates several recordings of one length as one batch.

        Args:
            mixtures: [B, M, samples], or a list of [M, samples].
            fs: sampling rate in Hz.
            labels: labels of the sources of each recording, if you know them.

        Returns:
            The sources of each recording, equal to those of single calls up to rounding.

        Raises:
            InputError: a wrong shape, recordings of different shapes, or values that are not finite.
        """
        x = self._checked(mixtures, fs)
        if not len(x):
            return []
        if x.shape[2] > self.decode.window * fs:
            return [self._long(one, fs, None if labels is None else labels[i]) for i, one in enumerate(x)]
        return self._batch(x, fs, labels)

    def _batch(self, x: np.ndarray, fs: int, labels: Sequence[Sequence[str]] | None) -> list[list[Source]]:
        """Separates recordings [B, M, samples] without windows."""
        length = x.shape[2]
        x = np.stack([_resample(mixture, fs, self.sampling_rate) for mixture in x])
        x = np.pad(x, ((0, 0), (0, 0), (0, max(0, 1 - x.shape[2]))))  # one sample at a higher rate may become none
        posteriors: list[dict[str, np.ndarray]] = [{} for _ in x]
        if labels is None and self.config.tags:
            for name, table in self.tag(x).items():
                for one, posterior in zip(posteriors, table, strict=True):
                    one[name] = posterior
        if self.config.kind == "objects":
            known = None if labels is None else [self._known(names) for names in labels]
            found = self.find_objects(x, known, posteriors)
            given = [(mixture, one.vote, one.outputs, None) for mixture, one in zip(x, found, strict=True)]
            return [self._sources(result, fs, length) for result in self.finish_all(given)]
        if labels is None:
            votes = [self.vote(one, self.labels, self.n_slots) for one in posteriors]
        else:
            votes = [Vote(self._known(names), [1.0] * len(names), given=True) for names in labels]
        active = [i for i, vote in enumerate(votes) if vote.labels]
        tables = self.separate(x[active], [votes[i].labels for i in active]) if active else {}
        outputs: list[dict[str, np.ndarray]] = [{} for _ in x]
        for name, table in tables.items():
            for i, sources in zip(active, table, strict=True):
                outputs[i][name] = sources
        results = self.finish_all(list(zip(x, votes, outputs, posteriors, strict=True)))
        return [self._sources(result, fs, length) for result in results]

    def _long(self, mixture: np.ndarray, fs: int, labels: Sequence[str] | None) -> list[Source]:
        """Separates a recording window by window, and follows its sources through the windows."""
        from s5.separation.windows import Track, separate_windows

        decode, windows = self.decode, Windows(self, fs, labels)
        found: dict[Track, np.ndarray] = {}
        sizes = round(decode.window * fs), round(decode.overlap * fs)
        for segment in separate_windows([mixture], windows, *sizes, self.batch_size):
            for track, waveform in segment.sources.items():
                whole = found.setdefault(track, np.zeros(mixture.shape[1], np.float32))
                whole[segment.start : segment.start + segment.length] = waveform
        return [Source(track.label, windows.best[track.label], waveform) for track, waveform in found.items()]

    def _checked(self, mixtures: Sequence[np.ndarray] | np.ndarray, fs: int) -> np.ndarray:
        """Checks recordings and returns them as [B, M, samples] float32. Raises InputError."""
        if not 0 < fs < float("inf"):
            raise InputError("fs", fs, "a sampling rate in Hz")
        shapes = {np.shape(mixture) for mixture in mixtures}
        if len(shapes) > 1:
            raise InputError("mixtures", " and ".join(str(list(s)) for s in sorted(shapes)), "one shape")
        x = np.asarray(mixtures)
        if len(x) == 0:
            return x
        if not np.issubdtype(x.dtype, np.floating):
            raise InputError("mixture", f"samples of type {x.dtype}", "floating point, full scale 1")
        x = x.astype(np.float32)
        if x.ndim != 3 or (x.shape[1] != self.n_channels and x.shape[1] > x.shape[2]):
            raise InputError("mixture", f"shape {list(x.shape[1:])}", "[channels, samples]")
        if x.shape[1] != self.n_channels:
            raise InputError("mixture", f"{x.shape[1]} channels", f"{self.n_channels}, as the models were trained with")
        if not np.isfinite(x).all():
            raise InputError("mixture", "NaN or infinite samples", "finite ones")
        return x

    def _known(self, names: Sequence[str]) -> list[str]:
        """Checks labels given by the user. Raises InputError."""
        for i in self.labels.indices(names, self.n_slots, "labels")[: len(names)]:
            if i == self.labels.silence_index:
                raise InputError("labels", "silence", "labels of active sources")
        return list(names)

    def _sources(self, result: Result, fs: int, length: int) -> list[Source]:
        """Sources at the recording's sampling rate and length."""
        waveforms = _resample(result.sources, self.sampling_rate, fs) if len(result.sources) else result.sources
        waveforms = np.pad(waveforms, ((0, 0), (0, max(0, length - waveforms.shape[1]))))[:, :length]
        return [Source(*parts) for parts in zip(result.labels, result.probabilities, waveforms, strict=True)]


def _groups(items: Iterable[int], key: Callable[[int], tuple[int, ...]], size: int) -> Iterator[list[int]]:
    """Groups of at most ``size`` items with equal keys."""
    by_key: dict[tuple[int, ...], list[int]] = {}
    for item in items:
        by_key.setdefault(key(item), []).append(item)
    for group in by_key.values():
        yield from (group[n : n + size] for n in range(0, len(group), size))


class Windows:
    """Separates windows of one recording, for :func:`s5.separation.windows.separate_windows`.

    Args:
        system: the system.
        fs: sampling rate of the recording in Hz.
        labels: labels of the sources in every window; by default each window is tagged.
    """

    def __init__(self, system: S5System, fs: int, labels: Sequence[str] | None = None) -> None:
        self.system, self.fs, self.labels = system, fs, labels
        self.best: dict[str, float] = {}
        """Highest probability of each label in the windows so far."""

    def __call__(self, windows: Sequence[np.ndarray]) -> Iterator[tuple[list[str], list[np.ndarray]]]:
        """Labels and waveforms of each window [M, samples]."""
        x = self.system._checked(windows, self.fs)
        for sources in self.system._batch(x, self.fs, None if self.labels is None else [self.labels] * len(x)):
            for source in sources:
                self.best[source.label] = max(self.best.get(source.label, 0.0), source.probability)
            yield [source.label for source in sources], [source.waveform for source in sources]


def _resample(x: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Resamples [n, samples] with soxr at high quality."""
    if rate == new_rate:
        return x
    import soxr

    return soxr.resample(x.T, rate, new_rate).T
