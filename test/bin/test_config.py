"""The command that shows what a system and its trainings come to."""

import os

import pytest
import yaml

from s5.bin.config import main
from s5.system.config import SystemConfig
from s5.system.origins import write_system
from s5.system.sizes import system_keys, training_keys, with_size
from s5.utils.config import ROOT
from s5.utils.errors import InputError


@pytest.fixture
def shown(capsys, monkeypatch):
    def of(*arguments):
        monkeypatch.chdir(ROOT)
        main(["--train", "none", "--system", *arguments])
        return capsys.readouterr().out

    return of


@pytest.mark.parametrize("system", ["mini", "deng2026/finetuned:mini", "park2025/ensemble_agent", "nguyen2026/4c"])
def test_what_is_shown_is_yaml_of_all_that_is_used(shown, system):
    name, _, size = system.partition(":")
    path = with_size(f"conf/systems/{name}.yaml", size or "full")
    found = yaml.safe_load(shown(f"conf/systems/{name}.yaml", "--size", size or "full"))
    trainings = found.pop("trainings")
    assert found == yaml.safe_load(yaml.safe_dump(system_keys(path)))
    config = SystemConfig.load(path)
    models = [*config.taggers, *config.separators]
    expected = {m.folder(p): training_keys(m.files(p), size or "full") for m in models for p in m.phases()}
    assert trainings == yaml.safe_load(yaml.safe_dump(expected)) and trainings


def test_each_key_names_the_file_that_says_it(shown):
    lines = [line.split(" # ") for line in shown("conf/systems/deng2026/finetuned.yaml", "--size", "mini").splitlines()]
    said = {tuple(line[0].split()): line[1] for line in lines if len(line) == 2}
    assert said["weight:", "0.52"] == "conf/systems/deng2026/vote.yaml"
    assert said["experiment:", "resunetk_tiny"] == "conf/sizes/mini.yaml"
    assert said["gamma:", "0.5"] == "conf/systems/deng2026/vote.yaml"
    assert said["kind:", "bigru"] == "conf/tuning/tagger_m2d_bigru.yaml"
    assert said["rnn_dim:", "128"] == "conf/sizes/mini.yaml"


def test_a_training_as_it_is_kept_and_compared(recipe, trained, capsys):
    words = ["--system", "system.yaml", "--model", "tagger", "--phase", "finetune", "--expdir", "exp"]
    main([*words, "--compare", "--", "--num_workers", "0"])
    assert capsys.readouterr().out == (trained / "tagger_ft/resolved.yaml").read_text()
    with pytest.raises(InputError, match=r"exp/tagger_ft: found a model of another training \(batch_size: \d+ -> 77\)"):
        main([*words, "--compare", "--", "--batch_size", "77"])
    with pytest.raises(InputError, match="--model: found none"):
        main(["--system", "system.yaml", "--compare"])


def test_it_starts_quickly(recipe, trained):
    """run.sh calls it for every training."""
    code = "import sys; from s5.bin.config import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    words = ["--system", "system.yaml", "--model", "tagger", "--phase", "finetune"]
    assert os.spawnvp(os.P_WAIT, "python", ["python", "-c", code, *words]) == 0


def test_experiments_and_results_keep_what_they_were_made_of(recipe, trained, tmp_path):
    kept = (trained / "tagger_ft/origins.yaml").read_text()
    config = yaml.safe_load((trained / "tagger_ft/resolved.yaml").read_text())["config"]
    config.pop("init_param")
    assert {key: yaml.safe_load(kept)[key] for key in config} == config and "# tagger_ft.yaml" in kept
    write_system(tmp_path, "system.yaml", "system")
    text = (tmp_path / "origins.yaml").read_text()
    assert yaml.safe_load(text)["trainings"]["tagger_ft"] == yaml.safe_load(kept) and "# system.yaml" in text
