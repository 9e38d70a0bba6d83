"""The list of trainings that run.sh reads."""

import pytest

from s5.bin import fuse, separate, tag, vote
from s5.bin.models import main
from s5.system.archive import pack
from s5.utils.config import ROOT


@pytest.fixture
def lines(capsys, monkeypatch):
    def listed(system):
        monkeypatch.chdir(ROOT)
        main(["--system", f"conf/systems/{system}.yaml"])
        return [line.split("\t") for line in capsys.readouterr().out.splitlines()]

    return listed


def test_trainings_come_in_order_each_with_what_it_goes_on_from(lines):
    separators = [row for row in lines("deng2026/finetuned_mini") if row[0] == "separator"]
    assert separators == [
        ["separator", "first", "resunetk_tiny", "train", "resunetk_tiny", "-", "-"],
        ["separator", "further", "resunetk_tiny", "finetune", "resunetk_tiny_ft", "resunetk_tiny", "-"],
        ["separator", "further", "resunetk_tiny", "finetune2", "resunetk_tiny_ft2", "resunetk_tiny_ft", "last"],
    ]


def test_the_systems_own_files_come_last(lines):
    assert lines("deng2026/clap_gate_mini")[-1] == [
        "system",
        *(f"conf/systems/{name}.yaml" for name in ("deng2026/clap_gate_mini", "parts/mini", "deng2026/clap_gate")),
        *(f"conf/systems/{name}.yaml" for name in ("deng2026/silence_gate", "deng2026/vote", "parts/full")),
    ]


def test_a_training_that_two_models_share_is_listed_once(tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(
        "taggers: [{name: a, train: t.yaml}]\n"
        "models: {b: &x {experiment: x, train: s.yaml}, c: *x}\n"
        "separators: [b, {name: c, checkpoint: 1epoch.pth}]\n"
    )
    (tmp_path / "t.yaml").write_text("{}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        main(["--system", "s.yaml"])
    assert [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()[:-1]] == ["a", "x"]


def test_of_an_archive_nothing_is_trained(trained, tmp_path, capsys):
    archive = pack(trained.parent / "system.yaml", trained, tmp_path / "tiny.s5")
    main(["--system", str(archive)])
    assert capsys.readouterr().out == f"system\t{archive}\n"


def test_the_stages_take_an_archive(recipe, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("S5_CACHE", str(tmp_path / "cache"))
    archive = str(pack(trained.parent / "system.yaml", trained, tmp_path / "tiny.s5"))
    results = {}
    for name, system in (("yaml", str(trained.parent / "system.yaml")), ("archive", archive)):
        out = tmp_path / name
        for stage in (tag, separate, fuse):
            stage.main(["--system", system, "--expdir", str(trained), "--data", "data/valid", "--out", str(out)])
            if stage is tag:
                vote.main(["--system", system, "--out", str(out)])
        results[name] = {p.name: p.read_bytes() for p in sorted((out / "estimates").glob("*.wav"))}
        results[name]["labels"] = (out / "labels").read_bytes()
    assert results["yaml"] == results["archive"] and any(results["yaml"].values())
