"""Adapts any separator of ESPnet to label queries: the query conditions its input, and its outputs are the slots.

A separator has ESPnet's interface (``espnet2.enh.separator.abs_separator.AbsSeparator``): a multichannel waveform or
spectrum in, a list of K waveforms or spectra out. It has no notion of labels; the adapter encodes them in its input. So
a configuration alone adds another separator to a system.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s5.separation.conditioning import LabelEmbedding, active_slots
from s5.separation.stft import istft, stft
from s5.utils.config import build
from s5.utils.errors import InputError, one_of

PACKAGE = "espnet2.enh.separator"
DITHER = 1e-4
"""Amplitude of a tone in the scaled input (-80 dB), which keeps separators from dividing by a deviation of zero."""


class ESPnetSeparator(nn.Module):
    """Separates K slots in one pass by a separator of ESPnet.

    The mixture is scaled to unit power and conditioned; the separator's outputs are scaled back.

    Args:
        separator: module and class below ``espnet2.enh.separator``, e.g. ``uses_separator.USESSeparator``.
        separator_conf: arguments of the separator, without the number of outputs and ``input_dim``. A separator for a
            fixed number of microphones needs :attr:`n_inputs` of them.
        domain: input and output of the separator: ``"waveform"`` [B, T, M], or ``"spectrum"`` [B, frames, M, bins]
            complex.
        n_labels: number of labels C (without silence).
        n_slots: K, number of sources per pass.
        n_channels: microphones or Ambisonics channels M.
        n_fft: STFT window in samples (Hann), for the domain ``spectrum``.
        hop_length: STFT hop in samples, for the domain ``spectrum``.
        conditioning: use of the query. The label MLP turns it into short filters and periodic signals (scale and shift
            of FiLM, by frequency); a filtered channel plus a signal is a cue. ``"concat"`` appends ``n_cues`` cues of
            the reference channel as further channels; ``"film"`` adds its own cue to each channel.
        n_cues: number of channels that ``concat`` appends.
        period: length of filters and period of signals, in samples.
        condition_dim: width of the label MLP.

    Attributes:
        n_inputs: number of channels of the separator's input: M and the appended cues.

    Raises:
        InputError: the separator does not exist or refuses its arguments, the mixture has another channel count, or the
            outputs are not K waveforms (spectra).
    """

    window: Tensor

    def __init__(
        self,
        separator: str,
        separator_conf: dict[str, Any] | None = None,
        domain: Literal["waveform", "spectrum"] = "waveform",
        n_labels: int = 18,
        n_slots: int = 3,
        n_channels: int = 4,
        n_fft: int = 1024,
        hop_length: int = 512,
        conditioning: Literal["concat", "film"] = "concat",
        n_cues: int = 1,
        period: int = 256,
        condition_dim: int = 256,
    ) -> None:
        super().__init__()
        if conditioning == "concat" and n_cues < 1:
            raise InputError("ESPnetSeparator: n_cues", n_cues, "at least 1")
        if not 0 < hop_length <= n_fft // 2:
            raise InputError("ESPnetSeparator: hop_length", hop_length, f"1 to {n_fft // 2}, half of n_fft")
        self.n_labels, self.n_slots, self.n_channels = n_labels, n_slots, n_channels
        self.domain, self.n_fft, self.hop_length = domain, n_fft, hop_length
        self.conditioning, self.period = conditioning, period
        self.n_inputs = n_channels + (n_cues if conditioning == "concat" else 0)
        self.separator = build_separator(separator, separator_conf or {}, n_slots, n_fft // 2 + 1)
        self.label_embedding = LabelEmbedding(n_labels * n_slots, condition_dim)
        n_signals = n_cues if conditioning == "concat" else n_channels
        self.signal = nn.Linear(condition_dim, n_signals * period)
        self.filter = nn.Linear(condition_dim, n_signals * period)
        nn.init.normal_(self.filter.weight, std=(condition_dim * period) ** -0.5)
        nn.init.zeros_(self.filter.bias)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, mixture: Tensor, label_vector: Tensor) -> Tensor:
        """Waveforms [B, M, T], one-hot labels [B, K, C] (zeros: silence) -> dry sources [B, K, T] float32."""
        if mixture.shape[1] != self.n_channels:
            raise InputError("mixture", f"{mixture.shape[1]} channels", f"{self.n_channels}")
        batch, _, length = mixture.shape
        mixture = mixture.float()
        level = mixture.square().mean((1, 2), keepdim=True).sqrt()
        x = self._condition(mixture / torch.where(level > 0, level, 1.0), label_vector)
        x = x + DITHER * torch.cos(torch.arange(length, device=x.device))
        lengths = torch.full((batch,), length, device=x.device)
        if self.domain == "waveform":
            outputs = self._run(x.mT, lengths)
        else:
            sizes = self.n_fft, self.hop_length
            spectrum = stft(x, *sizes, self.window, "constant").transpose(1, 2)  # [B, frames, M, bins]
            lengths = lengths.new_full((batch,), spectrum.shape[1])
            if torch.is_autocast_enabled(x.device.type):  # torch has no half-precision complex numbers
                spectrum = _complex_pair(spectrum)
            spectra = [_as_complex(output) for output in self._run(spectrum, lengths)]
            outputs = [istft(output, *sizes, length, self.window) for output in spectra]
        if len(outputs) != self.n_slots or any(output.shape != (batch, length) for output in outputs):
            found = ", ".join(str(list(output.shape)) for output in outputs)
            raise InputError("ESPnetSeparator: outputs", found, f"{self.n_slots} of {[batch, length]}")
        sources = torch.stack([output.float() for output in outputs], dim=1)
        return sources * level * active_slots(label_vector)[..., None]

    def _run(self, x: Any, lengths: Tensor) -> list[Any]:
        try:
            return self.separator(x, lengths)[0]
        except AssertionError as e:
            raise InputError("ESPnetSeparator: domain", self.domain, str(e) or "the domain of this separator") from e

    def _condition(self, mixture: Tensor, label_vector: Tensor) -> Tensor:
        """Conditions the scaled mixture [B, M, T] on the query; returns the separator's input [B, n_inputs, T]."""
        batch, _, length = mixture.shape
        condition = self.label_embedding(label_vector.flatten(1).to(mixture.dtype))
        taps = self.filter(condition).float().reshape(-1, 1, self.period)
        signals = self.signal(condition).float().unflatten(1, (-1, self.period))
        signals = signals.repeat(1, 1, -(-length // self.period))[..., :length]
        n_cues = signals.shape[1]
        source = mixture if self.conditioning == "film" else mixture[:, :1].expand(-1, n_cues, -1)
        padded = F.pad(source, (self.period // 2, self.period - 1 - self.period // 2))
        filtered = F.conv1d(padded.reshape(1, batch * n_cues, -1), taps, groups=batch * n_cues)
        cues = filtered.reshape(batch, n_cues, length) + signals
        return mixture + cues if self.conditioning == "film" else torch.cat((mixture, cues), dim=1)


def build_separator(name: str, conf: dict[str, Any], n_slots: int, n_bins: int) -> nn.Module:
    """Builds a separator of ESPnet with K outputs.

    Args:
        name: module and class below ``espnet2.enh.separator``.
        conf: arguments of the separator, without the number of outputs and ``input_dim``.
        n_slots: number of outputs.
        n_bins: ``input_dim`` of separators of spectra.

    Raises:
        InputError: the separator does not exist or refuses its arguments.
    """
    separator_class = find_separator(name)
    parameters = inspect.signature(separator_class).parameters
    given: dict[str, Any] = {key: n_slots for key in ("num_spk", "n_srcs") if key in parameters}
    given |= {"input_dim": n_bins} if "input_dim" in parameters else {}
    return build(separator_class, conf, "separator_conf", **given)


def find_separator(name: str) -> type[nn.Module]:
    """Class of the name ``<module>.<Class>`` below ``espnet2.enh.separator``. Raises InputError if there is none."""
    module_name, _, class_name = name.rpartition(".")
    package = importlib.import_module(PACKAGE)
    modules = [module.name for module in pkgutil.iter_modules(package.__path__)]
    if module_name not in modules:
        raise InputError("separator", name, one_of([f"{m}.<Class>" for m in modules if m != "abs_separator"], name))
    module, base = import_module(module_name), import_module("abs_separator").AbsSeparator
    classes: list[Any] = [value for value in vars(module).values() if inspect.isclass(value) and value is not base]
    found: dict[str, type[nn.Module]] = {value.__name__: value for value in classes if issubclass(value, base)}
    if class_name not in found:
        raise InputError("separator", name, one_of([f"{module_name}.{key}" for key in found], name))
    return found[class_name]


def import_module(name: str) -> Any:
    """Imports a module below ``espnet2.enh.separator`` without its warnings about torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return importlib.import_module(f"{PACKAGE}.{name}")


def _complex_pair(spectrum: Tensor) -> Any:
    """Converts to ESPnet's complex type, a pair of real tensors."""
    from torch_complex.tensor import ComplexTensor

    return ComplexTensor(spectrum.real, spectrum.imag)


def _as_complex(spectrum: Any) -> Tensor:
    """Converts either of ESPnet's complex types to a complex64 tensor."""
    if isinstance(spectrum, Tensor):
        return spectrum.to(torch.complex64)
    return torch.complex(spectrum.real.float(), spectrum.imag.float())
