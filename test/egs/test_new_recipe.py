"""docs/new_recipe.md: its commands, as they stand there, make a recipe that runs to its results."""

import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
import soundfile
import yaml

from s5.data import DataDir, audio_info
from s5.system.derived import derived_sizes
from s5.utils.config import ROOT, load_inherited

FS, CHANNELS, LABELS = 24000, 2, ("Bell", "Dog", "Voice")


def commands():
    """The shell blocks of the page, as they stand."""
    return re.findall(r"```sh\n(.*?)```", (ROOT / "docs/new_recipe.md").read_text(), re.S)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A copy of what a recipe needs, in a path with a space."""
    root = tmp_path_factory.mktemp("new recipe")
    for name in ("s5", "conf", "utils", "egs/TEMPLATE"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("run.sh", "path.sh", "LICENSE"):
        shutil.copy(ROOT / name, root / name)
    (root / "tools").mkdir()
    (root / "tools/venv").symlink_to(ROOT / "tools/venv")
    return root


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, write_room):
    """Noise bursts, rooms and backgrounds of two channels in the layout that the page tells."""
    root = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)

    def sound(path, seconds, channels=1):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, 0.1 * rng.standard_normal((int(seconds * FS), channels)), FS)

    for split in ("train", "valid", "test"):
        for label in LABELS:
            for source in range(3):
                sound(f"sound_event/{split}/{label}/{source}/a.wav", 0.5 + 0.5 * (source % 2))
        sound(f"interference/{split}/Rain/a.flac", 1.0)
        sound(f"noise/{split}/a.wav", 5.0, CHANNELS)
        write_room(root / f"room_ir/{split}/a.sofa", channels=CHANNELS, rate=FS)
    return root


def run(repository, command, **variables):
    environment = {**os.environ, "S5_NO_SETUP": "1", "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        ["bash", "-euc", command], cwd=repository, env=environment, capture_output=True, text=True, timeout=1200
    )


@pytest.mark.slow
def test_the_page_leads_to_results(repository, recordings):
    for block in commands():
        done = run(repository, block, recordings=str(recordings))
        assert done.returncode == 0, done.stdout + done.stderr
    recipe = repository / "egs/my_data"
    assert audio_info(next((recipe / "data/test/wav").glob("*.wav"))) == (CHANNELS, 4 * FS, FS)
    lines = (recipe / "data/test/labels").read_text().splitlines()
    assert all(set(line.split()[1:]) <= set(LABELS) and len(line.split()) <= 3 for line in lines)
    assert DataDir.load(recipe / "data/test").n_slots == 2
    for folder in ("tagger", "separator"):
        config = yaml.safe_load((recipe / f"exp/{folder}/config.yaml").read_text())
        assert (config["labels"], config["n_slots"], config["sampling_rate"]) == (list(LABELS), 2, FS)
    scores = json.loads((recipe / "exp/base/test_oracle/scores.json").read_text())
    assert scores["counts"]["mixtures"] == 4 and scores["metrics"]["accuracy_mix"] == 100.0
    assert (recipe / "exp/RESULTS.md").is_file() and (recipe / "exp/base/test/report/index.html").is_file()


def test_every_value_comes_from_the_options(repository):
    options = '--labels "A B" --channels 4 --sampling_rate 8000 --duration 2.5 --n_slots 4'
    done = run(repository, f"utils/new_recipe.sh {options} egs/other")
    assert done.returncode == 0, done.stderr
    conf = repository / "egs/other/conf"
    for name in ("train", "valid", "test"):
        scenes = yaml.safe_load((conf / f"scenes/{name}.yaml").read_text())
        assert (scenes["sampling_rate"], scenes["duration"], scenes["n_slots"]) == (8000, 2.5, 4)
        assert scenes["n_events"] == [1, 4] and scenes["max_event_duration"] == 2.5
        assert scenes["max_event_overlap"] == 4 and "max_same_class" not in scenes
    tagger, separator = (load_inherited(conf / f"tuning/{name}.yaml") for name in ("tagger", "separator"))
    sizes = [derived_sizes(keys, 8000, 2.5)["network_conf"] for keys in (tagger, separator)]
    assert sizes[0] == {"encoder": {"sampling_rate": 8000, "input_size": [80, 251]}}
    assert sizes[1] == {"n_fft": 256, "hop_length": 128}
    assert separator["network_conf"]["intensity"] is True and separator["scene_conf"]["n_events"] == [1, 4]
    assert (conf / "labels.txt").read_text() == "A\nB\n"


@pytest.mark.slow
def test_a_recipe_of_one_label_trains(repository, recordings):
    sizes = "--max_epoch 1 --num_scenes 16 --batch_size 4 --num_workers 0"
    made = 'utils/new_recipe.sh --labels "Bell" --channels 2 --sampling_rate 8000 --duration 2 egs/one'
    done = run(
        repository,
        f'{made}; egs/one/run.sh --stage 1 --stop_stage 5 --data_args "--source $recordings" '
        f'--scene_args "--num_scenes 3" --train_args "{sizes}"',
        recordings=str(recordings),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for model in ("tagger", "separator"):
        assert list((repository / f"egs/one/exp/{model}").glob("valid.*.pth"))


def test_many_sources_of_few_labels_may_repeat_them_more_often(repository):
    done = run(repository, 'utils/new_recipe.sh --labels "A B" --n_slots 5 egs/many')
    assert done.returncode == 0, done.stderr
    for name in ("train", "valid", "test"):
        scenes = yaml.safe_load((repository / f"egs/many/conf/scenes/{name}.yaml").read_text())
        assert (scenes["max_same_class"], scenes["max_event_overlap"]) == (3, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ('--labels "A" egs/TEMPLATE', "egs/TEMPLATE: found a file or folder, expected none of this name"),
        ('--labels "A" elsewhere', "elsewhere: found another place, expected a folder below"),
        ('--labels "A_B" egs/x', "--labels: found 'A_B', expected words without / and _"),
        ('--labels "A silence" egs/x', "--labels: found 'silence'"),
        ('--labels "A A" egs/x', "--labels: found one twice"),
        ("egs/x", "--labels: found none, expected the labels"),
        ('--labels "A" --n_slots 0 egs/x', "--n_slots: found 0, expected at least 1"),
        ('--labels "A" --channels two egs/x', "--channels: found 'two', expected a whole number"),
        ('--labels "A" --duration 0.5 egs/x', "--duration: found 0.5, expected 1 or more"),
        ('--labels "A"', "found 0 folders, expected one"),
    ],
)
def test_what_makes_no_recipe_is_refused(repository, arguments, message):
    done = run(repository, f"utils/new_recipe.sh {arguments}")
    assert done.returncode != 0 and message in done.stderr and done.stderr.count("\n") == 1
    assert not (repository / "egs/x").exists()
