"""run.sh on a real Slurm: shards, submission of run.sh itself, faults. The recipe is real, its Python only pretends."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

REPO = Path(__file__).resolve().parents[2]


class Recipe:
    """A copy of the repository's shell part, its recipe mini_s5 with stages 1 to 6 done, and how to run it."""

    def __init__(self, cluster, root: Path) -> None:
        self.cluster, self.root = cluster, root
        self.here = root / "egs/mini_s5"
        self.calls_file = root / "calls"
        for folder in ("tools/venv/bin", "conf/systems", "conf/tuning", "egs/mini_s5/conf/scenes", "egs/mini_s5/local"):
            (root / folder).mkdir(parents=True)
        for name in ("run.sh", "path.sh", "egs/mini_s5/run.sh"):
            shutil.copy(REPO / name, root / name)
        shutil.copytree(REPO / "utils", root / "utils")
        shutil.copy(REPO / "test/shell/fake_python", root / "tools/venv/bin/python")
        (root / "tools/venv/bin/python3").symlink_to(sys.executable)  # for the launcher
        empty = ["conf/decode.yaml", "conf/systems/mini.yaml"]
        empty += [f"conf/tuning/{name}.yaml" for name in ("tag_a", "sep_a", "sep_a_ft")]
        empty += [f"egs/mini_s5/conf/scenes/{name}.yaml" for name in ("train", "valid", "test")]
        for name in empty:
            (root / name).touch()
        data = self.here / "local/data.sh"
        data.write_text("#!/bin/sh\nmkdir -p data/raw/noise && touch data/raw/noise/a.flac\n")
        data.chmod(data.stat().st_mode | stat.S_IXUSR)
        self.env = {**cluster.env, "FAKE": str(root), "S5_NO_SETUP": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.launcher = ["--cmd", f"utils/run_slurm.py --config {cluster.config}", "--nj", "3", "--oracle", "no"]
        done = subprocess.run([self.here / "run.sh", "--stop_stage", "6"], env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, *options: str, through: tuple[str, ...] = (), **env: str) -> tuple[int, str, list[str]]:
        """Runs it on the cluster: exit status, what it said, the calls of its Python."""
        self.calls_file.write_text("")
        command = [*through, str(self.here / "run.sh"), *self.launcher, *options]
        done = subprocess.run(
            command, env={**self.env, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180
        )
        return done.returncode, done.stdout, sorted(self.calls_file.read_text().splitlines())

    def calls_that(self, what: str, *calls: str) -> None:
        """Makes calls ``fail`` or ``hang``, or none."""
        (self.root / what).write_text("".join(f"{call}\n" for call in calls))


@pytest.fixture
def recipe(cluster, tmp_path) -> Recipe:
    return Recipe(cluster, tmp_path / "repository")


SHARDS = [f"tag test {i}/3" for i in (1, 2, 3)]


def test_a_stage_goes_in_shards_and_a_failed_one_stops_it(recipe):
    recipe.calls_that("fail", "tag test 2/3")
    status, said, calls = recipe.run("--stage", "7")
    log = recipe.here / "exp/log/07_tag_test/2.log"
    assert status == 3 and calls == SHARDS
    assert f"stage 7 (tag test) failed: error: a.wav: found 8000 Hz, expected 16000 Hz (log: {log})" in said
    recipe.calls_that("fail")
    status, said, calls = recipe.run("--stage", "7", "--stop_stage", "9")
    separate = [f"separate test {i}/3" for i in (1, 2, 3)]
    assert (status, calls) == (
        0,
        [*separate, "separate test join 3", "tag test 2/3", "tag test join 3", "vote exp/mini/test"],
    )
    status, said, calls = recipe.run("--stage", "7", "--stop_stage", "9")
    assert (status, calls) == (0, []) and "nothing to do" in said


@pytest.mark.parametrize("script", ["run.sh", "egs/mini_s5/run.sh"])
def test_the_recipe_itself_is_a_job(recipe, cluster, script):
    """Slurm runs a copy of the script in a folder of its own."""
    recipe.calls_file.write_text("")
    output = recipe.root / "said"
    words = ["--stage", "7", "--stop_stage", "7", *recipe.launcher]
    submission = ["sbatch", "--output", output, script, *words]
    subprocess.run(submission, env=recipe.env, cwd=recipe.root, check=True, stdout=subprocess.DEVNULL)
    cluster.wait(lambda: not cluster.job_ids(), 60)
    assert sorted(recipe.calls_file.read_text().splitlines()) == [*SHARDS, "tag test join 3"]
    assert "stage 7 (tag test): finished" in output.read_text()


def test_ctrl_c_cancels_the_jobs(recipe, cluster):
    recipe.calls_that("hang", SHARDS[0])
    process = subprocess.Popen(
        [recipe.here / "run.sh", *recipe.launcher, "--stage", "7"],
        env=recipe.env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    cluster.wait((recipe.root / "hanging").exists)
    process.terminate()
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 143 and "stopped by a signal" in said
    assert cluster.job_ids() == []
    recipe.calls_that("hang")
    assert recipe.run("--stage", "7", "--stop_stage", "7")[0] == 0


@pytest.fixture
def small_disk(recipe) -> Iterator[Path]:
    """A file system of 256 KiB at the results' folder."""
    disk = recipe.here / "exp/mini"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk_stops_the_stage_and_the_next_run_completes(recipe, small_disk):
    """The disk of the results, where each shard writes its part."""
    filling = small_disk / "filling"
    with pytest.raises(OSError, match="No space"), open(filling, "wb", buffering=0) as f:
        while True:
            f.write(bytes(4096))
    status, said, calls = recipe.run("--stage", "7", "--stop_stage", "7")
    assert status and "No space left on device" in said and "stage 7 (tag test)" in said
    filling.unlink()
    status, said, calls = recipe.run("--stage", "7", "--stop_stage", "7")
    assert (status, calls) == (0, [*SHARDS, "tag test join 3"])


def test_a_folder_that_gets_read_only_stops_the_stage_and_the_next_run_completes(recipe, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    status, said, calls = recipe.run("--stage", "7", "--stop_stage", "7")
    assert status and "Read-only file system" in said
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    status, said, calls = recipe.run("--stage", "7", "--stop_stage", "7")
    assert (status, calls) == (0, [*SHARDS, "tag test join 3"])


def test_the_second_run_on_a_folder_is_refused(recipe, cluster):
    """From another node as well, also where the file system does not pass flock on to it; not if its job has ended."""
    shims = recipe.root / "shims"
    shims.mkdir()
    (shims / "flock").write_text("#!/bin/sh\nexit 0\n")
    (shims / "flock").chmod(0o755)
    without_flock = {"PATH": f"{shims}:{os.environ['PATH']}"}
    recipe.calls_that("hang", SHARDS[0])
    job = cluster.run(
        "sbatch",
        "--parsable",
        "--nodelist",
        "n1",
        "--output",
        "/dev/null",
        recipe.here / "run.sh",
        *recipe.launcher,
        "--stage",
        "7",
        "--stop_stage",
        "7",
        **{k: recipe.env[k] for k in ("FAKE", "S5_NO_SETUP")},
    ).stdout.strip()
    cluster.wait((recipe.root / "hanging").exists)
    on_n2 = ("srun", "--quiet", "--nodelist", "n2")
    for env in ({}, without_flock):
        status, said, calls = recipe.run("--stage", "7", through=on_n2, **env)
        assert status and calls == []
        assert "exp/.lock: found locked by process" in said and "on n1 since" in said and f"Slurm job {job}, " in said
        assert "if you are sure that it has ended: rm" in said
    recipe.calls_that("hang")
    # A node that dies leaves the lock; Slurm knows that the job is no more.
    owner = recipe.here / "exp/.lock.owner"
    kept = owner.read_text()
    cluster.run("scancel", job)
    cluster.wait(lambda: job not in cluster.job_ids())
    cluster.wait(lambda: not cluster.job_ids())
    owner.write_text(kept)
    status, said, calls = recipe.run("--stage", "7", "--stop_stage", "7", through=on_n2, **without_flock)
    assert status == 0, said
    assert not owner.exists()


@pytest.mark.parametrize("folder", ["JOBS/s5", "JOB 4711 (ü)/s5"])
def test_a_repository_below_a_folder_that_is_called_job(cluster, tmp_path, folder):
    recipe = Recipe(cluster, tmp_path / folder)
    own = str(recipe.here / "own")
    done = recipe.run("--stage", "3", "--stop_stage", "7", "--expdir", own)
    assert done[0] == 0, done[1]
    assert done[2][:3] == ["tag test 1/3", "tag test 2/3", "tag test 3/3"]
    assert [p.name for p in tmp_path.iterdir()] == [folder.split("/")[0]]
    assert [p.name for p in (tmp_path / folder).parent.iterdir()] == ["s5"]
    assert sorted(p.name for p in (recipe.here / "own/log/07_tag_test").glob("*.log")) == ["1.log", "2.log", "3.log"]
