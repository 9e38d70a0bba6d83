"""Training through ESPnet: resume, averaging, fine-tuning, and refusals that name the key."""

import shutil

import numpy as np
import pytest
import torch
import yaml

from s5.system.model import load_model
from s5.system.trained import best_checkpoint
from s5.tasks.launch import train, train_model
from s5.utils.config import load_inherited
from s5.utils.errors import InputError


def run(recipe, model, expdir, *extra, phase="train"):
    train_model("system.yaml", model, phase, "data/train", "data/valid", expdir, 0, extra)


def weights(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize(("model", "figure"), [("tagger", "acc3"), ("separator", "sdri")])
def test_average_of_the_best_is_their_plain_mean(trained, model, figure):
    folder = trained / model
    first, second, average = (weights(folder / n) for n in ("1epoch.pth", "2epoch.pth", f"valid.{figure}.ave.pth"))
    for key, value in average.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (first[key] + second[key]) / 2)
    assert best_checkpoint(folder) == folder / f"valid.{figure}.ave.pth"


def test_sizes_that_the_yaml_leaves_out_follow_from_the_scenes(recipe, tmp_path):
    config = load_inherited("separator.yaml")
    config["network_conf"] = {key: v for key, v in config["network_conf"].items() if key not in ("n_fft", "hop_length")}
    (tmp_path / "separator.yaml").write_text(yaml.safe_dump(config))
    options = ["--max_epoch", "1", "--num_scenes", "2", "--num_workers", "0"]
    train("separation", tmp_path / "separator.yaml", "data/train", "data/valid", tmp_path / "exp", 0, options)
    for name in ("config.yaml", "train.yaml"):
        network = load_inherited(tmp_path / "exp" / name)["network_conf"]
        assert (network["n_fft"], network["hop_length"]) == (256, 128)  # at 8 kHz
    assert load_inherited(tmp_path / "exp/resolved.yaml")["config"]["network_conf"]["n_fft"] == 256
    assert "n_fft: 256" in (tmp_path / "exp/origins.yaml").read_text()
    load_model(tmp_path / "exp", None, "separator")


def test_resumed_training_equals_an_uninterrupted_one(trained, recipe, tmp_path):
    run(recipe, "separator", tmp_path, "--max_epoch", "1")
    run(recipe, "separator", tmp_path)
    whole, resumed = weights(trained / "separator/2epoch.pth"), weights(tmp_path / "separator/2epoch.pth")
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, rtol=0, atol=0)


def test_fine_tuning_starts_from_the_first_phase_and_moves_the_head_alone(trained):
    start, end = weights(best_checkpoint(trained / "tagger")), weights(trained / "tagger_ft/1epoch.pth")
    moved = {key for key in start if not torch.equal(start[key], end[key])}
    assert moved and all(key.startswith("network.head.") for key in moved)


def test_trained_models_load_and_run(trained):
    tagger = load_model(trained / "tagger_ft", None, "tagger")
    separator = load_model(trained / "separator", None, "separator")
    mixture = np.random.default_rng(0).standard_normal((4, 16000)).astype(np.float32)
    posterior = tagger.posterior(mixture)
    assert posterior.shape == (3, 4) and np.allclose(posterior.sum(1), 1, atol=1e-5)
    sources = separator.separate(mixture, ["Cough", "Cough"])
    assert sources.shape == (3, 16000) and sources[:2].any(axis=1).all() and not sources[2].any()
    with pytest.raises(InputError, match="label Couch, expected Cough"):
        separator.separate(mixture, ["Couch"])
    full, half = (separator.separate(mixture, ["Cough"], precision) for precision in ("fp32", "bf16"))
    assert 0 < np.abs(full - half).max() < 0.1 * np.abs(full).max()


def test_an_unknown_espnet_option_ends_in_one_line_with_the_nearest_one(recipe, tmp_path):
    with pytest.raises(InputError, match="--max_epok: found an unknown ESPnet option, expected --max_epoch "):
        run(recipe, "tagger", tmp_path, "--max_epok", "3")
    assert not (tmp_path / "tagger").exists()


def test_a_checkpoint_that_runs_code_is_refused(trained, recipe, tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return (print, ("code ran",))

    torch.save({"network.film.x": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(Exception, match=r"(?i)weights"):
        run(recipe, "separator", tmp_path, "--init_param", str(tmp_path / "evil.pth"))
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_epochs": 3}, r"key max_epochs: found an unknown key, expected max_epoch"),
        ({"max_epoch": "many"}, r"key max_epoch: found 'many', expected a number"),
        ({"grad_clip": float("nan")}, r"key grad_clip: found nan, expected a number"),
        ({"network": "resnet"}, r"key network: found resnet, expected resunetk"),
        ({"optim_conf": {"lrr": 1}}, r"optim_conf: key lrr: found an unknown key, expected lr"),
        ({"optim": "adamww"}, r"key optim: found adamww, expected adamw"),
        ({"scheduler": "onecyclelr", "scheduler_conf": {"max_rl": 1}}, r"scheduler_conf: key max_(rl|lr)"),
        ({"network_conf": {"width": [2]}}, r"network_conf: key width: found an unknown key, expected widths"),
        ({"network_conf": {"widths": "wide"}}, r"network_conf: key widths: found 'wide'"),
        ({"network_conf": {"n_fft": 128, "widths": [2, 3], "pools": [[2, 2]]}}, "pools: found 1 of them"),
        ({"scene_conf": {"n_event": [1, 2]}}, r"key n_event: found an unknown key, expected n_events"),
        ({"num_threads": [2, 3]}, r"key num_threads: found \[2, 3\], expected a number"),
        ({"scene_conf": 3}, r"key scene_conf: found 3, expected a mapping of keys"),
        ({"network_conf": None}, r"key network_conf: found None, expected a mapping of keys"),
        (
            {"best_model_criterion": [["valid", "sdri"]]},
            r"key best_model_criterion: found \['valid', 'sdri'\], expected",
        ),
        ({"best_model_criterion": 3}, r"key best_model_criterion: found 3, expected lists"),
        ({1: 2}, r"key 1: found an unknown key"),
        ({"loss_conf": {"normalise": "slots"}}, r"loss_conf: key normalise: found an unknown key, expected normalize"),
    ],
)
def test_every_wrong_key_is_named(recipe, tmp_path, change, message):
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({**load_inherited("separator.yaml"), **change}))
    with pytest.raises(InputError, match=message) as error:
        train("separation", path, "data/train", "data/valid", tmp_path / "exp", 0)
    assert "bad.yaml" in str(error.value) or "sampler.yaml" in str(error.value)
    assert not (tmp_path / "exp/config.yaml").exists()


def test_a_gpu_that_is_not_there_is_refused(recipe, tmp_path):
    there = torch.cuda.device_count()
    with pytest.raises(InputError, match=f"--ngpu: found {there + 1}, expected at most {there}"):
        train("separation", "separator.yaml", "data/train", "data/valid", tmp_path / "exp", there + 1)
    assert not (tmp_path / "exp").exists()


def test_nested_keys_of_the_encoder_are_named(recipe, tmp_path):
    config = load_inherited("tagger.yaml")
    config["network_conf"]["encoder"]["dept"] = 3
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match=r"bad\.yaml: .*key dept: found an unknown key, expected depth"):
        train("tagging", tmp_path / "bad.yaml", "data/train", "data/valid", tmp_path / "exp", 0)


def test_a_model_or_phase_that_is_not_there_is_named(recipe, tmp_path):
    with pytest.raises(InputError, match="model: found taggr, expected tagger"):
        run(recipe, "taggr", tmp_path)
    with pytest.raises(InputError, match="separator: found no finetune phase, expected"):
        run(recipe, "separator", tmp_path, phase="finetune")
    with pytest.raises(InputError, match=r"found no config\.yaml, expected a trained model"):
        run(recipe, "tagger", tmp_path, phase="finetune")


def test_a_truncated_checkpoint_is_named(trained, tmp_path):
    shutil.copytree(trained / "separator", tmp_path / "separator", symlinks=False)
    path = tmp_path / "separator/valid.sdri.ave.pth"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match=r"valid\.sdri\.ave\.pth: found an unreadable checkpoint"):
        load_model(tmp_path / "separator", None, "separator")
