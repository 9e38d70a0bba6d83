"""What the commands of the documentation find instead of the challenge's data and the network: small stand-ins.

    python test/docs/materials.py FOLDER

makes there

    replica2026, replica2025    the challenge's data in miniature (test/challenge/corpus/replica.py)
    web/<host>/...              the same as the archives that are published, with what Zenodo's API says about them, and
                                the baselines' checkpoints, whose tensors have the official names and shapes
    recordings                  three classes, two channels, 24 kHz, in the layout of docs/new_recipe.md
    audioset                    a clip named as AudioSet's are
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import sofar
import soundfile
import torch

ROOT = Path(__file__).resolve().parents[2]
ZENODO = {
    2026: {
        "19328046": ("DCASE2026Task4Dataset.zip", "dev_set", "DCASE2026Task4Dataset/data/dev_set"),
        "20425860": (
            "DCASE2026Task4EvaluationDataset.zip",
            "eval_set",
            "DCASE2026Task4EvaluationDataset/data/eval_set",
        ),
    },
    2025: {
        "15117227": ("DCASE2025Task4Dataset.zip", "dev_set", "final_0402_1/DCASE2025Task4Dataset/dev_set"),
        "15553984": ("DCASE2025Task4EvaluationDataset.zip", "eval_set", "DCASE2025Task4EvaluationDataset/eval_set"),
    },
}
LICENCES = {"19328046": "LISENCE.pdf", "15117227": "LISENCEv2.2.pdf", "15553984": "LISENCEv2.2.pdf"}
CHECKPOINTS = {
    2026: {"m2dat_1c.ckpt": "m2dat_1c", "m2dat_4c.ckpt": "m2dat_4c", "resunetk.ckpt": "resunetk"},
    2025: {"m2dat.ckpt": "m2dat_2025", "resunetk.ckpt": "resunetk", "resunet.ckpt": "resunet_2025"},
}


def _replica_module():
    spec = importlib.util.spec_from_file_location("s5_docs_replica", ROOT / "test/challenge/corpus/replica.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def publish_data(replica: Path, year: int, web: Path) -> None:
    """A replica as archives on web servers."""
    for record, (name, part, top) in ZENODO[year].items():
        folder = web / f"zenodo.org/records/{record}/files"
        folder.mkdir(parents=True)
        with zipfile.ZipFile(folder / name, "w") as archive:
            for path in sorted((replica / part).rglob("*")):
                if path.is_file():
                    archive.write(path, f"{top}/{path.relative_to(replica / part)}")
        if record in LICENCES:
            (folder / LICENCES[record]).write_bytes(b"%PDF-")
        files = []
        for path in sorted(folder.iterdir()):
            content = path.read_bytes()
            checksum = f"md5:{hashlib.md5(content).hexdigest()}"
            files.append({"key": path.name, "size": len(content), "checksum": checksum})
        about = web / f"zenodo.org/api/records/{record}"
        about.parent.mkdir(parents=True, exist_ok=True)
        about.write_text(json.dumps({"files": files}))


def publish_corpora(replica: Path, web: Path) -> None:
    """Semantic Hearing's tar and the zips of EARS."""
    (web / "semantichearing.cs.washington.edu").mkdir(parents=True)
    with tarfile.open(web / "semantichearing.cs.washington.edu/BinauralCuratedDataset.tar", "w") as archive:
        archive.add(replica / "BinauralCuratedDataset", "BinauralCuratedDataset")
    ears = web / "github.com/facebookresearch/ears_dataset/releases/download/dataset"
    ears.mkdir(parents=True)
    for speaker in sorted((replica / "EARS").iterdir()):
        with zipfile.ZipFile(ears / f"{speaker.name}.zip", "w") as archive:
            for path in sorted(speaker.iterdir()):
                archive.write(path, f"{speaker.name}/{path.name}")


def tensor_of(key: str, shape: list[int]) -> torch.Tensor:
    """Weights that average what they are given, each tensor one number in the file."""
    if key.endswith("norm_stats"):
        return torch.tensor([-7.1, 4.2])
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if len(shape) >= 2:
        value = 1 / float(np.prod(shape[1:]))
    else:
        value = 1.0 if key.endswith(("weight", "running_var")) else 0.01
    return torch.tensor(value).expand(shape)


def shapes_of(name: str) -> dict[str, list[int]]:
    """The official names and shapes of a network's tensors."""
    if name != "m2dat_2025":
        return json.loads((ROOT / f"test/golden/{name}_state.json").read_text())
    shapes = {key: shape for key, shape in shapes_of("m2dat_1c").items() if key.startswith(("backbone.", "to_spec."))}
    shapes |= {f"head_norm.running_{part}": [3840] for part in ("mean", "var")}
    return shapes | {"head_norm.num_batches_tracked": [], "head.weight": [18, 3840], "head.bias": [18]}


def publish_checkpoints(year: int, web: Path) -> None:
    """A baseline's release: a zip with Lightning files."""
    folder = web / f"github.com/nttcslab/dcase{year}_task4_baseline/releases/download/v1.0.0"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "baseline_checkpoint.zip", "w") as archive:
        for member, name in CHECKPOINTS[year].items():
            state = {f"model.{key}": tensor_of(key, shape) for key, shape in shapes_of(name).items()}
            with archive.open(f"checkpoint/{member}", "w") as file:
                torch.save({"state_dict": state, "pytorch-lightning_version": "2.1.0"}, file)


def make_recordings(root: Path) -> None:
    """Noise bursts, rooms and backgrounds in the layout of docs/new_recipe.md."""
    rate, channels = 24000, 2
    random = np.random.default_rng(0)

    def sound(path: str, seconds: float, channels: int = 1) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / path, 0.1 * random.standard_normal((int(seconds * rate), channels)), rate)

    for split in ("train", "valid", "test"):
        for label in ("Bell", "Dog", "Voice"):
            for source in range(3):  # as a label may stand three times
                sound(f"sound_event/{split}/{label}/{source}/a.wav", 0.5 + 0.5 * source)
        sound(f"interference/{split}/Rain/a.flac", 1.0)
        sound(f"noise/{split}/a.wav", 12.0, channels)
        sofa = sofar.Sofa("GeneralFIR")
        angles = np.arange(8) * 45.0
        sofa.SourcePosition = np.stack([angles, 0 * angles, 0 * angles + 1.5], axis=1)
        sofa.SourcePosition_Type, sofa.SourcePosition_Units = "spherical", "degree, degree, metre"
        sofa.ReceiverPosition = np.zeros((channels, 3))
        sofa.Data_IR = 0.1 * random.standard_normal((8, channels, rate // 10))
        sofa.Data_IR[:, :, 40] = 1.0
        sofa.Data_Delay, sofa.Data_SamplingRate = np.zeros((1, channels)), rate
        (root / f"room_ir/{split}").mkdir(parents=True)
        sofar.write_sofa(str(root / f"room_ir/{split}/a.sofa"), sofa, compression=0)


def main() -> None:
    """See the module."""
    root = Path(sys.argv[1])
    replica = _replica_module()
    web = root / "web"
    for year in (2026, 2025):
        folder = replica.make_replica(root / f"replica{year}", year)
        publish_data(folder, year, web)
        publish_checkpoints(year, web)
    publish_corpora(root / "replica2026", web)
    make_recordings(root / "recordings")
    (root / "audioset").mkdir()
    event = next((root / "replica2026/dev_set/sound_event/train/Doorbell").rglob("1.wav"))
    shutil.copy(event, root / "audioset/--aE2O5G5WE_30.wav")


if __name__ == "__main__":
    main()
