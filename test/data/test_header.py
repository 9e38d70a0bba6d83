"""A file that holds more or less than its header says is refused with both lengths."""

import io
import re
import struct
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from s5.challenge.corpus.additions import Convert, Item
from s5.challenge.corpus.config import KeepRules
from s5.challenge.corpus.curation import seconds
from s5.challenge.rules import soundscapes
from s5.data import DataDir, Row, audio_info, read_audio, write_data_dir
from s5.data.header import _crc8
from s5.inference.stages import separate_file
from s5.scene import audio, bad_audio, pool
from s5.separation import windows
from s5.system.decode import DecodeConfig
from s5.utils.errors import InputError

FS = 16000
SAMPLES = (0.3 * np.random.default_rng(0).standard_normal(4000)).clip(-1, 1)
PCM = (SAMPLES * 32767).astype("<i2").tobytes()
LIST = b"LIST" + struct.pack("<I", 12) + b"INFOISFT\0\0\0\0"
LONG = np.tile(SAMPLES, 9)
MORE, LESS = "never finished", "truncated"


def wav(data=PCM, says=None, riff=None, after=b"", bits=16, before=b""):
    """A WAV file with any values in its length fields."""
    form = struct.pack("<IHHIIHH", 16, 1, 1, FS, FS * bits // 8, bits // 8, bits)
    says = len(data) if says is None else says
    body = b"WAVEfmt " + form + before + b"data" + struct.pack("<I", says) + data + after
    return b"RIFF" + struct.pack("<I", len(body) if riff is None else riff) + body


def written(kind, subtype="PCM_16", samples=SAMPLES):
    file = io.BytesIO()
    soundfile.write(file, samples, FS, format=kind, subtype=subtype)
    return file.getvalue()


def half(content):
    return content[: len(content) // 2]


def patched(content, at, new):
    return content[:at] + new + content[at + len(new) :]


def total_samples(flac, n):
    """The file with another number of samples in STREAMINFO's 36 bits."""
    return patched(flac, 21, bytes([(flac[21] & 0xF0) | n >> 32]) + (n & 0xFFFFFFFF).to_bytes(4, "big"))


RIGHT = {
    "through a pipe, sox": wav(says=0x7FFFF000, riff=0x7FFFF024),
    "through a pipe, arecord": wav(says=0x80000000, riff=0x80000024),
    "through a pipe, ffmpeg": wav(says=0xFFFFFFFF, riff=0xFFFFFFFF),
    "RIFF's size 8 too many": wav(riff=len(wav())),
    "RIFF's size 0": wav(riff=0),
    "a chunk before": wav(before=LIST),
    "a chunk behind": wav(after=LIST),
    "a chunk behind that RIFF's size leaves out": wav(riff=len(wav()) - 8, after=LIST),
    "a tag behind": wav(riff=len(wav()) - 8, after=b"TAG" + b"title".ljust(125)),
    "zeros behind, up to the end of a block": wav(riff=len(wav()) - 8, after=bytes(512)),
    "an odd chunk and its pad byte": wav(PCM[:3999], bits=8, after=b"\0" + LIST),
    "an odd chunk without its pad byte": wav(PCM[:3999], bits=8, after=LIST),
    "a pad byte that RIFF counts and that is missing": wav(PCM[:3999], bits=8, riff=len(wav(PCM[:3999])) - 7),
    "a pad byte that the chunk counts and that is missing": wav(PCM[:3999], says=4000, bits=24),
    **{kind: written(kind) for kind in ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "NIST")},
    **{name: written("WAV", name) for name in ("PCM_U8", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM", "MS_ADPCM", "GSM610")},
    **{name: written("OGG", name) for name in ("VORBIS", "OPUS")},
    "MP3": written("MP3", "MPEG_LAYER_III"),
    "AU of a length not known": patched(written("AU"), 8, b"\xff" * 4),
    "AIFF of a length not known": patched(
        written("AIFF"), written("AIFF").index(b"SSND") + 4, (0x7F000008).to_bytes(4, "big")
    ),
    "FLAC of one value, 50,000 samples a byte": written("FLAC", samples=np.zeros(5_000_000, np.int16)),
    "FLAC behind a tag": b"ID3\4\0\0\0\0\0\x10" + bytes(16) + written("FLAC"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_many_programs_write_is_read_whole(tmp_path, name):
    path = tmp_path / "x.wav"
    path.write_bytes(RIGHT[name])
    audio, fs = read_audio(path)
    n = {"an odd": 3999, "a pad byte that RIFF": 3999, "a pad byte that the": 1333, "FLAC of one": 5_000_000}
    expected = next((count for start, count in n.items() if name.startswith(start)), 4000)
    slack = 600 if name in ("IMA_ADPCM", "MS_ADPCM", "GSM610", "MP3", "OPUS") else 0  # whole blocks
    assert fs == FS and 0 <= audio.shape[1] - expected <= slack
    assert audio_info(path) == (1, audio.shape[1], FS)
    if audio.shape[1] == 4000 and expected == 4000 and name not in ("VORBIS", "OPUS", "ULAW", "PCM_U8", "MP3"):
        np.testing.assert_allclose(audio[0], SAMPLES, atol=0.3 if "ADPCM" in name or "GSM" in name else 1e-4)


WRONG = {
    **{
        f"half of {kind}": (half(written(kind)), LESS) for kind in ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "NIST")
    },
    "half of CAF": (half(written("CAF")), ""),
    **{f"half of {name}": (half(written("WAV", name)), LESS) for name in ("PCM_24", "FLOAT", "ULAW", "MS_ADPCM")},
    "half of Vorbis": (half(written("OGG", "VORBIS", LONG)), "end of the stream"),
    "half of Opus": (half(written("OGG", "OPUS", LONG)), "end of the stream|cannot read"),
    "half of FLAC": (
        half(written("FLAC", samples=LONG)),
        "samples where its header says 36000, .*truncated",
    ),
    "half of MP3": (half(written("MP3", "MPEG_LAYER_III", LONG)), "about .* says 36000"),
    "a quarter of the size": (wav(says=2000), MORE),
    "a quarter of the size, RIFF's as well": (wav(says=2000, riff=2036), MORE),
    "a quarter of the size, AIFF": (
        patched(written("AIFF"), written("AIFF").index(b"SSND") + 4, (2008).to_bytes(4, "big")),
        MORE,
    ),
    "a quarter of the size, W64": (patched(written("W64"), 0x60, struct.pack("<Q", 2024)), MORE),
    "a quarter of the length, FLAC": (total_samples(written("FLAC"), 1000), "about 4000 samples where .* says 1000"),
    "a recording that was never finished": (wav(says=0, riff=0), "8000 bytes .* says 0, .*never finished"),
    "a size of 0 and a chunk behind the samples": (wav(says=0, after=LIST), MORE),
    "a truncated file of more than 2 GiB": (wav(says=0x90000000, riff=0x90000024), LESS),
    "junk behind": (wav(after=PCM[:2000]), MORE),
    "FLAC through a pipe": (total_samples(written("FLAC"), 0), "without its length in the header"),
    "no samples, then a chunk": (wav(b"", after=LIST), "no sample"),
}


@pytest.mark.parametrize("name", WRONG)
def test_more_or_less_than_the_header_says_is_refused_in_one_line(tmp_path, name):
    content, complaint = WRONG[name]
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(InputError, match=f"x.wav: found .*{complaint}") as e:
        read_audio(tmp_path / "x.wav")
    assert "\n" not in str(e.value)


def test_a_wav_of_more_than_its_sizes_can_count_is_refused_with_both_lengths(tmp_path):
    path = tmp_path / "x.wav"
    path.write_bytes(wav())  # the sizes of 2^32 + 8000 bytes of samples, as they come out in 32 bits
    with path.open("r+b") as file:
        file.truncate(44 + 2**32 + 8000)
    with pytest.raises(InputError, match=f"found {2**32 + 8000} bytes of samples where its header says 8000"):
        audio_info(path)


def separate(path):
    return separate_file(SimpleNamespace(n_channels=1, decode=DecodeConfig()), path, path.parent / "out")


def convert(path):
    return Convert(str(path.parent), KeepRules())(Item(str(path), "y.wav"))


def data_directory(path):
    write_data_dir(path.parent, [Row("x", str(path))])
    DataDir.load(path.parent).check()


def complaint_of(read, path):
    """Complaint about a file, raised or returned."""
    try:
        return str(read(path))
    except InputError as e:
        return str(e)


@pytest.mark.parametrize(
    "read",
    [
        separate,
        convert,
        data_directory,
        lambda path: bad_audio.examine(str(path)),
        lambda path: audio.clip(str(path)),
        lambda path: pool._measure(str(path), "x.wav"),
        lambda path: list(windows._read(path)),
        seconds,
        lambda path: soundscapes(path.parent),
    ],
    ids=["separate", "additions", "data", "check", "scene", "material", "windows", "refine", "submission"],
)
@pytest.mark.parametrize("kind", ["RF64", "W64", "AIFF"])
def test_one_function_decides_for_all_that_read_audio(tmp_path, kind, read):
    (tmp_path / "x.wav").write_bytes(half(written(kind)))
    assert re.search(r"\d+ bytes of samples where its header says 8000", complaint_of(read, tmp_path / "x.wav"))


def lying_frame(flac, n):
    """The FLAC file of one frame, which says that it is the n-th; the header's length fits."""
    longest = int.from_bytes(flac[10:12], "big")
    [at] = [m.start() for m in re.finditer(rb"\xff\xf8", flac) if flac[m.start() + 4] == 0]
    number = bytes([0xF0 | n >> 18, *(0x80 | n >> shift & 0x3F for shift in (12, 6, 0))])
    header = flac[at : at + 4] + number + flac[at + 5 : at + 7]
    return total_samples(flac[:at] + header + _crc8(header) + flac[at + 8 :], n * longest + 4000)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (total_samples(written("FLAC"), 2_000_000_000), "about 4000 samples where its header says 2000000000"),
        (lying_frame(written("FLAC"), 480_000), r"\d+ of 19\d{8} frames|damaged audio"),
    ],
    ids=["the header", "the last frame, too"],
)
def test_memory_grows_with_what_a_file_holds_and_not_with_what_it_says(tmp_path, content, complaint):
    (tmp_path / "x.flac").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=complaint):
            read_audio(tmp_path / "x.flac")
        assert tracemalloc.get_traced_memory()[1] < 1 << 28
    finally:
        tracemalloc.stop()
