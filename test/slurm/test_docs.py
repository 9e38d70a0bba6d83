"""The commands that README.md and docs/cluster.md show for Slurm, on a real one. The recipe's Python only pretends."""

import subprocess
import sys
from pathlib import Path

import pytest
from cluster import LAUNCHER_CONFIG
from test_recipe import Recipe

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs"))
from pages import blocks_of, name_of, pages
from plan import Table

pytestmark = pytest.mark.slurm

OURS = [rule for rule in Table.load().exceptions if rule.run_by == "test/slurm/test_docs.py"]
SHOWN = [
    command
    for page in pages()
    for block in blocks_of(page.read_text())
    if block.is_commands()
    for command in block.commands()
    if any(rule.fits(name_of(page), command) for rule in OURS)
]
# The cluster of the tests has three nodes of two processors, and other partitions.
HERE = {"--partition cpu": "--partition main", "--cpus-per-task 16": "--cpus-per-task 2", "--nj 40": "--nj 3"}


@pytest.mark.parametrize("shown", SHOWN)
def test_command_for_slurm(shown, cluster, tmp_path):
    """A training, and the stage after it in shards."""
    recipe = Recipe(cluster, tmp_path / "repository")
    (recipe.root / "conf/slurm.conf").write_text(LAUNCHER_CONFIG)
    (recipe.here / "exp/tag_a/.done").unlink()
    recipe.calls_file.write_text("")
    command = shown
    for there, here in HERE.items():
        command = command.replace(there, here)
    done = subprocess.run(
        ["bash", "-c", f"{command} --stop_stage 7"],
        cwd=recipe.root,
        env=recipe.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    said = done.stdout
    if command.startswith("sbatch "):
        cluster.wait(lambda: not cluster.job_ids(), 120)
        said = next(recipe.root.glob("slurm-*.out")).read_text()
    assert "stage 7 (tag test): finished" in said, said
    calls = recipe.calls_file.read_text().splitlines()
    tasks = 2 if "--num_nodes 2" in command else 1
    assert calls.count("train tag_a train") == tasks
    if "utils/run_slurm.py" in command:
        assert "tag test 1/3" in calls
