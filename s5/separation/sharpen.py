"""Sharpens a separator's magnitude masks at decoding time: moves them towards 0 and 1.

The report that names "mask-sharpen inference" (Deng et al.) has no formula; this definition is ours. It uses only the
waveforms of a separator and of the mixture. So it fits every separator, and its strength can be tuned on waveforms that
are separated once.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from s5.separation.stft import istft, stft
from s5.utils.errors import InputError

Array = TypeVar("Array", np.ndarray, Tensor)


def sharpen(estimates: Array, mixture: Array, strength: float, n_fft: int = 1024, hop: int = 256) -> Array:
    """Sharpens the magnitude masks between a mixture and its separated sources.

    In every bin of the STFT the mask of an estimate E on the reference channel X is m = min(|E| / |X|, 1). Its logit is
    multiplied by 1 + strength, as a lower temperature would do with a sigmoid mask:

        m' = m^(1 + s) / (m^(1 + s) + (1 - m)^(1 + s)),        E' = E m' / m

    Masks below 1/2 fall, masks above rise; 0, 1/2, 1 and all phases stay. s = 0 returns the estimates unchanged. No bin
    exceeds the mixture's energy; a bin that exceeded it before stays unchanged.

    Args:
        estimates: sources of a separator [..., K, samples].
        mixture: reference channel of the mixture [..., samples].
        strength: s, at least 0.
        n_fft: STFT window in samples (Hann).
        hop: STFT hop in samples.

    Returns:
        The shape of ``estimates``, float32 unless s = 0; zeros stay zeros.

    Raises:
        InputError: the strength is negative or not finite, or the lengths differ.

    Example:
        >>> t = np.arange(4096) / 64
        >>> loud, quiet = np.sin(2 * np.pi * t), 0.3 * np.sin(2 * np.pi * 9 * t)
        >>> estimate = 0.9 * loud + 0.3 * quiet
        >>> before, after = (np.abs(np.fft.rfft(e)) for e in (estimate, sharpen(estimate[None], loud + quiet, 1.0)[0]))
        >>> bool(after[64] > before[64]), bool(after[576] < before[576])
        (True, True)
    """
    if not 0 <= strength < float("inf"):
        raise InputError("sharpen: strength", strength, "0 or more")
    if estimates.shape[-1] != mixture.shape[-1]:
        raise InputError("sharpen: estimates", f"{estimates.shape[-1]} samples", f"{mixture.shape[-1]}, as the mixture")
    if strength == 0:
        return estimates
    e = torch.as_tensor(estimates)
    spectrum = stft(e, n_fft, hop)
    reference = stft(torch.as_tensor(mixture).to(e.device), n_fft, hop).unsqueeze(-3)
    sharp = istft(sharpen_spectrum(spectrum, reference, strength), n_fft, hop, e.shape[-1])
    # The transform leaves rounding noise in silent sources.
    sharp = torch.where(e.ne(0).any(-1, keepdim=True), sharp, 0.0)
    return sharp.numpy() if isinstance(estimates, np.ndarray) else sharp


def sharpen_spectrum(estimate: Tensor, mixture: Tensor, strength: float) -> Tensor:
    """Applies :func:`sharpen` to complex spectra whose shapes broadcast."""
    magnitude = estimate.abs()
    mask = (magnitude / mixture.abs().clamp(min=torch.finfo(magnitude.dtype).tiny)).clamp(max=1.0)
    # m' / m with both parts divided by the greater of m and 1 - m, so no power underflows.
    greater = torch.maximum(mask, 1 - mask)
    mask, rest = mask / greater, (1 - mask) / greater
    gain = mask**strength / (mask ** (1 + strength) + rest ** (1 + strength)) / greater
    return estimate * gain
