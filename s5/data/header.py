"""Checks that an audio file holds exactly as much as its header says.

libsndfile reads a truncated file as a shorter one, and ignores samples beyond the length in the header. The check uses
the length of the chunk of samples, not RIFF's total size, which many programs write wrongly. A length that means "not
known", as programs write it into a pipe, stands for all bytes up to the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

import soundfile

from s5.utils.errors import InputError

PIPES = frozenset((0x7F000008, 0x7FFFF000, 0x7FFFFF00, 0x7FFFFFFF, 0x80000000, *range(0xFFFFFF00, 1 << 32)))
"""32-bit lengths that mean "not known": of sox (AIFF, WAV), arecord (old, new) and ffmpeg (less its header)."""

PADDING = 1 << 16
"""Most zero bytes that may follow the samples; some recorders fill up the last block of a card."""

BYTES = {"PCM_U8": 1, "PCM_S8": 1, "ULAW": 1, "ALAW": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
"""Bytes per sample of libsndfile's subtypes of fixed width."""

RATES = (100, 1_000_000)
"""Least and largest sampling rate in Hz. Any other is a sign of a damaged header, and would resample without end."""

COMPRESSED = ("FLAC", "OGG", "MP3")
"""Containers whose number of frames does not follow from their size."""

MP3_SLACK = 4 * 1152
"""Tolerance in samples for an MP3 file's length: the coder's delay and the frame that holds the length."""

DENSEST = 1 << 13
"""Most frames per byte of an Ogg file: 120 ms of Opus at 48 kHz, or 4096 frames of Vorbis, take two bytes."""


@dataclass(frozen=True)
class _Form:
    """Layout of a container's chunks: identity, size, content."""

    order: Literal["little", "big"]
    name: int = 4
    """Bytes of a chunk's identity."""
    size: int = 4
    """Bytes of a chunk's size."""
    with_head: bool = False
    """Whether the size includes identity and size."""
    align: int = 2
    first: int = 12
    """Position of the first chunk."""
    data: bytes = b"data"
    """First bytes of the identity of the samples' chunk."""
    skip: int = 0
    """Bytes before the samples in their chunk."""

    @property
    def head(self) -> int:
        return self.name + self.size


_LITTLE, _BIG = _Form("little"), _Form("big")
_AIFF = _Form("big", data=b"SSND", skip=8)
_CAF = _Form("big", size=8, align=1, first=8, skip=4)
_W64 = _Form("little", name=16, size=8, with_head=True, align=8, first=40)


def check_length(content: BinaryIO, sound: soundfile.SoundFile, where: object) -> None:
    """Refuses a file whose header does not match its content.

    Args:
        content: the file, open for reading from any position.
        sound: the same file, opened by libsndfile.
        where: the name in errors.

    Raises:
        InputError: the file holds more or less than its header says (the error names both lengths), or has a sampling
            rate outside :data:`RATES`.
    """
    low, high = RATES
    if not low <= sound.samplerate <= high:
        raise InputError(where, f"{sound.samplerate} Hz", f"a sampling rate from {low} to {high} Hz")
    size = content.seek(0, 2)
    if sound.format == "FLAC":
        _check_flac(content, size, where)
    elif sound.format == "OGG":
        _check_ogg(content, size, sound.frames, where)
    elif sound.format == "MP3":
        _check_mp3(content, sound.frames, where)
    else:
        _check_uncompressed(content, size, sound, where)


# --- Containers of samples as they are ----------------------------------------------------------------------------


def _check_uncompressed(content: BinaryIO, size: int, sound: soundfile.SoundFile, where: object) -> None:
    content.seek(0)
    head = content.read(512)
    form = _form(head)
    samples = _samples(content, head, form, size)
    if samples is None:
        known = "WAV, RF64, W64, AIFF, AU, CAF, NIST, FLAC, Ogg or MP3"
        raise InputError(where, f"a {sound.format} file, whose length cannot be checked", known)
    start, length = samples
    holds = max(size - start, 0)
    says = holds if length is None else length
    width = BYTES.get(sound.subtype, 0) * sound.channels
    # An odd number of bytes, made even by a pad byte that is counted but not there.
    padded = says - holds == 1 and width % 2 == 1 and holds % width == 0
    found = f"{holds} bytes of samples where its header says {says}"
    if says > holds and not padded:
        raise InputError(where, found, "equal lengths (a truncated file?)")
    if says < holds and not _explained(content, form, start + says, size):
        why = "was the recording never finished, or is it too long for its format? sox --ignore-length reads all of it"
        raise InputError(where, found, f"equal lengths ({why})")
    if width and sound.frames != min(says, holds) // width:
        raise InputError(where, f"{sound.frames} frames where its header says {says // width}", "equal lengths")


def _form(head: bytes) -> _Form | None:
    """Layout of a file's chunks by its first bytes; None if it has none."""
    for magic, form in ((b"RIFX", _BIG), (b"FORM", _AIFF), (b"caff", _CAF), (b"riff", _W64)):
        if head.startswith(magic):
            return form
    return _LITTLE if head[:4] in (b"RIFF", b"RF64", b"BW64") else None


def _samples(content: BinaryIO, head: bytes, form: _Form | None, size: int) -> tuple[int, int | None] | None:
    """Position of the samples and their bytes by the header (None: up to the end); None if unknown."""
    if form is None:
        return _headers_of_fields(head)
    large = 0
    for name, start, length in _chunks(content, form, form.first, size):
        if name == b"ds64":  # of RF64: sizes of 64 bits
            content.seek(start + 8)
            large = int.from_bytes(content.read(8), "little")
        if not name.startswith(form.data):
            continue
        start, length = start + form.skip, length - form.skip
        if head[:4] in (b"RF64", b"BW64") and length == 0xFFFFFFFF:
            return start, large
        unknown = length + form.skip in PIPES if form.size == 4 else length >= 1 << 62
        if (form is _AIFF and length <= 0) or (unknown and start + length > size):
            return start, None
        return start, max(length, 0)
    return None


def _headers_of_fields(head: bytes) -> tuple[int, int | None] | None:
    """The same for AU and NIST files, whose headers are no chunks."""
    if head[:4] in (b".snd", b"dns."):
        order: Literal["big", "little"] = "big" if head[:4] == b".snd" else "little"
        start, length = (int.from_bytes(head[i : i + 4], order) for i in (4, 8))
        return start, None if length == 0xFFFFFFFF else length
    if head.startswith(b"NIST_1A"):
        words = [line.split() for line in head.decode("latin-1").split("\n")]
        fields = {line[0]: line[2] for line in words if len(line) == 3}
        try:
            sizes = [int(fields[key]) for key in ("sample_count", "channel_count", "sample_n_bytes")]
            return int(words[1][0]), sizes[0] * sizes[1] * sizes[2]
        except (KeyError, ValueError, IndexError):
            return None
    return None


def _chunks(content: BinaryIO, form: _Form, position: int, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields identity, first byte and length of each chunk; ends at the first bytes that are no chunk."""
    odd = False
    while position + form.head <= size:
        content.seek(position)
        name, length = content.read(form.name), int.from_bytes(content.read(form.size), form.order)
        if odd and not _is_name(name):  # an odd chunk whose pad byte was left out
            odd, position = False, position - 1
            continue
        if not _is_name(name):
            return
        if form.with_head:
            length = max(length - form.head, 0)
        yield name, position + form.head, length
        end = position + form.head + length
        position, odd = end + -end % form.align, form.align == 2 and length % 2 == 1


def _is_name(name: bytes) -> bool:
    return name[:4].isascii() and name[:4].decode("ascii").isprintable()


def _explained(content: BinaryIO, form: _Form | None, end: int, size: int) -> bool:
    """Whether the bytes after the samples are known to be no samples: chunks, a pad byte, a tag or zeros."""
    position = end
    for begin in (end,) if form is None else dict.fromkeys((end + -end % form.align, end)):
        position = end
        for _, start, length in _chunks(content, form, begin, size) if form else ():
            if start + length > size + 1:
                break
            position = start + length
        if position + 1 >= size:
            return True
        content.seek(position)
        rest = content.read(PADDING + 1)
        zeros = not rest.strip(b"\0") and len(rest) <= PADDING
        if zeros or rest.lstrip(b"\0").startswith((b"TAG", b"ID3", b"APETAG")):
            return True
    return False


def _id3(head: bytes) -> int:
    """Length in bytes of an ID3 tag, which may precede FLAC and MP3; 0 if there is none."""
    if not head.startswith(b"ID3"):
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))


# --- FLAC ---------------------------------------------------------------------------------------------------------


def _check_flac(content: BinaryIO, size: int, where: object) -> None:
    """Refuses a FLAC file without a frame that ends at the header's last sample.

    Bytes within a frame may look like the start of a frame, so every candidate near the end of the file counts.
    """
    content.seek(0)
    begin = _id3(content.read(10))
    content.seek(begin + 8)
    info = content.read(34)
    longest, total = int.from_bytes(info[2:4], "big"), int.from_bytes(info[13:18], "big") & ((1 << 36) - 1)
    if not total:
        expected = "one written to a file, not to a pipe (flac, sox or ffmpeg repair it)"
        raise InputError(where, "a FLAC file without its length in the header", expected)
    tail = b""
    for window in ((int.from_bytes(info[7:10], "big") or 1 << 15) + 256, 1 << 22):
        content.seek(max(size - window, begin))
        tail = content.read(window)
        if total in _frame_ends(tail, longest, total):
            return
    found = f"about {max(_frame_ends(tail, longest), default=0)} samples"
    raise InputError(where, f"{found} where its header says {total}", "equal lengths (a truncated file?)")


def _frame_ends(tail: bytes, longest: int, wanted: int | None = None) -> Iterator[int]:
    """Yields the last sample's number of each frame in a piece of a FLAC file, or only those equal to ``wanted``."""
    for found in _SYNC.finditer(tail):
        header = tail[found.start() : found.start() + 16]
        code, lead = header[2] >> 4, header[4]
        more = 0 if lead < 0x80 else 7 - (lead ^ 0xFF).bit_length()  # number of bytes that follow, as in UTF-8
        number = lead & (0x7F >> (more + 1 if more else 0))
        for byte in header[5 : 5 + more]:
            number = number << 6 | byte & 0x3F
        at = 5 + more
        extra = {6: 1, 7: 2}.get(code, 0)
        length = int.from_bytes(header[at : at + extra], "big") + 1 if extra else _BLOCKS[code]
        at += extra + {12: 1, 13: 2, 14: 2}.get(header[2] & 15, 0)
        # The number counts frames or (always if the last bit is set) samples.
        for end in {number + length, (number if header[1] & 1 else number * longest) + length}:
            if wanted in (None, end) and length <= longest and header[at : at + 1] == _crc8(header[:at]):
                yield end


_SYNC = re.compile(rb"\xff[\xf8\xf9](?=[\x10-\xff][\x00-\xaf].{3})", re.DOTALL)
"""Start of a frame: sync code, then lengths and rate, channels and width, number, checksum."""

_BLOCKS = {1: 192, **{i: 576 << (i - 2) for i in range(2, 6)}, **{i: 256 << (i - 8) for i in range(8, 16)}}


def _crc8(content: bytes) -> bytes:
    """Checksum of a FLAC frame's header: CRC-8 with polynomial 0x07."""
    crc = 0
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x07 if crc & 0x80 else 0)) & 0xFF
    return bytes([crc])


# --- Ogg and MP3 --------------------------------------------------------------------------------------------------


def _check_ogg(content: BinaryIO, size: int, frames: int, where: object) -> None:
    """Refuses an Ogg file whose last page is incomplete or not marked as the last."""
    content.seek(max(size - (1 << 17), 0))
    tail = content.read()
    page = tail[tail.rfind(b"OggS\0") :]
    whole = len(page) > 26 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    if not whole or not page[5] & 4:
        found = f"{size} bytes without the end of the stream"
        raise InputError(where, found, "a complete Ogg file (is it truncated?)")
    if frames > size * DENSEST:
        raise InputError(where, f"{size} bytes where its last page says {frames} samples", "more (a damaged file?)")


_BITRATES = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    **dict.fromkeys(((False, 2), (False, 3)), (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)),
}
"""Bit rates in kbit/s by whether the file is MPEG 1, and layer."""


def _check_mp3(content: BinaryIO, frames: int, where: object) -> None:
    """Refuses an MP3 file whose frames do not add up; without a length in a header, libsndfile only guesses."""
    content.seek(0)
    data = content.read()
    at = 0
    while n := _id3(data[at : at + 10]):
        at += n
    samples = 0
    while at + 4 <= len(data):
        size, length = _mp3_frame(data[at : at + 4])
        if not size:  # decoders skip bytes between the frames
            at = data.find(b"\xff", at + 1)
            if at < 0:
                break
            continue
        if at + size <= len(data):
            samples += length
        at += size
    if abs(samples - frames) > MP3_SLACK:
        raise InputError(where, f"about {samples} samples where its header says {frames}", "equal lengths")


def _mp3_frame(head: bytes) -> tuple[int, int]:
    """Bytes and samples of the frame with this head; 0, 0 if it is none."""
    version, layer, rate, bits = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3), head[2] >> 2 & 3, head[2] >> 4
    if head[0] != 0xFF or head[1] < 0xE0 or version == 1 or layer == 4 or rate == 3 or bits in (0, 15):
        return 0, 0
    hz = (44100, 48000, 32000)[rate] // {3: 1, 2: 2, 0: 4}[version]
    bitrate = 1000 * _BITRATES[version == 3, layer][bits - 1]
    pad = head[2] >> 1 & 1
    if layer == 1:
        return 4 * (12 * bitrate // hz + pad), 384
    samples = 576 if layer == 3 and version != 3 else 1152
    return samples // 8 * bitrate // hz + pad, samples
