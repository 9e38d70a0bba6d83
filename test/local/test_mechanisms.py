"""The table of mechanisms: its rows are systems that there are, and it runs on the smallest models."""

import dataclasses
import re
import sys
from pathlib import Path

import pytest

from s5.system.config import SystemConfig
from s5.utils.config import ROOT
from s5.utils.errors import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "local/studies"))
import mechanisms


@pytest.fixture(scope="module")
def rows():
    return {row.name: row for table in mechanisms.load() for row in table.rows}


@pytest.fixture(scope="module")
def configs(rows, tmp_path_factory):
    bench = mechanisms.Bench(None, tmp_path_factory.mktemp("bench"), "exp", 1, "cpu", None)
    return {name: SystemConfig.load(bench.system_of(dataclasses.replace(row, tune=[]))) for name, row in rows.items()}


def test_every_mechanism_has_its_row(rows, configs):
    vote, literal = configs["vote, slots aligned"], configs["vote, slots as they come"]
    assert len(vote.taggers) == 3 and vote.vote.aligned and not literal.vote.aligned
    for name in ("M2D-BiGRU alone", "M2D-FC alone", "CLAP-FC alone"):
        assert len(configs[name].taggers) == 1
    for name in ("silence gate", "CLAP-oriented gate"):
        assert configs[name].gate is not None and rows[name].over == "vote, slots aligned"
    assert not configs["verification"].refine.separate_again
    assert configs["label correction with candidates"].refine.candidates.threshold == 0.5
    assert configs["iterative refinement, at most 3 loops"].refine.loops == 3
    assert configs["both, by class (Table 2)"].fusion.groups and not configs["both, half and half"].fusion.groups
    assert [m.name for m in configs["TF-GridNet alone"].separators] == ["tfgridnet"]
    assert configs["mask sharpening"].fusion.sharpen and not configs["ResUNetK fine-tuned twice"].fusion.sharpen


def test_the_documented_trainings_are_all_that_the_rows_need(configs):
    text = (ROOT / "docs/systems.md").read_text()
    names = re.search(r"for name in (.*); do", text)[1].split()
    ready = [SystemConfig.load(ROOT / f"conf/systems/{name}.yaml:mini") for name in names]
    trained = {folder for config in ready for folder in folders(config)}
    for name, config in configs.items():
        assert folders(config) <= trained, name


def folders(config):
    """Experiment folders of a system, those that its models go on from included."""
    return {model.folder(phase) for model in [*config.taggers, *config.separators] for phase in model.phases()}


ROWS = """
- title: Small
  rows:
  - {name: plain, system: system.yaml}
  - {name: gated, system: system.yaml, change: {gate: {margin: -200}}}
  - {name: corrected, system: system.yaml, change: {refine: {n_min: 1, candidates: {threshold: 0.0}}}, over: plain}
  - {name: gate from validation, system: system.yaml, change: {gate: {margin: -200}}, tune: [gate], over: plain}
  - {name: missing, system: system.yaml, change: {taggers: {tagger: null, none: {train: tagger.yaml}}}}
"""


def test_it_runs_on_the_smallest_models(recipe, trained, tmp_path, monkeypatch, capsys):
    (tmp_path / "rows.yaml").write_text(ROWS)
    (tmp_path / "space.yaml").write_text("gate_margin: [null, 100]\n")
    argv = ["--rows", str(tmp_path / "rows.yaml"), "--expdir", str(trained), "--data", "data/valid", "--out"]
    argv += [str(tmp_path / "out"), "--valid", "data/valid", "--num", "3", "--num_valid", "2", "--nj", "1"]
    argv += ["--space", str(tmp_path / "space.yaml"), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["mechanisms.py", *argv])
    mechanisms.main()
    text = (tmp_path / "out/mechanisms.md").read_text()
    assert text.splitlines()[2].startswith("3 mixtures of data/valid") and "tuned on 2 mixtures" in text
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert "not run" in lines["missing"] and "not run" not in lines["gate from validation"]
    assert lines["corrected"].split(" | ")[4] == "plain" and lines["gated"].split(" | ")[4] == "plain"
    assert len(list((tmp_path / "out/test").iterdir())) == 1  # rows with the same taggers share their posteriors
    with pytest.raises(InputError, match="over: nothing known, expected a name of its own, over a row before it"):
        (tmp_path / "rows.yaml").write_text(ROWS.replace("over: plain}", "over: nothing known}"))
        mechanisms.load(tmp_path / "rows.yaml")
