"""The comparison of source taggers: what it counts, and that a tagger does not differ from itself."""

import shutil
import sys
from pathlib import Path

import numpy as np
import yaml

from s5 import S5System
from s5.data import DataDir

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "local/studies"))
import source_taggers as study


def test_it_counts_sources_and_a_wrong_query_a_mixture(recipe, source_trained, tmp_path, capsys):
    keys = yaml.safe_load((source_trained / "system.yaml").read_text())
    keys["source_taggers"] = {name: {"experiment": name} for name in ("source", "copy")}
    shutil.copytree(source_trained / "exp", tmp_path / "exp", symlinks=True)
    shutil.copytree(source_trained / "exp/source", tmp_path / "exp/copy", symlinks=True)
    (tmp_path / "system.yaml").write_text(yaml.safe_dump(keys))
    system = S5System.from_yaml(tmp_path / "system.yaml", tmp_path / "exp", "cpu")
    data = DataDir.load("data/valid")
    terms = study.measure(system, data)
    numbers = [len(data.labels[utt]) for utt in data.utts]
    for column in terms["source"].denominator.T[:3]:
        assert column.tolist() == numbers
    assert (terms["source"].denominator[:, 4] == 1).all()
    dry = np.concatenate([data.sources(utt)[: len(data.labels[utt])] for utt in data.utts])
    top = system.source_taggers["source"].source_posterior(dry)[:, :-1].argmax(-1)
    truth = [system.labels.index(label) for utt in data.utts for label in data.labels[utt]]
    assert terms["source"].values()["dry"] == 100 * np.mean(top == truth)
    study.main(["--system", str(tmp_path / "system.yaml"), "--expdir", str(tmp_path / "exp"), "--data", "data/valid"])
    assert capsys.readouterr().out.splitlines()[-1].count("(+0.0 .. +0.0)") >= 4
