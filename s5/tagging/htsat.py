"""Builds HTS-AT, CLAP's audio encoder, from ``transformers``: a Swin transformer over a folded log-mel spectrogram.

Two releases differ in their front ends: LAION's (Wu et al., ICASSP 2023; ``laion/clap-htsat-unfused``) and Microsoft's
(Elizalde et al.; ``CLAP_weights_2023.pth``). The encoder itself handles sampling rate, mel settings and input length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from s5.checkpoints import convert_htsat, load_tensors, read_tensors
from s5.tagging.encoder import Encoder, Resampler
from s5.tagging.logmel import LogMel
from s5.utils.config import parse, resolve
from s5.utils.errors import InputError, one_of


@dataclass
class FrontEnd:
    """Input length and mel settings of a release."""

    sampling_rate: int = 48000
    """Sampling rate in Hz, to which the mixture is resampled."""
    seconds: float = 10.0
    """Length of one input in seconds."""
    n_fft: int = 1024
    """Window (Hann) and transform length in samples."""
    hop_length: int = 480
    """Hop in samples."""
    n_mels: int = 64
    """Number of mel bands (Slaney scale and normalisation)."""
    f_min: float = 50.0
    """Lower edge of the lowest band in Hz."""
    f_max: float = 14000.0
    """Upper edge of the highest band in Hz."""
    filter_rate: int | None = None
    """Sampling rate of the mel filters in Hz; by default that of the audio."""
    padding: Literal["repeatpad", "repeat"] = "repeatpad"
    """Treatment of a shorter input: whole repetitions and zeros, or repetition until the input is full."""


RELEASES = {
    "laion": FrontEnd(),
    # Microsoft's code combines AudioSet's filters for 32 kHz with audio at 44.1 kHz, so the filters are shifted up.
    "microsoft": FrontEnd(sampling_rate=44100, seconds=7.0, hop_length=320, filter_rate=32000, padding="repeat"),
}
"""Front ends by release."""

_PATCH = 4
"""Number of bands and frames of a patch in all releases."""


def log_mel_of(front_end: FrontEnd) -> LogMel:
    """Spectrogram of a front end in dB. The model saves the filters, because released files have their own."""
    return LogMel(
        front_end.sampling_rate,
        front_end.n_mels,
        front_end.n_fft,
        front_end.hop_length,
        front_end.f_min,
        front_end.f_max,
        front_end.filter_rate,
        decibel=True,
        save_filters=True,
    )


def input_windows(waveform: Tensor, front_end: FrontEnd) -> Tensor:
    """Cuts waveforms into the network's inputs, or fills one; see :class:`HTSATEncoder`.

    Args:
        waveform: [N, T] at the front end's sampling rate, T at least 1.
        front_end: length of an input, and the padding of shorter waveforms.

    Returns:
        [N, windows, samples of an input].
    """
    size = round(front_end.seconds * front_end.sampling_rate)
    length = waveform.shape[-1]
    if length <= size:
        times = -(-size // length) if front_end.padding == "repeat" else size // length
        repeated = waveform.repeat(1, times)[:, :size]
        return nn.functional.pad(repeated, (0, size - repeated.shape[-1])).unsqueeze(1)
    # An excess of less than a frame (rounding of lengths) needs no further window.
    count = max(1, -(-(length - front_end.hop_length + 1) // size))
    starts = [round(i * (length - size) / max(1, count - 1)) for i in range(count)]
    return torch.stack([waveform[:, start : start + size] for start in starts], dim=1)


class HTSATEncoder(Encoder):
    """Encodes a waveform as a sequence of features, 32 per input window (312 ms each with LAION's 10 s).

    A shorter input is repeated as in the release's code; the average of its features over time is CLAP's embedding
    before the projection. A longer input is cut into the fewest evenly spread windows that cover it, and their features
    are concatenated, so the average over time is the average of the windows.

    Args:
        sampling_rate: sampling rate of the mixture in Hz.
        n_channels: number of channels to encode; see :class:`s5.tagging.encoder.Encoder`.
        release: front end, ``laion`` or ``microsoft``.
        front_end: keys of :class:`FrontEnd` to replace, for other sizes.
        image_size: edge of the square to which the spectrogram is folded, in ``image_size / n_mels`` pieces.
        dim: width of the first stage; each further stage has twice the width and half the resolution.
        depths: Swin blocks of each stage.
        heads: attention heads of each stage.
        window_size: edge of the attention windows, in patches of 4 x 4.
        dropout: dropout of the residual branches' outputs in training.
        weights: a folder or file with the weights of ``transformers``' ClapModel or ClapAudioModel, a file of LAION's
            or Microsoft's own code, or the name of a model on the hub (``laion/clap-htsat-unfused``).
    """

    def __init__(
        self,
        sampling_rate: int = 32000,
        n_channels: int = 1,
        release: str = "laion",
        front_end: dict[str, Any] | None = None,
        image_size: int = 256,
        dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (4, 8, 16, 32),
        window_size: int = 8,
        dropout: float = 0.0,
        weights: str | None = None,
    ) -> None:
        if release not in RELEASES:
            raise InputError("HTSATEncoder: release", release, one_of(RELEASES, release))
        replaced = {**asdict(RELEASES[release]), **(front_end or {})}
        hears: FrontEnd = parse(FrontEnd, replaced, "HTSATEncoder: front_end")
        _check_sizes(hears, image_size, dim, depths, heads, window_size)
        super().__init__(sampling_rate, n_channels, dim * 2 ** (len(depths) - 1), weights)
        self.front_end = hears
        self.resampler = Resampler(sampling_rate, hears.sampling_rate)
        self.log_mel = log_mel_of(hears)
        self.network = _clap_audio_model(
            spec_size=image_size,
            num_mel_bins=hears.n_mels,
            patch_size=_PATCH,
            patch_stride=[_PATCH, _PATCH],
            patch_embeds_hidden_size=dim,
            hidden_size=self.feature_dim,
            depths=list(depths),
            num_attention_heads=list(heads),
            window_size=window_size,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=0.0,
        )
        self.register_load_state_dict_pre_hook(_keep_positions)

    @property
    def n_layers(self) -> int:
        """Number of Swin stages."""
        return len(self._stages)

    def top_layers(self, n: int) -> list[nn.Module]:
        """The last ``n`` Swin stages and the final norm."""
        self._check_layers(n)
        return [*self._stages[self.n_layers - n :], self.network.get_submodule("audio_encoder.norm")]

    @property
    def _stages(self) -> list[nn.Module]:
        return list(self.network.get_submodule("audio_encoder.layers").children())

    def load_weights(self) -> None:
        """Loads ``weights``, see the class. Only a name of a model on the hub is downloaded."""
        if not self.weights:
            return
        tensors = read_tensors(_weights_file(self.weights))
        if any(key.endswith(".attn.qkv.weight") for key in tensors):
            tensors, filters = convert_htsat(tensors, self.weights)
            if filters is not None:
                self._replace_filters(filters)
        elif any(key.startswith("audio_model.") for key in tensors):
            tensors = {k.removeprefix("audio_model."): v for k, v in tensors.items() if k.startswith("audio_model.")}
        # Only some files have the buffers that follow from the sizes.
        for key, value in self.network.named_buffers():
            if key.endswith(("relative_position_index", "num_batches_tracked")):
                tensors.setdefault(key, value)
        load_tensors(self.network, tensors, self.weights)

    def encode(self, waveform: Tensor) -> Tensor:
        """Encodes single-channel waveforms.

        Args:
            waveform: [N, T] at the mixture's sampling rate.

        Returns:
            [N, windows * steps, feature_dim], averaged over the frequency axis of the last stage.

        Raises:
            InputError: no audio.
        """
        if waveform.shape[-1] == 0:
            raise InputError("mixture", "0 samples", "at least one")
        windows = input_windows(self.resampler(waveform), self.front_end)
        image = self.log_mel(windows.flatten(0, 1)).mT.contiguous().unsqueeze(1)
        maps = self.network(input_features=image).last_hidden_state  # [N * windows, feature_dim, bands, steps]
        return maps.mean(2).mT.unflatten(0, (len(waveform), -1)).flatten(1, 2)

    def _replace_filters(self, filters: Tensor) -> None:
        own = self.log_mel.filters
        if filters.shape != own.shape:
            raise InputError(f"{self.weights}: mel filters", list(filters.shape), f"{list(own.shape)} by front_end")
        own.copy_(filters)


def _keep_positions(encoder: nn.Module, tensors: dict[str, Any], prefix: str, *_: Any) -> None:
    """Keeps the position indices, which follow from the sizes: ESPnet's average of checkpoints sums integers."""
    for key, value in encoder.named_buffers():
        if key.endswith("relative_position_index") and prefix + key in tensors:
            tensors[prefix + key] = value


def _clap_audio_model(**sizes: Any) -> nn.Module:
    """Builds a ClapAudioModel of ``transformers``, whose import takes seconds, with random weights."""
    from transformers import ClapAudioConfig, ClapAudioModel

    return ClapAudioModel(ClapAudioConfig(enable_fusion=False, **sizes))


def _check_sizes(
    front_end: FrontEnd, image_size: int, dim: int, depths: Sequence[int], heads: Sequence[int], window_size: int
) -> None:
    """Checks that sizes fit each other. Raises InputError."""
    n_mels, stages = front_end.n_mels, len(depths)
    frames = round(front_end.seconds * front_end.sampling_rate) // front_end.hop_length + 1
    shrink = _PATCH * 2 ** (stages - 1)
    if not depths or len(heads) != stages:
        raise InputError("HTSATEncoder: heads", f"{len(heads)} numbers", f"one for each of {stages} depths, at least 1")
    if any(dim * 2**i % h for i, h in enumerate(heads)):
        raise InputError("HTSATEncoder: heads", list(heads), f"divisors of the stages' widths {dim} * 2^stage")
    if image_size % n_mels or n_mels % shrink:
        expected = f"n_mels a multiple of {shrink} (4 * 2^(stages - 1)) and a divisor of image_size"
        raise InputError("HTSATEncoder: image_size", f"{image_size} for {n_mels} mel bands", expected)
    if frames > image_size * (image_size // n_mels):
        found = f"{image_size} for {frames} frames of {n_mels} bands"
        raise InputError("HTSATEncoder: image_size", found, "a square that holds them")
    if (image_size // shrink) % window_size:
        found = f"{window_size} for {image_size // shrink} patches in the last stage"
        raise InputError("HTSATEncoder: window_size", found, "a divisor")


def _weights_file(weights: str) -> Path:
    """Finds the weights file of a path or of a model on the hub."""
    path = resolve(weights)
    names = ("model.safetensors", "pytorch_model.bin")
    if path.is_dir():
        found = next((path / name for name in names if (path / name).is_file()), None)
        if found is None:
            raise InputError(path, "neither file", " or ".join(names))
        return found
    of_hub = not path.exists() and not path.suffix and len(path.parts) == 2 and not path.parent.is_dir()
    return _from_hub(weights, names) if of_hub else path


def _from_hub(name: str, files: Sequence[str]) -> Path:
    """Downloads the first of ``files`` that a model on the hub has, or finds it in the hub's cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    why = ""
    for file in files:
        try:
            return Path(hf_hub_download(name, file))
        except Exception as e:
            why = f"{type(e).__name__}: {e}".split("\n")[0]
            if not isinstance(e, EntryNotFoundError):
                break
    raise InputError(f"weights: {name}", f"no such path, and none from the hub ({why})", "a file, a folder or a model")
