"""The study of losses: its subsets, its figures, and the whole command at the smallest size."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from s5.labels import LabelSet
from s5.utils.config import load_inherited
from s5.utils.errors import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "local/studies"))
from losses import CLAIMS, Scores, evaluate, main, train_losses, write_study

LABELS = LabelSet(("Cough", "Percussion", "Speech"))


@pytest.fixture
def small_recipe(recipe_folder, monkeypatch):
    """The shared small recipe folder as the working directory."""
    monkeypatch.chdir(recipe_folder)


class Mixture:
    """A separator that gives the mixture for every source, and remembers what it was asked."""

    labels, sampling_rate, name = LABELS, 8000, "mixture"

    def __init__(self):
        self.queries = []

    def separate(self, mixture, labels):
        self.queries.append(list(labels))
        return np.repeat(mixture[:1], 3, axis=0) * (np.arange(3) < len(labels))[:, None]


def test_subsets_are_those_of_the_report(small_recipe):
    model = Mixture()
    study = evaluate({"ca_pi_sdr": model, "ca_sdr": Mixture()}, "scenes.yaml", 4)
    assert {subset: len(by["ca_pi_sdr"]) for subset, by in study.items()} == {"DupSet": 8, "NoDupSet": 12}
    assert [len(query) for query in model.queries] == [2] * 4 + [3] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    repeats = [len(set(query)) < len(query) for query in model.queries]
    assert repeats == [True] * 8 + [False] * 12
    for by in study.values():
        assert by["ca_pi_sdr"] == by["ca_sdr"]  # the same mixtures
        assert all(abs(score.pi_sdri) < 1e-6 and abs(score.capi_sdri) < 1e-6 for score in by["ca_sdr"])


def test_scenes_of_other_labels_are_refused(small_recipe):
    model = Mixture()
    model.labels = LabelSet(("Cough", "Speech"))
    with pytest.raises(InputError, match=r"scenes\.yaml: labels"):
        evaluate({"ca_sdr": model}, "scenes.yaml", 1)


def test_what_holds_is_told_from_what_cannot_be_told(tmp_path):
    rng = np.random.default_rng(0)
    common = rng.normal(5, 3, 200)  # mixtures differ more than losses: only pairs show it
    gain = {
        "DupSet": {"ca_pi_sdr": 1.0, "ca_sdr": 0.0, "pi_sdr": 1.0},
        "NoDupSet": {"ca_pi_sdr": 1.0, "ca_sdr": 1.0, "pi_sdr": 2.0},
    }
    study = {
        subset: {
            name: [Scores(x + d, x) for x, d in zip(common, g + rng.normal(0, 0.3, 200), strict=True)]
            for name, g in by.items()
        }
        for subset, by in gain.items()
    }
    text = write_study(study, tmp_path / "out", "a test")
    seen = [line.split("|")[-2].strip() for line in text.splitlines() if " ahead of " in line]
    assert len(seen) == len(CLAIMS) and seen == ["yes", "no, the reverse", "no, the reverse", "yes", "no, the reverse"]
    assert "| CA-SDR | " in text and "(400)" in text
    assert (tmp_path / "out/loss_study.png").read_bytes()[:4] == b"\x89PNG"
    saved = json.loads((tmp_path / "out/loss_study.json").read_text())
    assert saved["DupSet"]["ca_sdr"][0]["capi_sdri"] == pytest.approx(common[0])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "loss_study.json",
        "loss_study.md",
        "loss_study.png",
    ]


def write_configs(folder, **changes):
    paths = []
    for loss in ("ca_pi_sdr", "ca_sdr", "pi_sdr"):
        paths.append(folder / f"separator_{loss}_small.yaml")
        config = {**load_inherited("separator.yaml"), "max_epoch": 1, "num_scenes": 2, "keep_nbest_models": 1}
        criterion = [["valid", "pi_sdri" if loss == "pi_sdr" else "sdri", "max"]]
        paths[-1].write_text(yaml.safe_dump({**config, "loss": loss, "best_model_criterion": criterion, **changes}))
    return [str(path) for path in paths]


@pytest.mark.slow
def test_one_command_trains_compares_and_draws(small_recipe, tmp_path, capsys):
    configs = write_configs(tmp_path)
    common = ["--configs", *configs, "--scenes", "scenes.yaml", "--num_scenes", "2", "--ngpu", "0"]
    main([*common, "--expdir", str(tmp_path / "exp"), "--out", str(tmp_path / "study"), "--title", "small"])
    assert sorted(p.name for p in (tmp_path / "exp").iterdir()) == ["ca_pi_sdr_small", "ca_sdr_small", "pi_sdr_small"]
    assert "# Losses of the separator: small" in capsys.readouterr().out
    saved = json.loads((tmp_path / "study/loss_study.json").read_text())
    assert {subset: len(by["pi_sdr"]) for subset, by in saved.items()} == {"Total": 10, "DupSet": 4, "NoDupSet": 6}
    for by in saved.values():
        for scores in by.values():
            assert all(score["pi_sdri"] >= score["capi_sdri"] - 1e-6 for score in scores)

    # Models that the recipe has trained are taken as they are, even where the training data is gone.
    models = {path: path.read_bytes() for path in (tmp_path / "exp").rglob("*.pth")}
    for folder in (tmp_path / "exp").iterdir():
        (folder / ".done").touch()
    common += ["--expdir", str(tmp_path / "exp"), "--train", "gone", "--valid", "gone"]
    main([*common, "--out", str(tmp_path / "again"), "--title", "small"])
    assert models == {path: path.read_bytes() for path in (tmp_path / "exp").rglob("*.pth")}
    assert json.loads((tmp_path / "again/loss_study.json").read_text()) == saved

    changed = tmp_path / "exp/pi_sdr_small/config.yaml"
    changed.write_text(changed.read_text().replace("max_epoch: 1", "max_epoch: 9"))
    with pytest.raises(InputError, match=r"pi_sdr_small/config\.yaml: key max_epoch: found 9, expected 1, as in"):
        main(common)
    changed.write_text(changed.read_text().replace("loss: pi_sdr", "loss: snr"))
    with pytest.raises(InputError, match=r"pi_sdr_small/config\.yaml: key loss: found snr, expected pi_sdr"):
        main(common)


def test_configurations_that_differ_in_more_than_the_loss_are_refused(small_recipe, tmp_path):
    configs = write_configs(tmp_path)
    other = {**load_inherited(configs[1]), "batch_size": 1}
    (tmp_path / "separator_ca_sdr_small.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(InputError, match=r"ca_sdr_small\.yaml: key batch_size: found 1, expected 2, as in"):
        train_losses(configs, "data/train", "data/valid", tmp_path / "exp", 0)
    with pytest.raises(InputError, match=r"key loss: found ca_pi_sdr, as in"):
        train_losses([configs[0], configs[0]], "data/train", "data/valid", tmp_path / "exp", 0)
