"""A stage's real Python, in shards on several nodes: the same bytes as in one piece."""

import shutil
import sys
from pathlib import Path

import pytest

from s5.bin.simulate import main

pytestmark = pytest.mark.slurm

REPO = Path(__file__).resolve().parents[2]


def test_scenes_from_several_nodes_are_the_same_bytes(cluster, recipe, tmp_path):
    out = Path("data/on_nodes")
    options = ["--config", "scenes.yaml", "--out", str(out)]
    main(options)
    expected = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    shutil.rmtree(out)
    parts = ["--parts", str(out / ".parts")]
    main([*options, "--prepare", *parts])
    command = [sys.executable, "-m", "s5.bin.simulate", *options, "--shard", "JOB/3", *parts]
    launcher = cluster.launch("JOB=1:3", tmp_path / "JOB.log", *command, cwd=recipe, PYTHONPATH=str(REPO))
    said = launcher.communicate(timeout=120)[0]
    assert launcher.returncode == 0, said
    main([*options, "--join", "3", *parts])
    shutil.rmtree(out / ".parts")
    assert {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()} == expected
    assert len({line for p in tmp_path.glob("?.log") for line in p.read_text().split() if line in ("n1,", "n2,")}) == 2
