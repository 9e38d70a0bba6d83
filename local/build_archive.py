#!/usr/bin/env python3
"""Rebuilds mini_s5.tar.gz, the audio of the mini data set, from recordings in Debian packages.

    local/build_archive.py --work /some/folder        # downloads into it, unpacks there, writes local/mini_s5.tar.gz
    local/build_archive.py --licenses                 # writes LICENSES.md from local/sources.yaml

Only a maintainer needs this: the archive is part of the repository. It needs Debian 12 (apt-get, dpkg), ffmpeg and
fluidsynth; packages are unpacked into the work folder and never installed. ``sources.yaml`` names every recording:
its package, its label, and the recipe that turns it into files. A source folder holds one voice, one set of keys, one
surface, one drum kit or one instrument, and belongs to one split, which a hash decides. One-shots (a step, a key press,
a drum) are composed into runs of one source. Every choice is drawn from a seed made of the file's own name, so that a
rebuilt archive has the same content and adding a source changes no other file, though it may send one to another split.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import soundfile as sf
import soxr
from scipy.signal import butter, sosfiltfilt

from s5.utils.config import load_yaml
from s5.utils.files import atomic_write, write_text

FS = 16000
HERE = Path(__file__).resolve().parent
SPLITS = ("train", "valid", "test")
VORBIS_LEVEL = 0.6  # soundfile's compression level, 0 (large) to 1 (small)


# ---------------------------------------------------------------- reading


def fetch(package: str, work: Path) -> Path:
    """Folder of the unpacked package, in exactly the version of sources.yaml; downloads it on first use."""
    version = read_sources()[0][package]["version"]
    folder = work / "x" / f"{package}={version}"
    if not folder.is_dir():
        for part in (work / "deb", work / "x"):
            part.mkdir(parents=True, exist_ok=True)
        command = ["apt-get", "download", f"{package}={version}"]
        subprocess.run(command, cwd=work / "deb", check=True, stdout=subprocess.DEVNULL)
        deb = next((work / "deb").glob(f"{package}_*.deb"))
        partial = folder.with_name(folder.name + ".partial")
        subprocess.run(["dpkg", "-x", str(deb), str(partial)], check=True)
        partial.rename(folder)
        deb.unlink()
    return folder


def read_mono(data: bytes, suffix: str) -> np.ndarray:
    """Waveform [samples] at 16 kHz: the mean of the channels."""
    if suffix in (".g722", ".gsm", ".opus"):
        args = ["-f", suffix[1:]] if suffix != ".opus" else []
        command = ["ffmpeg", "-v", "error", *args, "-i", "pipe:", "-ac", "1", "-ar", str(FS), "-f", "f32le", "pipe:"]
        return np.frombuffer(subprocess.run(command, input=data, check=True, capture_output=True).stdout, np.float32)
    wav, fs = sf.read(io.BytesIO(data), dtype="float32", always_2d=True)
    mono = wav.mean(axis=1)
    # Channels out of phase would cancel: keep the louder one then.
    if wav.shape[1] > 1 and np.sum(mono**2) < 0.25 * np.max(np.sum(wav**2, axis=0)):
        mono = wav[:, np.argmax(np.sum(wav**2, axis=0))]
    return soxr.resample(mono, fs, FS, "HQ") if fs != FS else mono


def clean(wav: np.ndarray, floor_db: float = -46.0) -> np.ndarray:
    """Cuts near-silent ends (``floor_db`` below the peak, 5 ms frames) and scales the peak to 1.

    What lies below 30 Hz is taken out first: some recordings drift.
    """
    if len(wav) < 100:
        return np.zeros(0, np.float32)
    wav = sosfiltfilt(butter(2, 30, "highpass", fs=FS, output="sos"), wav - np.mean(wav))
    peak = np.max(np.abs(wav), initial=0.0)
    if peak < 1e-4:
        return np.zeros(0, np.float32)
    hop = FS // 200
    frames = np.abs(np.pad(wav, (0, -len(wav) % hop))).reshape(-1, hop).max(axis=1)
    loud = np.flatnonzero(frames > peak * 10 ** (floor_db / 20))
    return (wav[loud[0] * hop : (loud[-1] + 1) * hop] / peak).astype(np.float32)


def fade(wav: np.ndarray, start: float = 0.002, end: float = 0.02) -> np.ndarray:
    """Raised-cosine fades at both ends; ``start`` and ``end`` in seconds."""
    wav = wav.copy()
    n, m = (min(int(s * FS), len(wav) // 2) for s in (start, end))
    if n:
        wav[:n] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(n) / n)
    if m:
        wav[-m:] *= 0.5 + 0.5 * np.cos(np.pi * np.arange(1, m + 1) / m)
    return wav


def pk3_members(content: bytes) -> dict[str, bytes]:
    """Files of a Quake 3 package, which is a zip archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {n: archive.read(n) for n in archive.namelist() if not n.endswith("/")}


def ocg_members(content: bytes) -> dict[str, bytes]:
    """Files of an OpenClonk group: gzip with a magic number of its own, a scrambled head, a table, the contents."""
    if content[:2] in (b"\x1e\x8c", b"\x1f\x8b"):
        content = zlib.decompressobj(31).decompress(b"\x1f\x8b" + content[2:])
    head = bytearray(byte ^ 237 for byte in content[:204])
    for i in range(0, len(head) - 2, 3):
        head[i], head[i + 2] = head[i + 2], head[i]
    count = struct.unpack("<I", head[36:40])[0]
    out: dict[str, bytes] = {}
    for k in range(count):
        entry = content[204 + 316 * k : 204 + 316 * (k + 1)]
        name = entry[:260].split(b"\0")[0].decode("latin1")
        _, is_group, size, _, offset = struct.unpack("<5I", entry[260:280])
        start = 204 + 316 * count + offset
        data = content[start : start + size]
        out |= {f"{name}/{n}": d for n, d in ocg_members(data).items()} if is_group else {name: data}
    return out


def rcc_members(content: bytes) -> dict[str, bytes]:
    """Files of a compiled Qt resource."""
    version, tree, data, names = struct.unpack(">4I", content[4:20])
    size = 22 if version >= 2 else 14

    def walk(index: int, path: str) -> dict[str, bytes]:
        node = content[tree + index * size :][:14]
        name_at, flags = struct.unpack(">IH", node[:6])
        if index:
            length = struct.unpack(">H", content[names + name_at :][:2])[0]
            path += "/" + content[names + name_at + 6 :][: 2 * length].decode("utf-16-be")
        if flags & 2:
            count, first = struct.unpack(">2I", node[6:14])
            return {n: d for k in range(first, first + count) for n, d in walk(k, path).items()}
        at = data + struct.unpack(">I", node[10:14])[0]
        length = struct.unpack(">I", content[at : at + 4])[0]
        body = content[at + 4 : at + 4 + length]
        return {path[1:]: zlib.decompress(body[4:]) if flags & 1 else body}

    return walk(0, "")


CONTAINERS = {".pk3": pk3_members, ".ocg": ocg_members, ".rcc": rcc_members}


@cache
def container(path: Path) -> dict[str, bytes]:
    """Files inside a game's container by path."""
    return CONTAINERS[path.suffix](path.read_bytes())


def files_of(source: dict[str, Any], work: Path) -> list[tuple[str, bytes]]:
    """(path inside the package, content) of the recordings of a source, sorted by path.

    A pattern ``container!member`` looks into a container. Of more than ``most`` recordings, that many are drawn.
    """
    found: list[tuple[str, Path | bytes]] = []
    for package in source["package"]:
        folder = fetch(package, work)
        for pattern in source["files"]:
            outer, _, member = pattern.partition("!")
            for path in sorted(folder.glob(outer)):
                inside = f"{package}/{path.relative_to(folder)}"
                if not member:
                    found.append((inside, path))
                else:
                    files = container(path).items()
                    found += [(f"{inside}/{n}", d) for n, d in files if PurePosixPath(n).match(member)]
    skip = source.get("skip", [])
    found = sorted((f for f in found if not any(s in f[0] for s in skip)), key=lambda f: f[0])
    if not found:
        raise SystemExit(f"{source['label']}/{source['name']}: no file matches {source['files']}")
    most = source.get("most", len(found))
    if len(found) > most:
        found = [found[i] for i in sorted(rng_of(source, -1).permutation(len(found))[:most])]
    return [(name, where if isinstance(where, bytes) else where.read_bytes()) for name, where in found]


def load(source: dict[str, Any], work: Path) -> dict[str, np.ndarray]:
    """The cleaned recordings of a source by file stem."""
    if "font" in source:
        return soundfont(source, work)
    out = {}
    for name, data in files_of(source, work):
        wav = clean(read_mono(data, Path(name).suffix.lower()), source.get("floor_db", -46.0))
        if len(wav) >= FS // 50:
            out[name.rsplit(".", 1)[0]] = wav
    return out


# ---------------------------------------------------------------- General MIDI


def midi(events: list[tuple[float, int, int, int]], bank: int, program: int, channel: int) -> bytes:
    """A standard MIDI file. ``events``: (seconds, note, velocity, 1 on or 0 off)."""
    ticks = 480  # a quarter note of half a second: 960 ticks a second

    def number(n: int) -> bytes:
        out = [n & 127]
        while n := n >> 7:
            out.insert(0, (n & 127) | 128)
        return bytes(out)

    head = [(0, bytes([0xB0 | channel, 0, bank])), (0, bytes([0xC0 | channel, program]))]
    notes = [(round(t * 2 * ticks), bytes([(0x90 if on else 0x80) | channel, n, v])) for t, n, v, on in sorted(events)]
    track, last = b"", 0
    for tick, message in head + notes:
        track, last = track + number(tick - last) + message, tick
    track += number(0) + b"\xff\x2f\x00"
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, ticks) + b"MTrk" + struct.pack(">I", len(track)) + track


def play(source: dict[str, Any], work: Path, events: list[tuple[float, int, int, int]]) -> np.ndarray:
    """Renders notes with fluidsynth, without reverberation and chorus: [samples] at 16 kHz."""
    font = next(fetch(source["package"][0], work).glob(source["font"]))
    bank, program = source.get("bank", 0), source["program"]
    score, wav = work / f"{source['name']}.mid", work / f"{source['name']}.wav"
    channel = 9 if bank == 128 else 0
    score.write_bytes(midi(events, 0 if bank == 128 else bank, program, channel))
    command = [
        "fluidsynth",
        "-ni",
        "-q",
        "-R",
        "0",
        "-C",
        "0",
        "-g",
        "0.5",
        "-r",
        "48000",
        "-o",
        "synth.midi-bank-select=gs",
    ]
    subprocess.run([*command, "-F", str(wav), str(font), str(score)], check=True, stdout=subprocess.DEVNULL)
    out = read_mono(wav.read_bytes(), ".wav")
    score.unlink()
    wav.unlink()
    return out


def soundfont(source: dict[str, Any], work: Path) -> dict[str, np.ndarray]:
    """Single notes of a sound font as recordings: every note of ``notes``, held for ``hold`` seconds."""
    slot = source["hold"] + 2.0
    notes = source["notes"]
    events = []
    for i, note in enumerate(notes):
        events += [(i * slot, note, 110, 1), (i * slot + source["hold"], note, 0, 0)]
    wav = play(source, work, events)
    cuts = [wav[int(i * slot * FS) : int((i + 1) * slot * FS)] for i in range(len(notes))]
    # The last slot may end early: the synthesiser stops when all is quiet.
    return {f"note{n}": clean(c) for n, c in zip(notes, cuts, strict=True) if np.max(np.abs(c), initial=0.0) > 1e-3}


# ---------------------------------------------------------------- recipes


Rng = np.random.Generator
Takes = dict[str, np.ndarray]


def stretch(wav: np.ndarray, factor: float) -> np.ndarray:
    """Plays faster (``factor`` above 1) or slower, as a tape does."""
    return soxr.resample(wav, round(FS * factor), FS, "HQ") if abs(factor - 1) > 1e-3 else wav


def mix_in(track: np.ndarray, wav: np.ndarray, at: float) -> None:
    """Adds a sound at ``at`` seconds, cut at the end of the track."""
    start = int(at * FS)
    n = min(len(wav), len(track) - start)
    if n > 0:
        track[start : start + n] += wav[:n]


def hit(takes: Takes, rng: Rng, factor: float = 1.0, longest: float = 0.9) -> np.ndarray:
    """One take at random, at a slightly random rate, not longer than ``longest`` seconds."""
    wav = takes[sorted(takes)[rng.integers(len(takes))]]
    return fade(stretch(wav, factor * rng.uniform(0.98, 1.02))[: int(longest * FS)], 0.0005, 0.03)


def whole(takes: Takes, rng: Rng, index: int, spec: dict[str, Any]) -> np.ndarray:
    """One recording as it is (another one for each file), cut to at most ``longest`` seconds."""
    names = sorted(takes)
    order = np.random.default_rng(spec["seed"]).permutation(len(names))
    wav = takes[names[order[index % len(names)]]]
    if index >= len(names):
        wav = stretch(wav, rng.uniform(*spec.get("rate", (0.92, 1.08))))
    return fade(wav[: int(spec.get("longest", 3.5) * FS)])


def speech(takes: Takes, rng: Rng, index: int, spec: dict[str, Any]) -> np.ndarray:
    """One prompt of a voice, or several short ones with pauses of up to a third of a second."""
    shortest, longest = spec.get("shortest", 1.0), spec.get("longest", 3.5)
    names = sorted(n for n in takes if len(takes[n]) <= longest * FS)
    order = np.random.default_rng(spec["seed"]).permutation(len(names))
    start = index * spec.get("stride", 3)
    parts: list[np.ndarray] = []
    length = 0
    for k in range(len(names)):
        wav = fade(takes[names[order[(start + k) % len(names)]]], 0.005, 0.03)
        if parts and length + len(wav) > longest * FS:
            continue
        gap = np.zeros(int(rng.uniform(0.08, 0.3) * FS), np.float32)
        parts += [gap, wav] if parts else [wav]
        length = sum(map(len, parts))
        if length >= shortest * FS:
            break
    return np.concatenate(parts)


def segment(takes: Takes, rng: Rng, index: int, spec: dict[str, Any]) -> np.ndarray:
    """A random stretch of a long recording, repeated with a cross-fade where the recording is too short."""
    wav = takes[sorted(takes)[index % len(takes)]]
    wav = stretch(wav, rng.uniform(*spec.get("rate", (0.94, 1.06))))
    length = int(rng.uniform(spec.get("shortest", 1.2), spec.get("longest", 3.2)) * FS)
    over = FS // 10
    while spec.get("loop") and len(wav) < length:
        ramp = np.sqrt(np.linspace(0, 1, over))
        wav = np.concatenate([wav[:-over], wav[-over:] * ramp[::-1] + wav[:over] * ramp, wav[over:]])
    start = rng.integers(max(1, len(wav) - length))
    return fade(wav[start : start + length], 0.03, 0.08)


def steps(takes: Takes, rng: Rng, index: int, spec: dict[str, Any]) -> np.ndarray:
    """Walking or running: one step every 0.28 to 0.62 s, nearly even."""
    length, period = rng.uniform(1.4, 3.2), rng.uniform(*spec.get("period", (0.3, 0.6)))
    track, factor = np.zeros(int((length + 0.7) * FS), np.float32), rng.uniform(0.9, 1.1)
    at = 0.0
    while at < length:
        mix_in(track, hit(takes, rng, factor, 0.6) * rng.uniform(0.6, 1.0), at)
        at += period * rng.uniform(0.93, 1.07)
    return track


def typing(takes: Takes, rng: Rng, index: int, spec: dict[str, Any]) -> np.ndarray:
    """Key presses in bursts. ``XX-1`` is the press of key XX, ``XX-0`` its release; other takes are whole strokes."""
    sounds = {n.rsplit("/", 1)[-1]: wav for n, wav in takes.items()}
    keys = sorted({n.removesuffix("-0").removesuffix("-1") for n in sounds})
    length, pace = rng.uniform(1.2, 3.2), rng.uniform(0.11, 0.26)
    track = np.zeros(int((length + 0.5) * FS), np.float32)
    at = 0.0
    while at < length:
        key, loud = keys[rng.integers(len(keys))], rng.uniform(0.55, 1.0)
        for name, delay in ((key, 0.0), (f"{key}-1", 0.0), (f"{key}-0", rng.uniform(0.06, 0.12))):
            if name in sounds:
                mix_in(track, fade(sounds[name][: int(0.25 * FS)], 0.0005, 0.03) * loud, at + delay)
        at += pace * float(np.exp(0.35 * rng.standard_normal())) + (rng.random() < 0.06) * 0.25
    return track


def clapping(takes: Takes, rng: Rng, index: int, spec: dict[str, Any]) -> np.ndarray:
    """One person or several clapping, each at an own, nearly even pace and with own hands (a rate)."""
    length = rng.uniform(1.2, 3.0)
    people = 1 if index % 3 else int(rng.integers(2, 7))
    track = np.zeros(int((length + 0.4) * FS), np.float32)
    for _ in range(people):
        period, factor, loud = rng.uniform(0.19, 0.45), rng.uniform(0.85, 1.18), rng.uniform(0.5, 1.0)
        at = rng.uniform(0, period) if people > 1 else 0.0
        while at < length:
            mix_in(track, hit(takes, rng, factor, 0.35) * loud * rng.uniform(0.6, 1.0), at)
            at += period * rng.uniform(0.93, 1.07)
    return track


def drums(takes: Takes, rng: Rng, index: int, spec: dict[str, Any]) -> np.ndarray:
    """A pattern of one or two bars on two to five instruments of one kit, sometimes one instrument alone."""
    names = sorted(takes)
    n = int(rng.integers(1, 6))
    chosen = [names[i] for i in rng.choice(len(names), min(n, len(names)), replace=False)]
    step, length = 60 / rng.uniform(80, 150) / 4, rng.uniform(1.4, 3.0)
    count = int(length / step)
    track = np.zeros(int((count * step + 0.6) * FS), np.float32)
    for name in chosen:
        wav, every = takes[name], int(rng.choice([1, 2, 2, 4, 4]))
        density, offset = rng.uniform(0.35, 0.9), int(rng.integers(every))
        loud = rng.uniform(0.5, 1.0)
        played = [k for k in range(offset, count, every) if rng.random() < density] or [offset]
        for k in played:
            mix_in(track, fade(wav[: int(0.8 * FS)], 0.0005, 0.1) * loud * rng.uniform(0.6, 1.0), k * step)
    return track


def door(takes: Takes, rng: Rng, index: int, spec: dict[str, Any]) -> np.ndarray:
    """Opening and closing a door, a chest or a gate, once or twice, or one of both alone."""
    names = sorted(takes)
    opens, closes = ([n for n in names if w in n.lower()] or names for w in ("open", "close"))
    factor, parts = rng.uniform(0.85, 1.15), []
    for _ in range(int(rng.integers(1, 3))):
        turn = [opens[rng.integers(len(opens))], closes[rng.integers(len(closes))]]
        if rng.random() < 0.25:
            turn = turn[:1] if rng.random() < 0.5 else turn[1:]
        for name in turn:
            wav = stretch(takes[name], factor * rng.uniform(0.97, 1.03))
            parts += [fade(wav[: int(1.6 * FS)], 0.001, 0.05) * rng.uniform(0.6, 1.0)]
            parts += [np.zeros(int(rng.uniform(0.05, 0.5) * FS), np.float32)]
    return np.concatenate(parts)[: int(3.5 * FS)]


def alarm(takes: Takes, rng: Rng, index: int, spec: dict[str, Any]) -> np.ndarray:
    """An alarm's tone at an even pace, in groups of up to four; ``pause``: seconds between two tones of a group."""
    wav = hit(takes, rng, rng.uniform(0.92, 1.08), 2.0)
    length, pause = rng.uniform(1.4, 3.2), rng.uniform(*spec.get("pause", (0.05, 0.3)))
    group, rest = int(rng.integers(1, 5)), rng.uniform(0.1, 0.5)
    track = np.zeros(int((length + 2.0) * FS), np.float32)
    at, count = 0.0, 0
    while at < length:
        mix_in(track, wav, at)
        count += 1
        at += len(wav) / FS + pause + (rest if count % group == 0 else 0.0)
    return track


def music(source: dict[str, Any], work: Path, count: int) -> list[np.ndarray]:
    """Short phrases of one keyboard instrument: a melody, chords, or both, in a random key."""
    slot, events, lengths = 6.0, [], []
    for i in range(count):
        rng = rng_of(source, i)
        key, beat = int(rng.integers(12)), 60 / rng.uniform(80, 150)
        scale = [0, 2, 4, 5, 7, 9, 11] if rng.random() < 0.6 else [0, 2, 3, 5, 7, 8, 10]
        length = rng.uniform(1.3, 2.8)
        pitch = lambda degree, base, key=key, scale=scale: base + key + 12 * (degree // 7) + scale[degree % 7]  # noqa: E731
        style = int(rng.integers(3))
        if style != 1:  # melody
            at, degree = 0.0, int(rng.integers(7))
            while at < length:
                span = beat * float(rng.choice([0.25, 0.5, 0.5, 1.0]))
                note, loud = pitch(degree, 60), int(rng.integers(70, 115))
                events += [(i * slot + at, note, loud, 1), (i * slot + min(at + span * 0.95, length + 0.2), note, 0, 0)]
                at, degree = at + span, int(np.clip(degree + rng.integers(-3, 4), -3, 10))
        if style != 0:  # chords
            at = 0.0
            while at < length:
                span, root = beat * float(rng.choice([1.0, 2.0])), int(rng.integers(6))
                loud = int(rng.integers(60, 100))
                for third in (0, 2, 4):
                    note = pitch(root + third, 48)
                    events += [
                        (i * slot + at, note, loud, 1),
                        (i * slot + min(at + span * 0.95, length + 0.3), note, 0, 0),
                    ]
                at += span
        lengths.append(length + 0.7)
    wav = play(source, work, events)
    return [fade(wav[int(i * slot * FS) : int((i * slot + lengths[i]) * FS)], 0.001, 0.15) for i in range(count)]


RECIPES: dict[str, Callable[[Takes, Rng, int, dict[str, Any]], np.ndarray]] = {
    "whole": whole,
    "speech": speech,
    "segment": segment,
    "steps": steps,
    "typing": typing,
    "clapping": clapping,
    "drums": drums,
    "door": door,
    "alarm": alarm,
}


# ---------------------------------------------------------------- writing


def rng_of(source: dict[str, Any], index: int) -> Rng:
    """Random numbers of one file: from its label, source and index alone."""
    key = f"{source['label']}/{source['name']}/{index}".encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest()[:8], "little"))


def ogg_crc(data: bytes) -> int:
    """Checksum of an Ogg page (CRC-32, polynomial 0x04c11db7, not reflected), from its table."""
    crc = 0
    for byte in data:
        crc = ((crc << 8) & 0xFFFFFFFF) ^ OGG_TABLE[(crc >> 24) ^ byte]
    return crc


def _ogg_table() -> list[int]:
    table = []
    for i in range(256):
        r = i << 24
        for _ in range(8):
            r = ((r << 1) ^ 0x04C11DB7) & 0xFFFFFFFF if r & 0x80000000 else (r << 1) & 0xFFFFFFFF
        table.append(r)
    return table


OGG_TABLE = _ogg_table()


def with_serial(ogg: bytes, serial: int) -> bytes:
    """The same Ogg stream under a given serial number (the encoder draws it from the clock)."""
    out, at = [], 0
    while at < len(ogg):
        n_segments = ogg[at + 26]
        size = 27 + n_segments + sum(ogg[at + 27 : at + 27 + n_segments])
        page = bytearray(ogg[at : at + size])
        page[14:18], page[22:26] = struct.pack("<I", serial), bytes(4)
        page[22:26] = struct.pack("<I", ogg_crc(bytes(page)))
        out.append(bytes(page))
        at += size
    return b"".join(out)


def encode(wav: np.ndarray, name: str) -> bytes:
    """Ogg Vorbis, mono, 16 kHz; the same bytes each time."""
    buffer = io.BytesIO()
    # libsndfile's Vorbis encoder overflows its stack on one long write: write in blocks.
    with sf.SoundFile(buffer, "w", FS, 1, "VORBIS", format="OGG", compression_level=VORBIS_LEVEL) as f:
        for block in range(0, len(wav), 8192):
            f.write(wav[block : block + 8192])
    return with_serial(buffer.getvalue(), zlib.crc32(name.encode()))


def quiet_stretch(wav: np.ndarray) -> float:
    """Longest stretch below 1 % of the peak, in seconds."""
    loud = np.flatnonzero(np.abs(wav) > 0.01 * np.max(np.abs(wav)))
    return float(np.max(np.diff(loud), initial=0)) / FS


def render(source: dict[str, Any], work: Path) -> list[np.ndarray]:
    """The files of one source: mono at 16 kHz, peak 0.9, between 0.3 and 4 s, ends cut."""
    count = source["count"]
    if source["recipe"] == "music":
        waves = music(source, work, count)
    else:
        takes = load(source, work)
        seed = int.from_bytes(hashlib.sha256(source["name"].encode()).digest()[:8], "little")
        waves = [RECIPES[source["recipe"]](takes, rng_of(source, i), i, source | {"seed": seed}) for i in range(count)]
    out = []
    for i, wav in enumerate(waves):
        if source["kind"] != "noise":
            wav = fade(clean(wav)[: 4 * FS], 0.001, 0.01)
            if len(wav) < 0.3 * FS or quiet_stretch(wav) > 1.0:
                print(f"left out {source['label']}/{source['name']} {i}: {len(wav) / FS:.2f} s", file=sys.stderr)
                continue
        out.append(0.9 * wav / np.max(np.abs(wav)))
    return out


def deal_out(
    label: str, names: Sequence[str], held_out: dict[str, float], kept: dict[str, dict[str, list[str]]]
) -> dict[str, str]:
    """Split of every source of a label: a share of them, at least two, each; ``kept`` ones first, then by a hash."""
    order = sorted(names, key=lambda name: hashlib.sha256(f"{label}/{name}".encode()).digest())
    splits = dict.fromkeys(order, "train")
    stay = {name: split for split, labels in kept.items() for name in labels.get(label, []) if name in splits}
    free = [name for name in order if name not in stay]
    for split, share in held_out.items():
        n = max(2, round(share * len(names))) - sum(s == split for s in stay.values())
        splits |= dict.fromkeys(free[: max(0, n)], split)
        free = free[max(0, n) :]
    return splits | stay


@cache
def read_sources() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(packages, sources) of sources.yaml, each source with all its fields filled."""
    table = load_yaml(HERE / "sources.yaml")
    sources = []
    for kind in ("sound_event", "interference", "noise"):
        for label, entries in table[kind].items():
            splits = deal_out(label, [entry["name"] for entry in entries], table["held_out"], table["kept"])
            for entry in entries:
                # Interference and noise name their split: they have too few sources a label to deal out.
                dealt = {"kind": kind, "label": label, "split": splits[entry["name"]]}
                source = dealt | table["defaults"].get(label, {}) | entry
                packages = source["package"]
                source["package"] = [packages] if isinstance(packages, str) else packages
                files = source.get("files", [])
                source["files"] = [files] if isinstance(files, str) else files
                sources.append(source)
    return table["packages"], sources


def build(work: Path, archive: Path) -> None:
    """Renders every source and writes the archive: names sorted, times zero."""
    _, sources = read_sources()
    members: dict[str, bytes] = {}
    seconds: dict[tuple[str, str, str], list[float]] = {}
    for source in sources:
        place = f"{source['kind']}/{source['split']}"
        stem = f"{place}/{source['label']}/{source['name']}"
        waves = render(source, work)
        for i, wav in enumerate(waves):
            name = f"{stem}/{i:02d}.ogg" if source["kind"] == "sound_event" else f"{stem}_{i:02d}.ogg"
            if source["kind"] == "noise":
                name = f"{place}/{source['name']}.ogg"
            if name in members:
                raise SystemExit(f"{name}: made twice")
            members[name] = encode(wav, name)
            seconds.setdefault((source["kind"], source["split"], source["label"]), []).append(len(wav) / FS)
    with (
        atomic_write(archive) as raw,
        # gzip, because the same Vorbis tables open every file; no name and no time in its head.
        gzip.GzipFile("", "wb", 9, raw, 0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in sorted(members):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(members[name]), 0o644
            tar.addfile(info, io.BytesIO(members[name]))
    for key, lengths in sorted(seconds.items()):
        print(f"{' '.join(key):45s} {len(lengths):4d} files {sum(lengths):7.1f} s")
    print(f"{archive}: {archive.stat().st_size / 1e6:.2f} MB, {len(members)} files")


LICENSES_HEAD = """# Where the recordings of mini_s5 come from

Written by `local/build_archive.py --licenses` from `local/sources.yaml`; do not edit. All recordings come from
Debian 12 packages, whose copyright files were read. They were cut, resampled to 16 kHz, scaled and, where they are
single strokes, steps or notes, composed into runs; the result (`local/mini_s5.tar.gz`) is a collection in which each
file stays under the licence of its source. Share-alike and GPL licences therefore go with those files; the code of this
repository is not affected. Files lie in the archive under `<kind>/<split>/<label>/<source>`.

The Italian voice `menardi` was recorded by Marco Menardi and his wife Paola Dal Zot; their recordings, updates and new
voices are found at http://www.voip.ammdomus.it.

`mini_long.s5` holds networks that were trained on the recordings listed here, and none of the recordings; its weights
are under the Apache License 2.0. Its tagger starts from YAMNet (`pretrained/LICENSES.md`).

## Packages

| package | version | author | licence | upstream |
| --- | --- | --- | --- | --- |
"""

SOURCES_HEAD = """
## Sources

| kind | split | label | source | package | files | author | licence |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""

PICTURES = """
## Pictures

| picture | what it shows | recordings | licence |
| --- | --- | --- | --- |
| `docs/images/listening_page.webp` | the listening page of `mini_long` with spectrograms of `test_0081` of the first release; it holds no sound | the sources `fluid_bright`, `tim_organ`, `gimme_a_hand`, `campfire`, `desert_wind` above | those of its sources |
"""  # noqa: E501


def licenses(path: Path) -> None:
    """Writes the table of packages and sources."""
    packages, sources = read_sources()
    lines = [LICENSES_HEAD]
    for name, package in packages.items():
        lines.append(
            f"| {name} | {package['version']} | {package['author']} | {package['licence']} | {package['url']} |\n"
        )
    lines.append(SOURCES_HEAD)
    for source in sources:
        package = packages[source["package"][0]]
        what = ", ".join(f"`{f}`" for f in source["files"])
        if "font" in source:
            what = f"`{Path(source['font']).name}`, bank {source.get('bank', 0)}, program {source['program']}"
        cells = [source[k] for k in ("kind", "split", "label", "name")] + [", ".join(source["package"]), what]
        cells += [source.get(k, package[k]) for k in ("author", "licence")]
        lines.append("| " + " | ".join(cells) + " |\n")
    lines.append(PICTURES)
    write_text(path, "".join(lines))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for downloaded packages (kept between runs)")
    parser.add_argument("--archive", type=Path, default=HERE / "mini_s5.tar.gz", help="archive to write")
    parser.add_argument("--licenses", action="store_true", help="only write LICENSES.md")
    args = parser.parse_args()
    licenses(HERE.parent / "egs/mini_s5/LICENSES.md")
    if not args.licenses:
        if args.work is None:
            parser.error("--work: the folder for downloaded packages is needed")
        build(args.work.resolve(), args.archive)


if __name__ == "__main__":
    main()
