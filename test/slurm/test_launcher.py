"""utils/run_slurm.py and utils/slurm_job.sh on a real Slurm."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm


def ends(process, status=0, seconds=90):
    """What the launcher has said; it has to end with a status."""
    said = process.communicate(timeout=seconds)[0]
    assert process.returncode == status, said
    return said


def script(tmp_path, text):
    """A shell script as the command's first words."""
    file = tmp_path / "job.sh"
    file.write_text(text)
    return "bash", file


def test_jobs_of_an_array_run_as_they_would_here(cluster, tmp_path):
    job = script(
        tmp_path,
        'echo "job $1 with $2 threads $OMP_NUM_THREADS <${CUDA_VISIBLE_DEVICES-unset}>"\n[ "$1" != 3 ] || exit 7\n',
    )
    words = ["--num_threads", "2", "--gpu", "0", "JOB=1:4", tmp_path / "log dir/x.JOB.log", *job, "JOB", "a  b"]
    said = ends(cluster.launch(*words), 7)
    log = tmp_path / "log dir/x.3.log"
    assert f"JOB 3: exit status 7, log {log}" in said and "  | job 3" in said and "job 2 with" not in said
    for number in (1, 2, 3, 4):
        text = (tmp_path / f"log dir/x.{number}.log").read_text()
        assert f"job {number} with a  b threads 2 <>" in text
        assert f"exit status {7 if number == 3 else 0}\n" in text
    # The failed one alone, as a rerun would.
    job[1].write_text("exit 0\n")
    ends(cluster.launch("JOB=3", tmp_path / "log dir/x.JOB.log", *job))


def test_folders_that_are_called_like_the_pattern_stay_what_they_are(cluster, tmp_path):
    here = tmp_path / "JOBS/JOB 4711 (ü)"
    here.mkdir(parents=True)
    job = script(tmp_path, 'echo "$1: $PWD"\n')
    ends(cluster.launch("JOB=1:2", "log/x.JOB.log", *job, "JOB", cwd=here))
    ends(cluster.launch("JOB=3", "log/x.JOB.log", *job, "JOB", cwd=here))
    ends(cluster.launch("log/y.log", *job, "JOB", cwd=here))
    for name, number in (("x.1", "1"), ("x.2", "2"), ("x.3", "3"), ("y", "JOB")):
        assert f"{number}: {here}\n" in (here / f"log/{name}.log").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["JOBS", "job.sh"]
    assert [p.name for p in (tmp_path / "JOBS").iterdir()] == ["JOB 4711 (ü)"]


def test_the_configuration_that_comes_with_the_repository(cluster, tmp_path):
    config = Path(__file__).resolve().parents[2] / "conf/slurm.conf"
    options = {
        "config": config,
        "mem": "500M",
        "time": "5",
        "num_threads": "2",
        "gpu": "0",
        "num_nodes": "1",
        "poll": "1",
    }
    options |= {"grace": "30", "partition": "low", "nodelist": "n2", "max_jobs_run": "1"}
    job = script(tmp_path, 'scontrol show job --oneliner "$SLURM_JOB_ID"\n')
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    ends(cluster.launch(*words, "JOB=1:2", tmp_path / "x.JOB.log", *job))
    known = (tmp_path / "x.2.log").read_text()
    for fact in (
        "Partition=low",
        "NodeList=n2",
        "NumCPUs=2",
        "CPUs/Task=2",
        "MinMemoryNode=500M",
        "TimeLimit=00:05:00",
    ):
        assert f" {fact} " in known, fact


def test_a_training_that_is_cancelled_is_not_requeued(cluster, tmp_path):
    """Though it has saved and asks for it, as it cannot know why it was told to stop."""
    job = script(
        tmp_path,
        """trap 'touch "$S5_REQUEUE"; exit 75' TERM USR1
        echo start >>"$1"; while :; do sleep 0.2; done
        """,
    )
    launcher = cluster.launch("--grace", "60", "--time", "30", tmp_path / "x.log", *job, tmp_path / "out")
    cluster.wait((tmp_path / "out").exists)
    (job_id,) = cluster.job_ids()
    cluster.run("scancel", job_id)
    said = launcher.communicate(timeout=60)[0]
    assert launcher.returncode, said
    time.sleep(3)
    assert cluster.job_ids() == [] and (tmp_path / "out").read_text() == "start\n"


def test_numbers_beyond_slurms_arrays(cluster, tmp_path):
    """MaxArraySize is 21 here: indices up to 20."""
    job = script(tmp_path, 'echo "$1" >"$2"\n')
    said = ends(cluster.launch("JOB=2,19:22,39:42", tmp_path / "x.JOB.log", *job, "JOB", tmp_path / "out.JOB"))
    assert said.count("run_slurm.py: x: job ") == 3
    numbers = [2, 19, 20, 21, 22, 39, 40, 41, 42]
    assert sorted(int(p.read_text()) for p in tmp_path.glob("out.*")) == numbers
    assert {p.name for p in tmp_path.glob("x.*.log")} == {f"x.{n}.log" for n in numbers}


def test_no_more_at_once_than_asked(cluster, tmp_path):
    job = script(tmp_path, 'cd "$2"; touch run.$1; ls run.* | wc -l >count.$1; sleep 1; rm run.$1\n')
    ends(cluster.launch("--max_jobs_run", "2", "JOB=1:4", tmp_path / "x.JOB.log", *job, "JOB", tmp_path))
    assert max(int(p.read_text()) for p in tmp_path.glob("count.*")) == 2


def test_several_nodes_meet_in_a_new_file_at_each_start(cluster, tmp_path):
    job = script(tmp_path, 'echo "rank $SLURM_PROCID $SLURM_NTASKS $SLURMD_NODENAME $S5_DIST_INIT"\n')
    meetings = set()
    for _ in range(2):
        ends(cluster.launch("--num_nodes", "2", tmp_path / "x.log", *job))
        lines = (tmp_path / "x.log").read_text().splitlines()
        first, second = sorted(line.split()[1:] for line in lines if line.startswith("rank "))
        assert (first[:2], second[:2]) == (["0", "2"], ["1", "2"])
        assert first[2] != second[2] and first[3] == second[3]
        assert first[3].startswith(f"file://{tmp_path}/q/x/")
        meetings.add(first[3])
    assert len(meetings) == 2


def test_what_cannot_be_submitted_says_why_in_a_line(cluster, tmp_path):
    said = ends(cluster.launch("--partition", "nonesuch", tmp_path / "x.log", "true"), 2)
    assert said.count("\n") == 1 and "invalid partition" in said.lower()
    said = ends(cluster.launch("--colour", "red", tmp_path / "x.log", "true"), 2)
    assert "unknown option --colour" in said and "--partition" in said


def test_a_signal_cancels_what_was_submitted(cluster, tmp_path):
    job = script(tmp_path, "sleep 300\n")
    launcher = cluster.launch("JOB=1:2", tmp_path / "x.JOB.log", *job)
    cluster.wait((tmp_path / "x.2.log").exists)
    launcher.terminate()
    ends(launcher, 128 + signal.SIGTERM)
    assert cluster.job_ids() == []


def test_jobs_of_a_launcher_that_was_killed_are_ended_by_the_next(cluster, tmp_path):
    job = script(tmp_path, 'echo "$1" >>"$2"; [ "$1" = again ] || sleep 300; echo "end $1" >>"$2"\n')
    launcher = cluster.launch(tmp_path / "x.log", *job, "first", tmp_path / "out")
    cluster.wait((tmp_path / "out").exists)
    launcher.kill()
    launcher.communicate()
    assert len(cluster.job_ids()) == 1
    said = ends(cluster.launch(tmp_path / "x.log", *job, "again", tmp_path / "out"))
    assert "cancelling jobs of an earlier run" in said
    assert (tmp_path / "out").read_text() == "first\nagain\nend again\n"


def test_a_job_that_is_cancelled_or_held_is_noticed(cluster, tmp_path):
    job = script(tmp_path, 'touch "$1"; sleep 300\n')
    launcher = cluster.launch(tmp_path / "x.log", *job, tmp_path / "runs")
    cluster.wait((tmp_path / "runs").exists)
    (job_id,) = cluster.job_ids()
    cluster.run("scancel", job_id)
    assert "exit status 143" in ends(launcher, 143)
    launcher = cluster.launch("--hold", "true", tmp_path / "y.log", "true")
    cluster.wait(cluster.job_ids)
    time.sleep(3)
    (job_id,) = cluster.job_ids()
    cluster.run("scontrol", "release", job_id)
    assert f"y: job {job_id} waits: JobHeldUser" in ends(launcher)


def test_a_controller_that_is_away_for_a_while(cluster, tmp_path):
    """What the queue does not tell is not taken for the end of a job."""
    job = script(tmp_path, 'touch "$1.runs"; until [ -e "$1" ]; do sleep 0.2; done\n')
    launcher = cluster.launch(tmp_path / "x.log", *job, tmp_path / "go")
    cluster.wait((tmp_path / "go.runs").exists)
    os.kill(cluster.daemons["slurmctld"].pid, signal.SIGSTOP)
    try:
        time.sleep(4)
        assert launcher.poll() is None
    finally:
        os.kill(cluster.daemons["slurmctld"].pid, signal.SIGCONT)
    (tmp_path / "go").touch()
    assert "lost" not in ends(launcher)


def test_a_node_that_dies_costs_its_own_jobs_only(cluster, tmp_path):
    """Slurm requeues them; or it does not, and they are submitted again."""
    config = tmp_path / "own.conf"
    config.write_text(cluster.config.read_text().replace("--requeue", "--no-requeue"))
    job = script(tmp_path, 'echo "$SLURMD_NODENAME" >>"$2/$1"; until [ -e "$2/go" ]; do sleep 0.2; done\n')
    launchers, first = {}, {}
    for kind, options in (("requeued", []), ("lost", ["--config", config])):
        # Three jobs each on nodes of two processors: one node has jobs of both.
        words = [*options, "JOB=1:3", tmp_path / kind / "x.JOB.log", *job, f"{kind}.JOB", tmp_path]
        launchers[kind] = cluster.launch(*words)
        cluster.wait(lambda kind=kind: len(list(tmp_path.glob(f"{kind}.*"))) == 3)
        first |= {p.name: p.read_text().strip() for p in tmp_path.glob(f"{kind}.*")}
    on = {kind: {node for name, node in first.items() if name.startswith(kind)} for kind in launchers}
    (node,) = on["requeued"] & on["lost"]
    cluster.kill_node(node)
    (tmp_path / "go").touch()
    said = {kind: ends(launcher, seconds=120) for kind, launcher in launchers.items()}
    for name, where in first.items():
        assert len((tmp_path / name).read_text().split()) == (2 if where == node else 1), name
    assert "1 of 3 lost by Slurm (NODE_FAIL), submitted again" in said["lost"]
    assert "lost" not in said["requeued"]


def test_a_preempted_shard_is_done_again(cluster, tmp_path):
    """Slurm ends it and requeues it; that is no failure."""
    job = script(tmp_path, 'echo start >>"$1"; [ "$(grep -c start "$1")" -gt 1 ] || sleep 300\n')
    launcher = cluster.launch("--partition", "brief", "--nodelist", "n1", tmp_path / "x.log", *job, tmp_path / "out")
    cluster.wait((tmp_path / "out").exists)
    cluster.run("sbatch", "--exclusive", "--nodelist", "n1", "--output", "/dev/null", "--wrap", "sleep 1")
    ends(launcher, seconds=120)
    assert (tmp_path / "out").read_text() == "start\nstart\n"
    assert "# requeued" in Path(tmp_path / "x.log").read_text()


BUSY = (
    "Socket timed out on send/recv operation",
    "Zero Bytes were transmitted or received",
    "Resource temporarily unavailable",
    "Unable to contact slurm controller (connect failure)",
    "Transport endpoint is not connected",
)


@pytest.fixture
def moody(tmp_path, monkeypatch):
    """``moody("sbatch", before=1, after=1)``: the command fails once without, then once after having done its work."""
    folder = tmp_path / "moody"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(program, before=0, after=0, text=BUSY[0]):
        whole = shutil.which(program, path=os.environ["PATH"].partition(":")[2])
        wrapper = folder / program
        wrapper.write_text(f"""#!/bin/sh
        echo "$*" >>"{folder}/{program}.calls"
        calls=$(wc -l <"{folder}/{program}.calls")
        if [ "$calls" -gt {before} ]; then {whole} "$@" || exit; fi >"{folder}/{program}.out"
        if [ "$calls" -le {before + after} ]; then echo "{program}: error: {text}" >&2; exit 1; fi
        cat "{folder}/{program}.out"
        """)
        wrapper.chmod(0o755)
        return {"PATH": os.environ["PATH"]}

    return make


@pytest.mark.parametrize("text", BUSY)
def test_a_busy_controller_is_asked_again(cluster, tmp_path, moody, text):
    env = moody("sbatch", before=1, text=text)
    job = script(tmp_path, 'echo >>"$1"\n')
    said = ends(cluster.launch("JOB=1:2", tmp_path / "x.JOB.log", *job, tmp_path / "JOB", **env))
    assert text in said and said.count("run_slurm.py: x: job ") == 1
    assert [(tmp_path / n).read_text() for n in "12"] == ["\n", "\n"]


@pytest.mark.parametrize("jobs", ["1:2", "2"])
def test_a_job_that_was_taken_though_the_answer_was_lost_is_not_submitted_again(cluster, tmp_path, moody, jobs):
    job = script(tmp_path, 'echo >>"$1"\nsleep 4\n')
    env = moody("sbatch", after=1)
    said = ends(cluster.launch(f"JOB={jobs}", tmp_path / "x.JOB.log", *job, tmp_path / "JOB", **env))
    assert BUSY[0] in said and len((tmp_path / "moody/sbatch.calls").read_text().splitlines()) == 1
    assert (tmp_path / "2").read_text() == "\n"


def test_a_job_that_was_taken_twice_is_cancelled_once(cluster, tmp_path, moody):
    """The queue did not show the first one when it was asked."""
    moody("sbatch", after=1)
    env = moody("squeue")
    (tmp_path / "moody/squeue").write_text(f"""#!/bin/sh
    [ -e "{tmp_path}/asked" ] || {{ touch "{tmp_path}/asked"; exit 0; }}
    exec {shutil.which("squeue", path=env["PATH"].partition(":")[2])} "$@"
    """)
    job = script(tmp_path, 'echo >>"$1"\nsleep 4\n')
    launcher = cluster.launch("--hold", "true", tmp_path / "x.log", *job, tmp_path / "out", **env)
    calls = tmp_path / "moody/sbatch.calls"
    cluster.wait(lambda: calls.exists() and calls.read_text().count("\n") == 2 and len(cluster.job_ids()) == 1)
    cluster.run("scontrol", "release", cluster.job_ids()[0])
    said = ends(launcher)
    assert "accepted the job twice" in said and (tmp_path / "out").read_text() == "\n"


def test_an_answer_of_the_queue_that_is_lost_ends_nothing(cluster, tmp_path, moody):
    """Nor one of scontrol and scancel."""
    moody("squeue", before=3)
    moody("scontrol", before=1)
    env = moody("scancel", before=1)
    job = script(tmp_path, "sleep 2\n")
    assert "polling continues" in ends(cluster.launch(tmp_path / "x.log", *job, **env))
    launcher = cluster.launch(
        tmp_path / "x.log", *script(tmp_path, 'touch "$1"; sleep 300\n'), tmp_path / "runs", **env
    )
    cluster.wait((tmp_path / "runs").exists)
    launcher.terminate()
    ends(launcher, 128 + signal.SIGTERM)
    assert cluster.job_ids() == []


def test_a_signal_during_an_unanswered_submission_cancels_what_was_taken(cluster, tmp_path, moody):
    launcher = cluster.launch(tmp_path / "x.log", *script(tmp_path, "sleep 300\n"), **moody("sbatch", after=1))
    cluster.wait(cluster.job_ids)
    time.sleep(0.5)
    launcher.terminate()
    ends(launcher, 128 + signal.SIGTERM)
    assert cluster.job_ids() == []


def test_a_launcher_killed_during_an_unanswered_submission_leaves_no_second_job(cluster, tmp_path, moody):
    job = script(tmp_path, 'echo >>"$1"; [ "$2" = again ] || sleep 300\n')
    launcher = cluster.launch(tmp_path / "x.log", *job, tmp_path / "out", "first", **moody("sbatch", after=1))
    cluster.wait((tmp_path / "out").exists)
    launcher.kill()
    launcher.communicate()
    assert "cancelling jobs of an earlier run" in ends(
        cluster.launch(tmp_path / "x.log", *job, tmp_path / "out", "again")
    )
    assert cluster.job_ids() == []


def test_a_training_asks_again_to_be_requeued(cluster, tmp_path, moody):
    """The first time nothing happens, the second time the answer is lost."""
    env = moody("scontrol", before=2, after=1)  # its state is looked at first
    job = script(
        tmp_path,
        """echo >>"$1"; [ "$(wc -l <"$1")" -lt 2 ] || exit 0
        trap 'touch "$S5_REQUEUE"; exit 75' USR1
        while :; do sleep 0.2; done
        """,
    )
    launcher = cluster.launch("--grace", "60", "--time", "30", tmp_path / "x.log", *job, tmp_path / "out", **env)
    cluster.wait((tmp_path / "out").exists)
    (job_id,) = cluster.job_ids()
    cluster.run("scancel", "--signal", "USR1", "--batch", job_id)
    ends(launcher)
    assert (tmp_path / "out").read_text() == "\n\n" and "# requeued" in (tmp_path / "x.log").read_text()
