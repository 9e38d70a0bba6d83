"""Reads and writes audio files; bad ones are refused with one line."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from s5.data.header import COMPRESSED, MP3_SLACK, check_length
from s5.utils.errors import InputError
from s5.utils.files import write_bytes

BLOCK = 1 << 24
"""Most frames of a compressed file that are decoded at once."""
LARGEST_SAMPLE = 1e10
"""Largest magnitude of a sample: more than whole numbers of 32 bits that are kept as floats."""


def read_audio(path: str | Path, fs: int | None = None) -> tuple[np.ndarray, int]:
    """Reads an audio file.

    Args:
        path: WAV, FLAC or Ogg.
        fs: required sampling rate in Hz; None accepts any.

    Returns:
        Samples [M channels, T] float32 (full scale 1) and the sampling rate.

    Raises:
        InputError: the file is missing, damaged or empty, holds more or less than its header says, has another
            sampling rate, or has samples that are not finite.
    """
    with open_audio(path) as sound:
        rate = sound.samplerate
        if fs is not None and rate != fs:
            raise InputError(path, f"{rate} Hz", f"{fs} Hz")
        audio = next_frames(sound, sound.frames, path)
    if not len(audio):
        raise InputError(path, "no sample", "audio")
    return np.ascontiguousarray(audio.T), rate


def audio_info(path: str | Path) -> tuple[int, int, int]:
    """Channels, samples and sampling rate (Hz) of an audio file, from its header. Raises as :func:`open_audio`."""
    with open_audio(path) as sound:
        return sound.channels, sound.frames, sound.samplerate


def open_audio(path: str | Path, content: bytes | None = None) -> soundfile.SoundFile:
    """Opens an audio file for reading. All code that reads users' audio opens it with this function.

    Args:
        path: WAV, FLAC, Ogg or another container that :mod:`s5.data.header` knows.
        content: the file's bytes, if it is part of another file; ``path`` then only names it in errors.

    Raises:
        InputError: the file is missing or damaged, or holds more or less than its header says.
    """
    if content is None and not os.path.isfile(path):
        raise InputError(path, "no file", "an audio file")
    try:
        with open(path, "rb") if content is None else io.BytesIO(content) as file:
            sound = soundfile.SoundFile(str(path) if content is None else io.BytesIO(content))
            try:
                check_length(file, sound, path)
            except BaseException:
                sound.close()
                raise
    except (soundfile.LibsndfileError, OSError, UnicodeError) as e:  # UnicodeError: the name is not UTF-8
        raise InputError(path, "a file that libsndfile cannot read", "an audio file") from e
    return sound


def next_frames(
    sound: soundfile.SoundFile, n_frames: int, path: str | Path, kind: str = "float32", start: int | None = None
) -> np.ndarray:
    """Reads the next frames [n_frames, C] of an open file.

    Args:
        sound: the file.
        n_frames: number of frames.
        path: the name in errors.
        kind: numpy's name of the samples' type, ``float32`` or ``int16``.
        start: frame to seek first; None continues at the present position.

    Raises:
        InputError: the audio is damaged, ends before ``n_frames``, or has samples that are not finite or
            larger than :data:`LARGEST_SAMPLE`.
    """
    # The header of a compressed file may promise too much, so memory is allocated block by block.
    step = min(n_frames, BLOCK) if sound.format in COMPRESSED else n_frames
    pieces: list[np.ndarray] = []
    n = 0
    try:
        if start:
            sound.seek(start)
        while not pieces or (n < n_frames and len(pieces[-1]) == step):
            pieces.append(sound.read(min(step, n_frames - n), dtype=kind, always_2d=True))
            n += len(pieces[-1])
    except soundfile.LibsndfileError as e:
        raise InputError(path, f"damaged audio ({e.error_string})", "an audio file") from e
    if n < n_frames and sound.format == "MP3" and n_frames - n <= MP3_SLACK:
        pieces.append(np.zeros((n_frames - n, sound.channels), kind))
    elif n < n_frames:
        raise InputError(path, f"{n} of {n_frames} frames", "all of them (is the file truncated?)")
    frames = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    if kind == "float32" and frames.size:
        peak = float(max(frames.max(), -frames.min()))
        if not np.isfinite(peak):
            raise InputError(path, "samples that are not finite", "audio")
        if peak > LARGEST_SAMPLE:
            raise InputError(path, f"a sample of magnitude {peak:.2g}", f"at most {LARGEST_SAMPLE:g}")
    return frames


class Clipped(NamedTuple):
    """Samples that were clipped when audio was converted to whole numbers."""

    samples: int = 0
    """Number of samples beyond full scale."""
    peak: float = 0.0
    """Greatest magnitude of all samples; full scale is 1."""

    def __str__(self) -> str:
        return f"{self.samples} samples beyond full scale were clipped (peak {self.peak:.3g}, full scale is 1)"

    def joined(self, other: Clipped) -> Clipped:
        """The same for two pieces of audio together."""
        return Clipped(self.samples + other.samples, max(self.peak, other.peak))


def whole_numbers(audio: np.ndarray, bits: int) -> tuple[np.ndarray, Clipped]:
    """Converts samples of full scale 1 to int32 whole numbers of ``bits`` bits; clips those beyond full scale."""
    full = 2 ** (bits - 1)
    whole = np.clip(np.round(np.asarray(audio, np.float64) * full), -full, full - 1).astype(np.int32)
    magnitude = np.abs(audio)
    return whole, Clipped(int((magnitude > 1).sum()), float(magnitude.max(initial=0.0)))


def write_audio(path: str | Path, audio: np.ndarray, fs: int, subtype: str = "FLOAT") -> Clipped:
    """Writes a WAV file, or FLAC by the name's suffix, under a temporary name, then renames it.

    The same samples give the same bytes.

    Args:
        path: the file; its folder has to exist.
        audio: [M channels, T] or [T].
        fs: sampling rate in Hz.
        subtype: ``FLOAT`` (32 bit, not FLAC), ``PCM_16`` or ``PCM_24`` (clipped to full scale).

    Returns:
        The clipped samples, for the caller to report; none for ``FLOAT``.
    """
    import scipy.io.wavfile  # its import takes a quarter of a second, which commands that only read are spared

    path = Path(path)
    flac = path.suffix == ".flac"
    if subtype not in ("PCM_16", "PCM_24") and (flac or subtype != "FLOAT"):
        raise ValueError(f"subtype {subtype}: PCM_16 or PCM_24" + ("" if flac else " or FLOAT"))
    samples = np.atleast_2d(audio).T
    content = io.BytesIO()
    clipped = Clipped()
    if subtype == "FLOAT":
        # Not with libsndfile, which writes the time of day into float files.
        scipy.io.wavfile.write(content, fs, np.ascontiguousarray(samples.astype("<f4")))
    else:
        bits = int(subtype.removeprefix("PCM_"))
        whole, clipped = whole_numbers(samples, bits)
        if flac or bits == 24:
            soundfile.write(content, whole << (32 - bits), fs, subtype, format="FLAC" if flac else "WAV")
        else:
            scipy.io.wavfile.write(content, fs, np.ascontiguousarray(whole.astype("<i2")))
    write_bytes(path, content.getvalue())
    return clipped
