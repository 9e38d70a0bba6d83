"""Validation mixtures to listen to and to look at while a model trains.

They are the same in all epochs. Mixture and references are written once a start, and the output of the model every few
epochs: waveforms of a separator or of USS, probabilities of a tagger.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from s5.separation.losses import sdr
from s5.tagging.losses import pit_cross_entropy
from s5.tasks.data import FixedScenes, VirtualScenes
from s5.tasks.logging.boards import Board
from s5.tasks.logging.panels import draw_sources, draw_tags
from s5.tasks.models import TaggingModel, WaveformModel
from s5.tasks.source_model import SourceTaggingModel
from s5.utils.errors import InputError

PEAK = 0.5
"""Peak of the loudest of mixture and references, so that an estimate may be twice as loud without clipping."""

TIMES = 20
"""Largest number of times that a training shows its examples, if no interval is given."""

SHARE = 0.01
"""Share of a training's time for examples, if no interval is given. The first and last epoch do not count."""

CANDIDATES = 8
"""Number of scenes of a virtual set to choose each example from."""

N_MELS = 64


@dataclass(frozen=True)
class Example:
    """A mixture with its sources."""

    name: str
    labels: tuple[str, ...]
    slots: tuple[int, ...]
    """Slot of each label, from 0."""
    label_index: np.ndarray
    """Class index of each slot [K], C for silence."""
    mixture: np.ndarray
    """[M, T]."""
    dry: np.ndarray | None
    """[K, T]; None for taggers."""
    fs: int
    """Sampling rate in Hz."""

    @property
    def gain(self) -> float:
        """Gain of all audio of this mixture: :data:`PEAK` over the peak of mixture and references."""
        waveforms = [self.mixture[0]] if self.dry is None else [self.mixture[0], *self.dry]
        return PEAK / (max(float(np.abs(waveform).max()) for waveform in waveforms) or PEAK)

    @property
    def sources(self) -> str:
        """The labels as text."""
        return ", ".join(self.labels) or "no source"

    @property
    def names(self) -> list[str]:
        """Name of each source: its slot and label."""
        return [f"{slot}_{label}" for slot, label in zip(self.slots, self.labels, strict=True)]

    def batch(self, model: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        """Mixture [1, M, T] and label_index [1, K] on the device of a model."""
        device = next(model.parameters()).device
        mixture, label_index = torch.from_numpy(self.mixture), torch.from_numpy(np.asarray(self.label_index))
        return mixture[None].to(device), label_index[None].to(device)


def choose(labels: Sequence[Sequence[str]], number: int) -> list[int]:
    """Chooses the mixtures to show: one from each of ``number`` equal parts of a set.

    The choice is the mixture with the most sources, then with the most labels not yet chosen, then the first.

    Example:
        >>> choose([["Cough"], ["Cough", "Speech"], [], ["Cough", "Speech"], ["Pour", "Speech"]], 2)
        [1, 4]
    """
    shown: set[str] = set()
    chosen = []
    for part in np.array_split(np.arange(len(labels)), max(1, min(number, len(labels)))):
        best = max(part.tolist(), key=lambda i: (len(labels[i]), len(set(labels[i]) - shown), -i))
        shown.update(labels[best])
        chosen.append(best)
    return chosen


def load_examples(dataset: FixedScenes | VirtualScenes, number: int) -> list[Example]:
    """Chooses and reads ``number`` mixtures of a validation set, or scenes of the first epoch of a virtual set.

    Raises InputError if a file cannot be read.
    """
    if isinstance(dataset, VirtualScenes):
        planned, dataset = copy.copy(dataset), copy.copy(dataset)
        planned.planned, dataset.planned = True, False
        names = [_item(planned, i)[1]["plan"].labels for i in range(min(len(dataset), CANDIDATES * number))]
        fs = dataset.sampler.config.sampling_rate
    else:
        data = dataset.data
        names = [data.labels.get(utt, ()) for utt in data.utts]
        fs = data.mixture(data.utts[0])[1]
    examples = []
    for i in choose(names, number):
        name, item = _item(dataset, i)
        slots = tuple(np.flatnonzero(item["label_index"] < len(dataset.labels.names)).tolist())
        labels = tuple(dataset.labels.names[item["label_index"][slot]] for slot in slots)
        examples.append(Example(name, labels, slots, item["label_index"], item["mixture"], item.get("dry"), fs))
    return examples


def _item(dataset: FixedScenes | VirtualScenes, number: int) -> tuple[str, dict[str, Any]]:
    item = dataset[1, number]
    if isinstance(item, InputError):
        raise item
    return item


class Examples:
    """Examples of one training.

    Args:
        model: model in training.
        dataset: validation set.
        number: number of examples.
        interval: epochs from one time to the next; 0: about :data:`TIMES` times, and less often if that would take more
            than :data:`SHARE` of the time.
        max_epoch: last epoch of the training.
    """

    def __init__(
        self,
        model: WaveformModel | TaggingModel | SourceTaggingModel,
        dataset: FixedScenes | VirtualScenes,
        number: int,
        interval: int,
        max_epoch: int,
    ) -> None:
        self.model, self.dataset, self.number = model, dataset, number
        self.interval, self.max_epoch = interval or max(1, max_epoch // TIMES), max_epoch
        self.share = 1.0 if interval else SHARE
        self._not_before = 0.0
        self._examples: list[Example] = []

    def due(self, epoch: int) -> bool:
        """Whether to show them after this epoch: the first, the last, and every ``interval``-th if not too soon."""
        if epoch in (1, self.max_epoch):
            return True
        return epoch % self.interval == 0 and (self.share == 1 or time.monotonic() >= self._not_before)

    @torch.no_grad()
    def show(self, boards: Sequence[Board], epoch: int) -> None:
        """Writes the output of the model for each example; at the first call, mixtures and references as well.

        Raises InputError if a mixture cannot be read, OSError if a board cannot be written.
        """
        began = time.monotonic()
        first = not self._examples
        if first:
            self._examples = load_examples(self.dataset, self.number)
        training = self.model.training
        self.model.eval()
        for example in self._examples:
            for board in boards if first else ():
                _show_data(example, board, epoch)
            if isinstance(self.model, TaggingModel):
                _show_tags(example, self.model, self.dataset.labels.names, boards, epoch)
            elif isinstance(self.model, SourceTaggingModel):
                _show_source_tags(example, self.model, self.dataset.labels.names, boards, epoch)
            else:
                _show_sources(example, self.model, boards, epoch)
        self.model.train(training)
        self._not_before = time.monotonic() + (time.monotonic() - began) / self.share


def _show_data(example: Example, board: Board, epoch: int) -> None:
    """Writes the mixture, a text about it, and the references."""
    board.audio(f"{example.name}/mixture", example.mixture[0] * example.gain, example.fs, epoch)
    text = (
        f"{example.name}: {example.sources}; {example.mixture.shape[1] / example.fs:.3g} s at {example.fs} Hz, "
        f"first channel. All audio of this mixture is {20 * np.log10(example.gain):+.1f} dB louder than in its "
        "files, so that levels compare and nothing clips."
    )
    board.text(f"{example.name}/about", text, epoch)
    if example.dry is not None:
        for name, slot in zip(example.names, example.slots, strict=True):
            board.audio(f"{example.name}/{name}/reference", example.dry[slot] * example.gain, example.fs, epoch)


def _show_sources(example: Example, model: WaveformModel, boards: Sequence[Board], epoch: int) -> None:
    """Writes estimates and spectrograms. References order the estimates of one class, as in validation."""
    assert example.dry is not None
    slots = list(example.slots)
    dry, (mixture, label_index) = example.dry[slots], example.batch(model)
    target = torch.from_numpy(example.dry)[None]
    estimate = model.estimate(mixture, target.to(mixture.device), label_index).cpu()[0, slots]
    improvement = (sdr(estimate, target[0, slots]) - sdr(mixture[:, 0].cpu(), target[0, slots])).tolist()
    estimates, captions = [], []
    for name, waveform, sdri in zip(example.names, estimate.numpy(), improvement, strict=True):
        finite = bool(np.isfinite(waveform).all())
        caption = f"{name}, estimate: SDRi {sdri:.1f} dB" if finite else f"{name}, estimate: not finite"
        waveform = waveform if finite else np.zeros_like(waveform)
        excess = float(np.abs(waveform).max()) * example.gain
        if excess > 1:
            caption += f", played {20 * np.log10(excess):.1f} dB softer"  # it would clip otherwise
        for board in boards:
            tag = f"{example.name}/{name}/estimate"
            board.audio(tag, waveform * (example.gain / max(excess, 1.0)), example.fs, epoch, caption)
        estimates.append(waveform)
        captions.append(caption)
    mean = f": mean SDRi {np.mean(improvement):.1f} dB" if improvement else ""
    title, note = f"{example.name}: {example.sources}", f"epoch {epoch}{mean}"
    waveforms = (example.mixture[0], dry, np.array(estimates))
    pixels = draw_sources(*waveforms, example.names, captions, example.fs, title, note)
    for board in boards:
        board.image(f"{example.name}/spectrograms", pixels, epoch, "; ".join(captions))


def _show_tags(
    example: Example, model: TaggingModel, classes: Sequence[str], boards: Sequence[Board], epoch: int
) -> None:
    """Writes the probabilities as a figure and the labels as text. Tracks take the slots that they fit best."""
    index, (mixture, label_index) = example.label_index.tolist(), example.batch(model)
    logits = model.run(mixture)
    if model.multi_hot:
        probability = logits.sigmoid().cpu().numpy()
        rows, names = ["all"], list(classes)
        marked = [(0, i) for i in sorted(set(index)) if i < len(names)]
    else:
        permutation = pit_cross_entropy(logits, label_index, model.class_weight)[1]
        logits = logits.gather(1, permutation[..., None].expand_as(logits))
        probability = logits.softmax(-1)[0].cpu().numpy()
        rows, names = [f"slot {slot}" for slot in range(len(probability))], [*classes, "silence"]
        marked = list(enumerate(index))
    found = [i for i in model.predict(logits)[0].tolist() if i < model.n_labels]
    _show_probabilities(example, probability, marked, rows, names, [classes[i] for i in found], boards, epoch)


def _show_source_tags(
    example: Example, model: SourceTaggingModel, classes: Sequence[str], boards: Sequence[Board], epoch: int
) -> None:
    """Writes the probabilities of the dry sources as a figure and their labels as text."""
    assert example.dry is not None
    dry = torch.from_numpy(example.dry[[*example.slots]]).to(next(model.parameters()).device)
    if not len(dry):
        return
    probability, names = model.tag(dry).posterior().cpu().numpy(), [*classes, "silence"]
    marked = list(enumerate(example.label_index[[*example.slots]].tolist()))
    found = [names[i] for i in probability.argmax(-1)]
    _show_probabilities(example, probability, marked, example.names, names, found, boards, epoch)


def _show_probabilities(
    example: Example,
    probability: np.ndarray,
    marked: Sequence[tuple[int, int]],
    rows: Sequence[str],
    names: Sequence[str],
    found: Sequence[str],
    boards: Sequence[Board],
    epoch: int,
) -> None:
    """Writes probabilities [rows, names] as a figure and the labels found as text."""
    from s5.tagging.logmel import mel_level

    labels = ", ".join(found) or "no source"
    mel_db, seconds = mel_level(example.mixture[0], example.fs, N_MELS)[0], example.mixture.shape[1] / example.fs
    title, note = f"{example.name}: {example.sources}", f"epoch {epoch}: {labels}"
    pixels = draw_tags(mel_db, seconds, probability, marked, rows, names, title, note)
    text = f"tagger: {labels}. Reference: {example.sources}."
    for board in boards:
        board.image(f"{example.name}/probabilities", pixels, epoch, text)
        board.text(f"{example.name}/labels", text, epoch)
