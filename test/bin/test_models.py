"""The plan that run.sh walks."""

import pytest

from s5.bin import fuse, separate, tag, vote
from s5.bin.models import main
from s5.system.archive import pack
from s5.utils.config import ROOT


@pytest.fixture
def lines(capsys, monkeypatch):
    def listed(system, *options):
        monkeypatch.chdir(ROOT)
        main(["--system", f"conf/systems/{system}.yaml", *options])
        lines = capsys.readouterr().out.splitlines()
        return [dict(field.split("=", 1) for field in line.split("\t")) for line in lines]

    return listed


def test_trainings_come_in_order_each_with_what_it_goes_on_from(lines):
    separators = [row for row in lines("deng2026/finetuned", "--size", "mini") if row.get("kind") == "separator"]
    common = {"what": "training", "kind": "separator", "model": "resunetk_tiny"}
    first, second, third = "resunetk_tiny", "resunetk_tiny_ft", "resunetk_tiny_ft2"
    assert separators == [
        {**common, "phase": "train", "stage": "5", "folder": first},
        {**common, "phase": "finetune", "stage": "6", "folder": second, "needs": first},
        {**common, "phase": "finetune2", "stage": "6", "folder": third, "needs": second, "last": "yes"},
    ]


def test_name_and_files_of_a_system_come_first(lines):
    name, *files = lines("deng2026/clap_gate", "--size", "mini")[:5]
    assert name == {"what": "system", "name": "deng2026_clap_gate_mini", "kind": "queried", "tags": "yes"}
    rows = ("clap_gate", "silence_gate", "vote")
    paths = [*(f"conf/systems/deng2026/{row}.yaml" for row in rows), "conf/sizes/mini.yaml"]
    assert files == [{"what": "file", "path": path} for path in paths]


def test_a_training_that_two_models_share_is_listed_once(tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(
        "taggers: {a: {train: t.yaml}}\n"
        "separators:\n"
        "  b: {experiment: x, train: s.yaml}\n"
        "  c: {experiment: x, train: s.yaml, checkpoint: 1epoch.pth}\n"
    )
    (tmp_path / "t.yaml").write_text("{}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        main(["--system", "s.yaml"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[2] for line in lines if line.startswith("what=training")] == ["model=a", "model=x"]


def test_of_an_archive_nothing_is_trained(trained, tmp_path, capsys):
    archive = pack(trained.parent / "system.yaml", trained, tmp_path / "tiny.s5")
    main(["--system", str(archive)])
    assert capsys.readouterr().out == f"what=system\tname=tiny\tkind=queried\ttags=yes\nwhat=file\tpath={archive}\n"


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
