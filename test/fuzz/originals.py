"""Small sound inputs of every kind, 8 kHz, three labels, networks of random weights: what the mutants are made of."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import soundfile
import yaml

RATE, N, LABELS = 8000, 4800, ("Cough", "Percussion", "Speech")
AUDIO = {
    "pcm16.wav": ("WAV", "PCM_16"),
    "pcm24.wav": ("WAV", "PCM_24"),
    "float.wav": ("WAV", "FLOAT"),
    "extended.wav": ("WAVEX", "PCM_16"),
    "ulaw.wav": ("WAV", "ULAW"),
    "pcm16.flac": ("FLAC", "PCM_16"),
    "pcm24.flac": ("FLAC", "PCM_24"),
    "vorbis.ogg": ("OGG", "VORBIS"),
    "rf64.wav": ("RF64", "PCM_16"),
    "pcm16.w64": ("W64", "PCM_16"),
    "pcm16.aiff": ("AIFF", "PCM_16"),
    "pcm16.au": ("AU", "PCM_16"),
}
ENCODER = {"sampling_rate": RATE, "input_size": [80, 201], "dim": 8, "depth": 1, "heads": 2}
TAGGER = {"n_channels": 1, "encoder": ENCODER, "head": {"track_dim": 8, "hidden_dim": 8}}
SEPARATOR = {"n_fft": 128, "hop_length": 64, "widths": [2, 3], "condition_dim": 4}
MODELS = {"tagger": ("m2d", TAGGER), "separator": ("resunetk", SEPARATOR)}
SYSTEM = {
    "taggers": {"tagger": {"experiment": "tagger", "weight": 1.0}},
    "separators": {"separator": {"experiment": "separator"}},
    "vote": {"rule": "vote", "gamma": 1.0, "weights": {"tagger": 1.0}},
    "fusion": {"default": {"separator": 1.0}},
    "gate": {"margin": 200.0, "silence": 0.9},
    "precision": "fp32",
}
SUBMISSION = "Nguyen_NTT_task4_1_out"
SOUNDSCAPES = {"eval_0000": ["Speech", "Speech"], "eval_0001": [], "eval_0002": ["Cough"]}


def noise(seed: int, channels: int = 1, n: int = N) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((n, channels))


def write_room(path: Path, positions: int = 4, channels: int = 4, compression: int = 0) -> None:
    import sofar

    rng = np.random.default_rng(0)
    azimuth = np.arange(positions) * 360.0 / positions
    sofa = sofar.Sofa("GeneralFIR")
    sofa.SourcePosition = np.stack([azimuth, 0 * azimuth, 0 * azimuth + 1.5], axis=1)
    sofa.SourcePosition_Type, sofa.SourcePosition_Units = "spherical", "degree, degree, metre"
    sofa.ReceiverPosition = np.zeros((channels, 3))
    sofa.Data_IR = rng.standard_normal((positions, channels, 200)) * np.exp(-np.arange(200) / 25)
    sofa.Data_Delay, sofa.Data_SamplingRate = np.zeros((1, channels)), RATE
    path.parent.mkdir(parents=True, exist_ok=True)
    sofar.write_sofa(str(path), sofa, compression=compression)


def make(root: Path) -> None:
    """Writes all of them, a folder a kind."""
    import torch

    torch.manual_seed(0)
    _material(root)
    _experiments(root)
    _scenes(root)
    _data(root)
    _results(root)
    _submission(root)
    _downloads(root)


def _material(root: Path) -> None:
    (root / "audio").mkdir(parents=True)
    for name, (form, subtype) in AUDIO.items():
        soundfile.write(root / "audio" / name, noise(1, 4), RATE, subtype, format=form)
    raw = root / "scene/raw"
    for split, files in {
        "sound_event": {"Speech/a/1.flac": 1, "Speech/b/2.wav": 1, "Cough/a/1.wav": 1, "Percussion/a/1.ogg": 1},
        "interference": {"Rain/1.flac": 1},
        "noise": {"1.wav": 4},
    }.items():
        for i, (name, channels) in enumerate(files.items()):
            (raw / split / name).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(raw / split / name, noise(i, channels, 3200 if channels == 1 else 9600), RATE)
    write_room(raw / "room_ir/a.sofa")
    write_room(root / "sofa/plain.sofa")
    write_room(root / "sofa/packed.sofa", compression=5)


def _experiments(root: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from s5.separation import SEPARATORS
    from s5.system.archive import pack
    from s5.tagging import TAGGERS

    (root / "system/exp").mkdir(parents=True)
    (root / "checkpoint/exp").mkdir(parents=True)
    (root / "training").mkdir()
    facts = {"labels": list(LABELS), "n_slots": 3, "sampling_rate": RATE}
    for name, (network, conf) in MODELS.items():
        table = {"m2d": TAGGERS, "resunetk": SEPARATORS}[network]
        state = table[network](n_labels=3, n_slots=3, **conf).state_dict()
        state = {key: value.clone().contiguous() for key, value in state.items()}
        config = {**facts, "network": network, "network_conf": conf}
        folder = root / "system/exp" / name
        folder.mkdir()
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        save_file(state, folder / "weights.safetensors")
        # As a training leaves it.
        folder = root / "checkpoint/exp" / name
        folder.mkdir()
        config["best_model_criterion"] = [["valid", "acc3", "max"]]
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        trained = {f"network.{key}": value for key, value in state.items()}
        torch.save(trained, folder / "valid.acc3.best.pth")
        if name == "separator":
            folder = root / "checkpoint"
            save_file(state, folder / "plain.safetensors")
            torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
            lightning = {"state_dict": {f"model.{k}": v for k, v in state.items()}, "epoch": 3, "best": np.float64(0.5)}
            torch.save(lightning, folder / "lightning.ckpt")
            torch.save({"epoch": 3, "model": trained, "reporter": {"epoch": 3, "stats": {}}}, folder / "checkpoint.pth")
            with zipfile.ZipFile(folder / "published.zip", "w") as archive:
                archive.write(folder / "lightning.ckpt", "baseline/separator.ckpt")
        common = {"max_epoch": 1, "num_scenes": 2, "batch_size": 2, "num_workers": 0, "num_threads": 1, "seed": 3}
        common |= {"optim": "adamw", "optim_conf": {"lr": 1e-3}, "keep_nbest_models": 1, "use_matplotlib": False}
        common |= {"scheduler": "warmuplr", "scheduler_conf": {"warmup_steps": 10}, "grad_clip": 5.0, "num_examples": 0}
        criterion = {"tagger": "acc3", "separator": "sdri"}[name]
        common |= {"best_model_criterion": [["valid", criterion, "max"]], "scene_conf": {"n_events": [1, 2]}}
        training = {**common, "network": network, "network_conf": conf}
        (root / "training" / f"{name}.yaml").write_text(yaml.safe_dump(training, sort_keys=False))
    for kind in ("system", "checkpoint", "results"):
        (root / kind).mkdir(exist_ok=True)
        (root / kind / "system.yaml").write_text(yaml.safe_dump(SYSTEM, sort_keys=False))
    scores = {"set": "test", "oracle_labels": False, "by_class": {}}
    scores |= {"metrics": {"CAPI-SDRi": 1.25, "accuracy_mix": 50.0, "accuracy_src": None}, "counts": {"mixtures": 4}}
    (root / "system/scores.json").write_text(json.dumps(scores))
    (root / "archive").mkdir()
    pack(root / "system/system.yaml", root / "system/exp", root / "archive/tiny.s5", [root / "system/scores.json"])
    (root / "system/parent.yaml").write_text(yaml.safe_dump({"inherit": "system.yaml", "vote": {"gamma": 0.5}}))
    models = {"m": {"train": "tagger.yaml", "finetune": ["tagger.yaml", "tagger.yaml"]}}
    named = {"taggers": models, "separators": {"s": {"train": "tagger.yaml"}}}
    (root / "system/named.yaml").write_text(yaml.safe_dump(named))
    author = {"lastname": "A", "firstname": "B", "email": "a@b.c", "corresponding": True}
    author["affiliation"] = {"abbreviation": "TU", "institute": "Some University", "location": "Here, There"}
    about = {"number": 1, "name": "Tiny", "abbreviation": "tiny", "authors": [author], "audio_url": "https://a.org/x"}
    form = {"submission": about, "system": {"description": {"input_sampling_rate": "8 kHz"}}}
    (root / "system/authors.yaml").write_text(yaml.safe_dump(form, sort_keys=False))


def _event(label: str | None, file: str, time: float, duration: float, role: str = "foreground") -> dict:
    background = role == "background"
    return {
        "label": label,
        "source_file": file,
        "source_time": None if background else 0,
        "event_time": time,
        "event_duration": duration,
        "event_position": None if background else [[0.0, 1.5, 0.0]],
        "snr": 0 if background else 10.5,
        "role": role,
    }


def _scenes(root: Path) -> None:
    """A scene of each year and a list of both, and the YAMLs that scenes are drawn by."""
    config = {"duration": 1.0, "sr": RATE, "max_event_overlap": 3, "max_event_dur": 1.0, "ref_db": -55}
    config |= {"foreground_dir": "raw/sound_event", "background_dir": "raw/noise"}
    config |= {"interference_dir": "raw/interference"}
    foreground = [_event("Speech", "Speech/a/1.flac", 0.1, 0.4), _event("Cough", "Cough/a/1.wav", 0.3, 0.3)]
    other = [_event("Rain", "Rain/1.flac", 0.2, 0.4, "interference")]
    back = [_event(None, "1.wav", 0, 1.0, "background")]
    about = {"sofa_path": "raw/room_ir/a.sofa", "sr": RATE, "nchan": 4, "nrir": 4, "rir_len": 200}
    metadata = {**about, "direct_range_ms": [6, 50]}
    room = {"module": "room", "main": "SofaRoom.from_metadata", "args": {"metadata": metadata}}
    lists = {"fg_events": foreground, "bg_events": back, "int_events": other}
    scene = {"config": {**config, "room_config": None, "verbose": False}, **lists, "room": room}
    for events in lists.values():
        for event in events:
            event["pitch_shift"] = event["time_stretch"] = None
            if event["event_position"]:
                event["event_position"] = [[90.0, 0.0, 1.5]]
    old = {**config, "rir_dir": "raw/room_ir", "ref_channel": 0, "spatialize_direct_path_time_ms": [6, 50]}
    old_scene = {"config": old, **lists, "room": "a.sofa"}
    text = json.dumps(scene).replace("[90.0, 0.0, 1.5]", "[0.0, 1.5, 0.0]")
    (root / "scene/2026.json").write_text(text)
    (root / "scene/2025.json").write_text(json.dumps(old_scene))
    entries = [{"metadata_path": "2026.json"}, {"metadata_path": "2025.json", "ref_event": ["Cough", "Speech"]}]
    (root / "scene/list.json").write_text(json.dumps(entries))
    dirs = {name: f"raw/{name}" for name in ("sound_event", "interference", "noise", "room_ir")}
    sampler = {
        "labels": list(LABELS),
        "sampling_rate": RATE,
        "duration": 1.0,
        "max_event_duration": 0.8,
        "num_scenes": 2,
    }
    sampler |= {"n_events": [1, 3], "event_snr": [5, 20], "interference": [0, 1], "interference_snr": [0, 15]}
    sampler |= {"same_class_probability": 0.5, "same_class_min_angle": 60, "ref_db": -55, "dirs": dirs}
    (root / "scene/sampler.yaml").write_text(yaml.safe_dump(sampler, sort_keys=False))
    (root / "scene/listed.yaml").write_text(yaml.safe_dump({"scenes": "list.json", "root": ".", "num_scenes": 2}))
    shutil.copytree(root / "scene/raw", root / "sofa/raw")
    shutil.copytree(root / "scene/raw", root / "training/raw")
    (root / "sofa/2026.json").write_text(text)
    for kind in ("train", "valid"):
        (root / "training" / kind).mkdir()
        (root / "training" / kind / "sampler.yaml").write_text(yaml.safe_dump(sampler, sort_keys=False))


def _data(root: Path) -> None:
    """A data directory with estimates beside it."""
    folder = root / "datadir"
    (folder / "data").mkdir(parents=True)
    (folder / "estimates").mkdir()
    labels = {"a": [], "b": ["Speech", "Speech"], "c": ["Cough"]}
    scps: dict[str, list[str]] = {name: [] for name in ("wav", "source1", "source2", "source3", "scene")}
    for i, (utt, names) in enumerate(labels.items()):
        soundfile.write(folder / f"{utt}.wav", noise(i, 4), RATE)
        scps["wav"].append(f"{utt} {utt}.wav")
        for k, label in enumerate(names):
            soundfile.write(folder / f"{utt}_{k}.wav", noise(10 * i + k), RATE)
            soundfile.write(folder / "estimates" / f"{utt}_{k}_{label}.wav", noise(20 * i + k), RATE)
            scps[f"source{k + 1}"].append(f"{utt} {utt}_{k}.wav")
    del scps["scene"]
    scps |= {"interference1": ["b b_0.wav", "c c_0.wav"], "interference2": ["c c_0.wav"]}
    scps["rest"] = ["a b_0.wav", "b b_1.wav", "c c_0.wav"]
    for name, lines in scps.items():
        (folder / "data" / f"{name}.scp").write_text("".join(f"{line}\n" for line in lines))
    (folder / "data/labels").write_text("".join(" ".join([utt, *names]) + "\n" for utt, names in labels.items()))
    (folder / "data/n_slots").write_text("3\n")
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    (folder / "probabilities").write_text("a\nb 0.5 0.75\nc 0.9\n")
    shutil.copytree(folder, root / "estimates")
    shutil.copytree(folder, root / "labels")
    challenge = root / "estimates/challenge"
    (challenge / "soundscape").mkdir(parents=True)
    (challenge / "oracle_target").mkdir()
    for utt, names in labels.items():
        shutil.copy(folder / f"{utt}.wav", challenge / "soundscape" / f"{utt}.wav")
        for k, label in enumerate(names):
            shutil.copy(folder / f"{utt}_{k}.wav", challenge / "oracle_target" / f"{utt}_{k}_{label}.wav")


def _results(root: Path) -> None:
    """What stages 7 to 9 leave, by two taggers and a separator."""
    import kaldiio

    folder = root / "results"
    shutil.copytree(root / "datadir", folder, dirs_exist_ok=True)
    shutil.copytree(root / "system/exp", folder / "exp")
    shutil.copytree(folder / "exp/tagger", folder / "exp/other")
    system = {**SYSTEM, "taggers": {**SYSTEM["taggers"], "other": {"experiment": "other"}}}  # type: ignore[misc]
    (folder / "system.yaml").write_text(yaml.safe_dump(system))
    (folder / "out/posteriors").mkdir(parents=True)
    (folder / "out/separated/separator").mkdir(parents=True)
    tables = {}
    for utt, index in (("a", [3, 3, 3]), ("b", [2, 2, 3]), ("c", [0, 3, 3])):
        posterior = np.full((3, 4), 0.1, np.float32)
        posterior[range(3), index] = 0.7
        tables[utt] = posterior
        np.save(folder / "out/separated/separator" / f"{utt}.npy", noise(5, 3).T.astype(np.float32))
    for name in ("tagger", "other"):
        ark = f"out/posteriors/{name}.ark"
        kaldiio.save_ark(str(folder / ark), tables, scp=str(folder / f"out/posteriors/{name}.scp"))
        scp = folder / f"out/posteriors/{name}.scp"
        scp.write_text(scp.read_text().replace(str(folder / ark), ark))
    (folder / "out/posteriors/labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    (folder / "out/posteriors/n_slots").write_text("3\n")
    (folder / "out/labels").write_text("a\nb Speech Speech\nc Cough\n")
    (folder / "out/probabilities").write_text("a\nb 0.700000 0.700000\nc 0.700000\n")


def _submission(root: Path) -> None:
    (root / "submission").mkdir()
    entries, details = [], []
    with zipfile.ZipFile(root / "submission" / f"{SUBMISSION}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for utt, labels in SOUNDSCAPES.items():
            names = [f"{utt}_{slot}_{label}.wav" for slot, label in enumerate(labels)]
            for i, name in enumerate(names):
                soundfile.write(root / "submission/x.wav", noise(i), RATE)
                archive.write(root / "submission/x.wav", f"{SUBMISSION}/eval_out/{name}")
            listed = [{"filename": n, "label": x, "probability": 0.75} for n, x in zip(names, labels, strict=True)]
            entries.append({"soundscape": utt, "estimate": listed})
        rows: list[tuple] = [("t_0", ["Cough"], ["Cough"], 8.5), ("t_1", ["Cough"], [], None), ("t_2", [], [], None)]
        for utt, ref, est, value in rows:
            tp = len(set(ref) & set(est))
            counts = {"acc": sorted(ref) == sorted(est), "tp": tp, "fp": len(est) - tp, "fn": len(ref) - tp}
            metrics = [{"metric": "CAPI-SDRi", "value": value}, {"metric": "label_metrics", "value": counts}]
            padded = [[*x, *["silence"] * (3 - len(x))] for x in (ref, est)]
            row = {"soundscape": utt, "ref_labels": padded[0], "est_labels": padded[1], "probabilities": [0.5] * 3}
            details.append({**row, "metrics": metrics})
        evaluation = {"nparams": 1000, "probabilities": entries, "config": {"model": {}}}
        test = {"CAPI-SDRi": {"mean": 8.5}, "label_metrics": {"accuracy_mix": 200 / 3, "accuracy_src": 50.0}}
        test |= {"nparams": 1000, "details": details, "config": {"model": {}}}
        archive.writestr(f"{SUBMISSION}/eval_results.json", json.dumps(evaluation))
        archive.writestr(f"{SUBMISSION}/dev_set_test_results.json", json.dumps(test))
    (root / "submission/x.wav").unlink()
    (root / "submission/soundscapes").mkdir()
    for utt in SOUNDSCAPES:
        soundfile.write(root / "submission/soundscapes" / f"{utt}.wav", noise(3, 4), RATE)


def _downloads(root: Path) -> None:
    """What stage 1 unpacks and verifies."""
    folder = root / "download"
    content = folder / "content/dev_set/sound_event/train/Speech"
    content.mkdir(parents=True)
    for i in range(3):
        soundfile.write(content / f"{i}.wav", noise(i), RATE)
    for mode, name in (("w:gz", "a.tar.gz"), ("w", "a.tar"), ("w:xz", "a.tar.xz"), ("w:bz2", "a.tar.bz2")):
        with tarfile.open(folder / name, mode) as archive:
            archive.add(folder / "content/dev_set", "dev_set")
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in sorted(content.iterdir()):
            zipped.write(file, f"dev_set/sound_event/train/Speech/{file.name}")
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    shutil.copytree(folder / "content", folder / "data")
    names = ["data/dev_set/sound_event/train/Speech/0.wav"]
    (folder / "data/dev_set/files.json").write_text(json.dumps(names))
    part = {"files": ["a.zip"], "holds": ["sound_event"], "found": ["dev_set"], "urls": ["https://a.org/"]}
    corpus = {"parts": {"dev_set": part}, "labels": "labels.txt", "folders": ["dev_set/sound_event/train/Speech"]}
    corpus |= {"filelist": "dev_set/files.json", "n_slots": 3, "channels": 4, "keep": {"sampling_rate": RATE}}
    (folder / "data.yaml").write_text(yaml.safe_dump(corpus, sort_keys=False))
