"""Makes a miniature of the published data out of noise: DCASE 2025 or 2026 Task 4, Semantic Hearing and EARS.

    python test/challenge/corpus/replica.py --year 2026 FOLDER

makes dev_set, eval_set, BinauralCuratedDataset and EARS there. Numbers of files are small but for the evaluation set,
which has all its names (links to one file).
"""

import argparse
import json
from pathlib import Path

import numpy as np
import sofar
import soundfile

from s5.challenge.corpus.config import Corpus
from s5.labels import DCASE_LABELS

RATE, SECONDS = 32000, 10.0
RECIPES = Path(__file__).resolve().parents[3] / "egs"
POSITIONS = np.array([[1.5, 0.0, 0.0], [0.0, 1.5, 0.0], [-1.5, 0.0, 0.0], [0.0, -1.5, 0.0]])


def sounds(rate: int) -> dict[str, np.ndarray]:
    """Sounds for each of the keep rules, by the status that they should get."""
    random = np.random.RandomState(rate)

    def noise(seconds: float, peak: float = 0.5) -> np.ndarray:
        x = random.uniform(-1, 1, int(seconds * rate)).astype(np.float32)
        x[x == 0] = 0.5
        return peak * x / np.abs(x).max()

    zeros = np.zeros(int(0.3 * rate), np.float32)
    quiet = np.concatenate([noise(0.5), noise(10.2, 0.01), noise(0.5)])
    almost = np.concatenate([noise(0.5), noise(9.8, 0.01), noise(0.5)])
    return {
        "selected": noise(0.7),
        "selected_trim": np.concatenate([zeros, noise(0.4), zeros, noise(0.2), zeros]),
        "selected_just_loud": noise(0.3, 0.021),
        "selected_quiet_for_less": almost,
        "selected_stereo": np.stack([noise(0.4), noise(0.4)], axis=1),
        "selected_shortest": noise(0.1),
        "remove_low_amplitude": noise(0.5, 0.019),
        "remove_too_short": noise(0.09),
        "remove_too_short_after_trim": np.concatenate([zeros, noise(0.05), zeros]),
        "remove_contain_low_amplitude_segment": quiet,
    }


def write(path: Path, audio: np.ndarray, rate: int = RATE) -> None:
    """Writes 16-bit WAV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate, subtype="PCM_16")


def make_corpora(root: Path, dev: Path, flat: bool) -> None:
    """Writes the folders of Semantic Hearing and EARS, and the development set's lists of picked files."""
    picks = []
    for rate in (44100, 32000):
        for i, (status, audio) in enumerate(sounds(rate).items()):
            name, label = f"clips/{rate}_{i}.wav", DCASE_LABELS[i]
            write(root / "BinauralCuratedDataset/FSD50K" / name, audio, rate)
            split = "valid" if i % 5 == 4 else "train"
            path = f"{split}/{label}/fsd_{rate}_{status}.wav" if flat else f"{split}/{label}/fsd_{rate}/{status}.wav"
            picks.append({"file_name": name, "t4_label": label, "convert_path": path})
    _save(dev / "config/FSD50K_config.json", picks)
    picks = []
    for speaker, rate in (("p001", 48000), ("p002", 48000), ("p107", 48000)):
        for i, status in enumerate(("selected", "selected_trim", "remove_too_short")):
            write(root / "EARS" / speaker / f"{status}.wav", sounds(rate)[status], rate)
            path = f"{speaker}_{i}.wav" if flat else f"{speaker}/{i}.wav"
            row = {"file_name": f"{speaker}/{status}.wav", "t4_label": "Speech", "convert_path": f"train/Speech/{path}"}
            picks.append(row)
        write(root / "EARS" / speaker / "not_picked.wav", sounds(rate)["selected"], rate)
    _save(dev / "config/EARS_config.json", picks)
    classes = Corpus.load(RECIPES / "dcase2026_task4/conf/data.yaml").additions[-1].classes
    some = sounds(44100)
    for split in ("train", "val"):
        for i, name in enumerate(classes):
            folder = root / "BinauralCuratedDataset/bg_scaper_fmt" / split / name
            write(folder / "a.wav", some["selected"][: 9000 + 97 * i], 44100)
            if i % 10 == 0:
                write(folder / "quiet.wav", some["remove_low_amplitude"], 44100)
        write(root / "BinauralCuratedDataset/bg_scaper_fmt" / split / "Not taken" / "a.wav", some["selected"], 44100)


def make_dev(root: Path, flat: bool) -> None:
    """Writes events, backgrounds, rooms and validation scenes of the development set."""
    random = np.random.RandomState(1)

    def noise(seconds: float, channels: int = 1) -> np.ndarray:
        return random.uniform(-0.3, 0.3, (int(seconds * RATE), channels)).astype(np.float32)

    for split in ("train", "valid"):
        for label in DCASE_LABELS:
            for source in range(2):
                for i, seconds in enumerate((0.6, 1.7)):
                    name = f"{source}_{i}.wav" if flat else f"source{source}/{i}.wav"
                    write(root / "sound_event" / split / label / name, noise(seconds))
        write(root / "noise" / split / "a.wav", noise(12, 4))
        room_file(root / "room_ir" / split / f"{split}_room.sofa")
    (root / "metadata/valid").mkdir(parents=True)
    entries = []
    for n in range(4):
        path = root / f"metadata/valid/{n:04d}.json"
        _save(path, scene_2025(n) if flat else scene_2026(n))
        entries.append({"metadata_path": f"valid/{path.name}"})
        if flat:
            entries[-1]["ref_event"] = list(DCASE_LABELS[:n])
    if flat:  # that year has a source in every mixture
        entries = entries[1:]
    _save(root / "metadata/valid.json", entries)


def room_file(path: Path) -> None:
    """Writes a room of four positions with short impulse responses."""
    random = np.random.RandomState(2)
    rirs = random.standard_normal((len(POSITIONS), 4, RATE // 20)) * np.exp(-np.arange(RATE // 20) / 200) * 0.2
    rirs[:, :, 80] = 1.0
    sofa = sofar.Sofa("GeneralFIR")
    sofa.SourcePosition, sofa.SourcePosition_Type, sofa.SourcePosition_Units = POSITIONS, "cartesian", "metre"
    sofa.ReceiverPosition = np.zeros((4, 3))
    sofa.Data_IR, sofa.Data_Delay, sofa.Data_SamplingRate = rirs, np.zeros((1, 4)), RATE
    path.parent.mkdir(parents=True, exist_ok=True)
    sofar.write_sofa(str(path), sofa, compression=0)


def _events(n: int, flat: bool) -> tuple[list, list, list]:
    """n targets, one background, and one interferer from an addition."""

    def event(label: str, file: str, i: int, role: str, snr: float) -> dict:
        times = {"source_time": 0.0, "event_time": 0.5 + i, "event_duration": 0.2 if role == "interference" else 0.6}
        position = {"event_position": [POSITIONS[i].tolist()]}
        return {"label": label, "source_file": file, **times, **position, "snr": snr, "role": role}

    name = "0_0.wav" if flat else "source0/0.wav"
    targets = [event(DCASE_LABELS[i], f"{DCASE_LABELS[i]}/{name}", i, "foreground", 10.0) for i in range(n)]
    background = {"label": None, "source_file": "a.wav", "source_time": 1.0, "event_time": 0, "event_position": None}
    background |= {"event_duration": SECONDS, "snr": 0, "role": "background"}
    return targets, [background], [event("Rain", "Rain/a.wav", 3, "interference", 5.0)]


def scene_2026(n: int) -> dict:
    """A scene of n sources in the format of SpAudSyn."""
    top = "data/dev_set"
    config = {"duration": SECONDS, "sr": RATE, "max_event_overlap": 3, "max_event_dur": 10.0, "ref_db": -55}
    config |= {"foreground_dir": f"{top}/sound_event/valid", "background_dir": f"{top}/noise/valid"}
    config |= {"interference_dir": f"{top}/interference/valid", "room_config": None, "verbose": False}
    metadata = {"sofa_path": f"{top}/room_ir/valid/valid_room.sofa", "sr": RATE, "nchan": 4, "nrir": len(POSITIONS)}
    metadata |= {"rir_len": RATE // 20, "direct_range_ms": [6, 50]}
    module = "src.modules.spatial_audio_synthesizer.room"
    room = {"module": module, "main": "SofaRoom.from_metadata", "args": {"metadata": metadata}}
    fg, bg, interference = _events(n, False)
    return {"config": config, "fg_events": fg, "bg_events": bg, "int_events": interference, "room": room}


def scene_2025(n: int) -> dict:
    """A scene of n sources in the format of 2025."""
    top = "data/dev_set"
    config = {"duration": SECONDS, "sr": RATE, "max_event_overlap": 3, "max_event_dur": 10.0, "ref_db": -50}
    config |= {"foreground_dir": f"{top}/sound_event/valid", "background_dir": f"{top}/noise/valid"}
    config |= {"interference_dir": f"{top}/interference/valid", "rir_dir": f"{top}/room_ir/valid"}
    config |= {"ref_channel": 0, "spatialize_direct_path_time_ms": [6, 50]}
    lists = [[e | {"pitch_shift": None, "time_stretch": None} for e in events] for events in _events(n, True)]
    document = {"config": config, "fg_events": lists[0], "bg_events": lists[1], "int_events": lists[2]}
    return document | {"room": "valid_room.sofa"}


def make_test(folder: Path, flat: bool) -> None:
    """Writes six mixtures of 0 (2025: 1) to 3 sources, and the sources."""
    random = np.random.RandomState(3)
    n_samples = int(SECONDS * RATE)
    for m in range(6):
        name = f"soundscape_{m:04d}"
        total = 0.002 * random.standard_normal((n_samples, 4)).astype(np.float32)
        for slot in range(max(m % 4, int(flat))):
            start = random.randint(n_samples // 2)
            dry = np.zeros(n_samples, np.float32)
            dry[start : start + RATE] = 0.1 * random.uniform(-1, 1, RATE)
            total += dry[:, None]
            # In 2026 a label may occur twice.
            label = DCASE_LABELS[m + slot] if flat or m == 2 else DCASE_LABELS[m]
            tag = label if flat else f"{slot}_{label}"
            write(folder / "oracle_target" / f"{name}_{tag}.wav", dry)
        write(folder / "soundscape" / f"{name}.wav", total)
    (folder / "oracle_target").mkdir(exist_ok=True)


def make_eval(folder: Path, count: int) -> None:
    """Writes the evaluation set: all names are links to one mixture."""
    folder.mkdir(parents=True)
    first = folder / "eval_0000.wav"
    write(first, 0.01 * np.random.RandomState(4).standard_normal((int(SECONDS * RATE), 4)))
    for i in range(1, count):
        (folder / f"eval_{i:04d}.wav").symlink_to(first.name)


def make_replica(root: str | Path, year: int = 2026) -> Path:
    """Makes the replica of a year in a folder."""
    root, flat = Path(root), year == 2025
    dev = root / "dev_set"
    make_dev(dev, flat)
    make_corpora(root, dev, flat)
    make_test(dev / ("test" if flat else "synthesized/test"), flat)
    make_eval(root / "eval_set" / ("soundscape" if flat else "synthesized/eval/soundscape"), 2290 if flat else 2567)
    if flat:
        files = [p for top in ("sound_event", "noise", "test") for p in (dev / top).rglob("*.wav")]
        _save(dev / "config/filelist.json", sorted(f"data/dev_set/{p.relative_to(dev)}" for p in files))
    return root


def _save(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--year", type=int, choices=(2025, 2026), default=2026)
    parser.add_argument("root", help="a folder that does not exist yet")
    arguments = parser.parse_args()
    make_replica(arguments.root, arguments.year)
