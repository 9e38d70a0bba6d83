"""A small experiment folder with real sounds and two systems, one of them also with oracle labels."""

import contextlib
import json
import os
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import soundfile

from s5.bin.report import main
from s5.system.training_log import write_epochs

FS, N = 8000, 8000
MIXTURES = {  # utt -> (references, labels of the system); the others are right
    "m0": (["Speech", "Speech"], ["Speech", "Speech"]),
    "m1": (["Cough"], ["Pour"]),
    "m2": (["Cough", "Pour", "Speech"], ["Cough", "Speech"]),
    "m3": ([], []),
    "m4": (["Pour"], ["Pour"]),
    "m5": ([], ["Cough"]),
}


def snr(estimate, reference):
    return float(10 * np.log10((reference**2).sum() / ((reference - estimate) ** 2).sum()))


def tone(hz, start):
    t = np.arange(N) / FS
    return (0.005 * np.sin(2 * np.pi * hz * t) * (t >= start)).astype(np.float32)


def write_results(folder, oracle, gain):
    rng = np.random.default_rng(1)
    (folder / "estimates").mkdir(parents=True)
    rows = []
    for utt, (refs, tagged) in MIXTURES.items():
        est_labels = refs if oracle else tagged
        sources = [tone(300 * (i + 1), 0.2 * i) for i in range(len(refs))]
        mixture = soundfile.read(f"data/test/wav/{utt}.wav", dtype="float32")[0][:, 0]
        pairs, free = [], list(range(len(refs)))
        for slot, label in enumerate(est_labels):
            ref = next((i for i in free if refs[i] == label), None)
            target = np.zeros(N, np.float32) if ref is None else sources[ref]
            estimate = (gain * target + 1e-4 * rng.standard_normal(N)).astype(np.float32)
            soundfile.write(folder / "estimates" / f"{utt}_{slot}_{label}.wav", estimate, FS, subtype="PCM_16")
            if ref is not None:
                free.remove(ref)
                sdr, before = snr(estimate, target), snr(mixture, target)
                pair = {
                    "label": label,
                    "est": slot,
                    "ref": ref,
                    "sdr": sdr,
                    "sdr_mixture": before,
                    "sdri": sdr - before,
                }
                pairs.append(pair)
        total = len(refs) + len(est_labels) - len(pairs)
        row = {"utt": utt, "ref_labels": refs, "est_labels": est_labels, "pairs": pairs}
        row["probabilities"] = None if oracle else [0.25 + 0.5 * (i == 0) for i in range(len(est_labels))]
        row["CAPI-SDRi"] = sum(p["sdri"] for p in pairs) / total if total else None
        rows.append(row)
    scores = {
        "set": "test",
        "system": folder.parent.name,
        "oracle_labels": oracle,
        "metrics": {
            "CAPI-SDRi": 12.345 * gain,
            "CA-SDRi": None,
            "accuracy_mix": 50.0,
            "accuracy_src": 62.5,
            "recall": 71.25,
        },
        "counts": {},
        "by_class": {
            "Cough": {"tp": 1, "SDRi": 4.321, "recall": 33.3},
            "Speech": {"tp": 3, "SDRi": None, "recall": 100.0},
        },
        "by_n_sources": {
            "0": {"CAPI-SDRi": None, "accuracy_mix": 50.0},
            "2": {"CAPI-SDRi": 7.891, "accuracy_mix": 87.6},
        },
        "by_subset": {"DupSet": {"CAPI-SDRi": 3.141, "accuracy_mix": 12.3}, "NoDupSet": {}},
        "mixtures": rows,
    }
    (folder / "scores.json").write_text(json.dumps(scores))


def write_recipe():
    """Writes the recipe folder into the working directory."""
    data = Path("data/test")
    (data / "wav").mkdir(parents=True)
    (data / "source").mkdir()
    scps = {"wav.scp": [], "labels": [], "source1.scp": [], "source2.scp": [], "source3.scp": []}
    rng = np.random.default_rng(0)
    for utt, (refs, _) in MIXTURES.items():
        mixture = 0.001 * rng.standard_normal((N, 4))
        for i, label in enumerate(refs):
            source, file = tone(300 * (i + 1), 0.2 * i), data / "source" / f"{utt}_{i}_{label}.wav"
            soundfile.write(file, source, FS, subtype="FLOAT")
            scps[f"source{i + 1}.scp"].append(f"{utt} {file}")
            mixture += source[:, None]
        soundfile.write(data / "wav" / f"{utt}.wav", mixture.astype(np.float32), FS, subtype="FLOAT")
        scps["wav.scp"].append(f"{utt} {data}/wav/{utt}.wav")
        scps["labels"].append(" ".join([utt, *refs]))
    for name, lines in scps.items():
        (data / name).write_text("".join(f"{line}\n" for line in lines))
    Path("conf").mkdir()
    Path("conf/small.yaml").write_text("{}\n")
    model = Path("exp/separator_small")
    model.mkdir(parents=True)
    (model / "config.yaml").write_text("max_epoch: 2\nbest_model_criterion:\n-   - valid\n    - loss\n    - min\n")
    passes = {
        "train": {"loss": 2.0, "time": timedelta(seconds=60)},
        "valid": {"loss": -1.625, "time": timedelta(seconds=5)},
    }
    write_epochs(model, {1: passes}, 1000, 1000)
    write_results(Path("exp/small/test"), oracle=False, gain=0.9)
    write_results(Path("exp/small/test_oracle"), oracle=True, gain=0.95)
    write_results(Path("exp/older/test"), oracle=False, gain=0.5)
    for i, folder in enumerate(("exp/older/test", "exp/small/test", "exp/small/test_oracle")):
        os.utime(f"{folder}/scores.json", (1e9 + i, 1e9 + i))


@pytest.fixture(scope="session")
def unreported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unreported")
    with contextlib.chdir(folder):
        write_recipe()
    return folder


@pytest.fixture(scope="session")
def reported(unreported, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reported")
    shutil.copytree(unreported, folder, dirs_exist_ok=True)
    with contextlib.chdir(folder):
        main(["--system", "conf/small.yaml", "--no_figures"])
    return folder


@pytest.fixture
def recipe(unreported, tmp_path, monkeypatch):
    """A recipe folder without a report, as the working directory."""
    shutil.copytree(unreported, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def made(reported, tmp_path, monkeypatch):
    """A recipe folder with its report, as the working directory."""
    shutil.copytree(reported, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
