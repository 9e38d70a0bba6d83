#!/usr/bin/env python3
"""Runs a command on a Slurm cluster with Kaldi's options and writes its output to
a log file:

  run_slurm.py [--mem 4G] [--num_threads N] [--gpu N] [--num_nodes N] [--time T]
      [--grace S] [--max_jobs_run N] [--config FILE] [--poll S] [--patience S]
      [JOB=1:N] log/x.JOB.log command ... JOB ...

With JOB=1:N the command runs N times as a job array, and JOB is replaced by the
job's number everywhere. At most --max_jobs_run jobs run at once. JOB=2,5:7 runs
only these jobs. With --num_nodes above 1 srun runs the command on all nodes.
conf/slurm.conf (of the working folder or the repository, or --config) defines
the other options and their meaning for sbatch. The exit status is 0 if all jobs
succeeded, else that of the first failed job, and the end of its log is shown. A
signal (Ctrl-C) cancels the jobs. They receive SIGUSR1 --grace seconds before
their time is over.

A job has ended if its wrapper (slurm_job.sh) has written a status file, or if
squeue says so. A job that is lost without a status file (e.g. because its node
died) is submitted again, at most twice. squeue is called at most every --poll
seconds. --patience is the time in seconds until a new file is visible on a
shared file system. While the controller is busy or down, all calls are retried
for ten minutes. If an answer was lost, the job is found by its name.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
NAME = Path(__file__).name

SUBMISSIONS = 3
"""Largest number of submissions of a job that Slurm loses, with the first one."""

SHOWN_FAILURES = 5
"""Number of failed jobs whose logs are shown."""

LAST_LINES = 12
"""Number of lines to show of a failed job's log."""

SUCCEEDED = "COMPLETED"
FAILED = ("FAILED", "TIMEOUT", "OUT_OF_MEMORY", "CANCELLED", "DEADLINE")
LOST = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED")
"""States of jobs that have ended. Jobs in other states wait, run or will be requeued."""

BUSY = re.compile(
    "|".join(
        (
            r"Unable to contact slurm controller",
            r"Socket timed out on send/recv operation",
            r"Zero Bytes were transmitted or received",
            r"temporarily un(available|able)",
            r"Communication (connection|shutdown) failure|Message (send|receive) failure|Unexpected message received",
            r"Received zero length message|Failed to send entire message|Header lengths are longer than data received",
            r"Unexpected missing socket error|Transport endpoint is not connected|Broken pipe",
            r"Connection (refused|reset|timed out)|Operation now in progress|Interrupted system call",
            r"(backup controller|Controller is) in standby mode",
            r"Unable to create job record, try again|try again (later|in a bit)",
            r"Protocol authentication error|Failed to connect to authentication agent",
        )
    ),
    re.IGNORECASE,
)
"""Messages of Slurm's commands while the controller is busy, down or restarting (src/common/slurm_errno.c)."""

PAUSES = (2, 5, 15, 30, *[60] * 10)
"""Seconds between two tries while the controller is busy."""

CANCELLING = 60.0
"""Largest number of seconds for the cancelling of jobs."""

HELD = re.compile(r"held|JobHeldAdmin|DependencyNeverSatisfied|BadConstraints", re.IGNORECASE)
"""Reasons for which a job would wait forever."""

HELD_BY_USER = "JobHeldUser"

Jobs = dict[int, tuple[str, str]]
"""Number of a job -> its state and its reason to wait."""


class Stopped(Exception):
    """Raised when a signal stops the launcher."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def say(message: str) -> None:
    """Prints a line on stderr."""
    print(f"{NAME}: {message}", file=sys.stderr, flush=True)


def complain(message: str) -> NoReturn:
    """Prints an error of one line and exits with status 2."""
    say(f"error: {message}")
    sys.exit(2)


@dataclass
class Config:
    """Content of conf/slurm.conf.

    Attributes:
        path: path of the file.
        command: first words of a submission.
        options: name -> value or ``*`` -> words for sbatch, with ``$0`` for the value.
        defaults: name -> value.
    """

    path: Path
    command: list[str] = field(default_factory=lambda: ["sbatch"])
    options: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    defaults: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Config:
        """Reads the file. Ends with an error for a line of unknown form."""
        config = cls(path)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as e:
            complain(f"{path}: found {e.strerror}, expected the options of sbatch (see conf/slurm.conf)")
        for number, line in enumerate(lines, 1):
            words = shlex.split(line, comments=True)
            name, equals, value = words[1].partition("=") if len(words) > 1 else ("", "", "")
            if not words:
                continue
            if words[0] == "command" and len(words) > 1:
                config.command = words[1:]
            elif words[0] == "option" and name and equals:
                config.options.setdefault(name, {})[value] = words[2:]
            elif words[0] == "default" and name and value and len(words) == 2:
                config.defaults[name] = value
            else:
                complain(f"{path}:{number}: found '{line}', expected command, option NAME=VALUE or default NAME=VALUE")
        return config

    def words(self, given: dict[str, str]) -> list[str]:
        """Words of the submission of a job with some options."""
        found = list(self.command)
        for name, value in given.items():
            forms = self.options[name]
            if value not in forms and "*" not in forms:
                complain(f"--{name}: found {value}, expected {' or '.join(forms)} ({self.path})")
            found += [word.replace("$0", value) for word in forms.get(value, forms.get("*", []))]
        return found


@dataclass
class Call:
    """Content of the command line.

    Attributes:
        sbatch: words of a submission, without those of the job.
        pattern: word that is replaced by a job's number; empty for a single job.
        numbers: numbers of the jobs.
        log: log of a job, with the pattern; relative as given, so that no folder above it contains the pattern.
        command: words of the command, with the pattern.
        environment: additional variables of the jobs.
        srun_nodes: number of nodes on which srun runs a job; 0: without srun.
        max_jobs_run: largest number of jobs at once; 0: no limit.
        poll: largest number of seconds between two calls of squeue.
        patience: seconds until a file from another machine is surely visible.
    """

    sbatch: list[str]
    pattern: str
    numbers: list[int]
    log: str
    command: list[str]
    environment: dict[str, str]
    srun_nodes: int
    max_jobs_run: int
    poll: float
    patience: float

    def log_of(self, number: int) -> str:
        """Log of a job."""
        return os.path.abspath(self.log.replace(self.pattern, str(number)) if self.pattern else self.log)

    def title(self, number: int) -> str:
        """Name of a job in messages."""
        return f"{self.pattern} {number}: " if self.pattern else ""


def parse(words: list[str]) -> Call:
    """Reads a command line. Ends with an error of one line if it is wrong."""
    given: dict[str, str] = {}
    while words and words[0].startswith("--"):
        name, equals, value = words.pop(0)[2:].partition("=")
        if name == "help":
            print(__doc__)
            sys.exit(0)
        if not equals:
            if not words:
                complain(f"--{name}: found no value, expected one")
            value = words.pop(0)
        given[name] = value
    config = Config.load(find_config(given.pop("config", None)))
    own = {"max_jobs_run": "0", "poll": "15", "patience": "60"}
    for name, default in own.items():
        own[name] = given.pop(name, config.defaults.pop(name, default))
        if not re.fullmatch(r"\d+(\.\d+)?" if name != "max_jobs_run" else r"\d+", own[name]):
            complain(f"--{name}: found '{own[name]}', expected a number")
    given = {**config.defaults, **given}
    for name in given:
        if name not in config.options:
            known = ", ".join(f"--{n}" for n in [*config.options, *own, "config"])
            complain(f"unknown option --{name} (known: {known}; conf/slurm.conf can add others)")
    for name in ("num_threads", "num_nodes", "gpu"):
        if not re.fullmatch(r"\d+", given.get(name, "1")):
            complain(f"--{name}: found '{given[name]}', expected a whole number")
    pattern, numbers = "", [1]
    if words and (match := re.fullmatch(r"([A-Za-z_]+)=(\d+(?::\d+)?(?:,\d+(?::\d+)?)*)", words[0])):
        pattern, numbers = match[1], ranges(match[2], words.pop(0))
    if len(words) < 2:
        complain(f"found '{' '.join(words)}', expected [JOB=1:N] a log file and a command")
    log, *command = words
    if len(numbers) > 1 and pattern not in log:
        complain(f"{log}: found one log for all jobs, expected {pattern} in its name")
    num_nodes = int(given.get("num_nodes", "1"))
    environment = {}
    if given.get("gpu") == "0":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    if "num_threads" in given:
        environment["OMP_NUM_THREADS"] = given["num_threads"]
    return Call(
        sbatch=config.words(given),
        pattern=pattern,
        numbers=numbers,
        log=log,
        command=command,
        environment=environment,
        srun_nodes=num_nodes if num_nodes > 1 or "grace" in given else 0,
        max_jobs_run=int(own["max_jobs_run"]),
        poll=float(own["poll"]),
        patience=float(own["patience"]),
    )


def find_config(given: str | None) -> Path:
    """The given configuration, or that of the working folder or of the repository."""
    if given is not None:
        return Path(given)
    own = Path("conf/slurm.conf")
    return own if own.is_file() else HERE.parent / own


def ranges(text: str, word: str) -> list[int]:
    """Numbers of a text like ``1:3,7``."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition(":")
        if int(last or first) < int(first):
            complain(f"{word}: found an empty range, expected JOB=1:N")
        found += range(int(first), int(last or first) + 1)
    return sorted(set(found))


def as_ranges(numbers: list[int]) -> str:
    """Numbers in sbatch's form: ``1-3,7``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def slurm_environment() -> dict[str, str]:
    """The environment without the variables of an outer job, which would change the options of submitted jobs."""
    kept, dropped = ("SLURM_CONF", "SLURM_CLUSTERS"), ("SLURM_", "SLURMD_", "SRUN_", "SQUEUE_", "SCANCEL_")
    return {k: v for k, v in os.environ.items() if not k.startswith(dropped) or k in kept}


def slurm(*words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command of Slurm."""
    environment = {**slurm_environment(), **(environment or {})}
    try:
        return subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    except FileNotFoundError:
        complain(f"PATH: found no {words[0]}, expected Slurm's commands (--cmd utils/run_local.sh does not need them)")


def busy(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether a command failed for a temporary reason."""
    return done.returncode != 0 and BUSY.search(done.stderr) is not None


def patiently(*words: str, seconds: float = math.inf) -> subprocess.CompletedProcess[str]:
    """Runs a command of Slurm, repeatedly for some time while the controller is busy. Returns the last result."""
    until = time.monotonic() + seconds
    for pause in (*PAUSES, 0):
        done = slurm(*words)
        if not (busy(done) and pause and time.monotonic() + pause < until):
            break
        say(f"{one_line(done.stderr)}; retrying")
        time.sleep(pause)
    return done


def find(*names: str, seconds: float = math.inf) -> list[str]:
    """Ids of jobs by their names, the oldest first, with jobs that ended some minutes ago.

    Ends with an error if the queue does not answer within some seconds.
    """
    words = ("squeue", "--noheader", "--states", "all", "--user", str(os.getuid()), "-o", "%F|%j")
    done = patiently(*words, seconds=seconds)
    if done.returncode:
        complain(f"{one_line(done.stderr)} ({shlex.join(words)})")
    jobs = (line.split("|", 1) for line in done.stdout.splitlines())
    return sorted({job_id for job_id, name in jobs if name in names}, key=int)


def one_line(text: str) -> str:
    """The text without line breaks."""
    return " ".join(text.split())


def largest_array() -> int:
    """Largest size of an array: its indices must be below MaxArraySize."""
    match = re.search(r"MaxArraySize\s*=\s*(\d+)", patiently("scontrol", "show", "config").stdout)
    return max(1, int(match[1]) - 1) if match else 1000


class Run:
    """Jobs of a call, from their submission to their end.

    The folder ``q/<name>`` beside the logs has the file ``jobs`` with the names of the submissions, and the files
    ``<number>.status`` with the exit statuses of ended jobs. Each submission has a unique name, by which its job is
    found if the controller's answer was lost.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        log = Path(os.path.abspath(call.log))
        name = log.name.replace(call.pattern, "") if call.pattern else log.name
        self.name = name.removesuffix(".log").strip("._") or log.parent.name
        self.folder = log.parent / "q" / self.name
        self.ids: dict[str, int] = {}
        """Id of a submission -> difference between the jobs' numbers and the indices of its array."""
        self.unsure = ""
        """Name of a submission that may have been accepted or not."""
        self.told = ""

    def prepare(self) -> None:
        """Makes the folders, cancels the jobs of an earlier launcher, and removes its files."""
        for number in self.call.numbers:
            Path(self.call.log_of(number)).parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.end_left_behind()
        for old in self.folder.glob("*.status"):
            old.unlink()
        for number in self.call.numbers:
            Path(self.call.log_of(number)).unlink(missing_ok=True)

    def end_left_behind(self) -> None:
        """Cancels the jobs of a killed launcher, which would write to the same files."""
        record = self.folder / "jobs"
        names = record.read_text(encoding="utf-8").split() if record.exists() else []
        self.ids = dict.fromkeys(find(*names) if names else [], 0)
        if self.ids and self.active():
            say(f"cancelling jobs of an earlier run: {' '.join(self.ids)}")
            self.cancel()
        self.ids = {}
        record.unlink(missing_ok=True)

    def active(self) -> bool:
        """Whether any job is still in the queue."""
        jobs = self.queue()
        ended = (SUCCEEDED, *FAILED, *LOST)
        return jobs is None or any(state not in ended for state, _ in jobs.values())

    def submit(self, numbers: list[int]) -> None:
        """Submits jobs in as few arrays as Slurm allows."""
        size = largest_array()
        groups: dict[int, list[int]] = {}
        for number in numbers:
            groups.setdefault(max(0, (number - 1) // size), []).append(number)
        for group, members in groups.items():
            offset = group * size
            self.submit_array([number - offset for number in members], offset, len(groups))

    def submit_array(self, indices: list[int], offset: int, n_arrays: int) -> None:
        """Submits one array. The wrapper adds the offset to an index."""
        call, name = self.call, re.sub(r"\s", "_", self.name) + f"-{secrets.token_hex(4)}"
        numbers = {offset + index for index in indices}
        words = [*call.sbatch, "--parsable", "--job-name", name, "--open-mode", "append"]
        if len(indices) > 1:
            limit = f"%{max(1, call.max_jobs_run // n_arrays)}" if call.max_jobs_run else ""
            words += ["--array", as_ranges(indices) + limit]
        else:
            offset += indices[0]
        # Slurm's own messages go into the log of the job, or into one file if the index is not the job's number.
        number = "%a" if call.pattern and len(indices) > 1 else str(offset)
        output = os.path.abspath(call.log.replace(call.pattern or "\0", "\0")).replace("%", "%%").replace("\0", number)
        if len(indices) > 1 and offset:
            output = str(self.folder / "slurm.out").replace("%", "%%")
        job = ["bash", str(HERE / "slurm_job.sh"), str(self.folder), call.pattern, str(offset), str(call.srun_nodes)]
        words += ["--output", output, "--wrap", f"exec {shlex.join([*job, call.log, *call.command])}"]
        with open(self.folder / "jobs", "a", encoding="utf-8") as f:
            f.write(f"{name}\n")
        self.unsure = name
        if job_id := self.sbatch(words, name, numbers):
            self.ids[job_id] = offset
            say(f"{self.name}: job {job_id}" + (f", {len(indices)} in an array" if len(indices) > 1 else ""))
        self.unsure = ""

    def sbatch(self, words: list[str], name: str, numbers: set[int]) -> str:
        """Submits and returns the job's id, or an empty text if the job has already ended.

        If the controller is busy, it checks whether the job was accepted before it retries.
        """
        again = False
        for pause in (*PAUSES, 0):
            # A signal must wait for the answer.
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                done = slurm(*words, environment=self.call.environment)
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            if not (busy(done) and pause):
                break
            again = True
            say(f"{one_line(done.stderr)}; retrying in {pause} s unless the job was accepted")
            time.sleep(pause)
            if found := find(name):
                return found[0]
            if self.statuses(numbers):
                return ""
        if done.returncode:
            self.unsure = ""
            complain(f"{one_line(done.stderr)} ({shlex.join(words)})")
        if again and len(found := find(name)) > 1:
            say(f"{self.name}: the controller accepted the job twice, cancelling {' '.join(found[1:])}")
            patiently("scancel", *found[1:])
            return found[0]
        return done.stdout.strip().splitlines()[-1].partition(";")[0]

    def queue(self) -> Jobs | None:
        """States of the jobs, with those that ended some minutes ago; None if the controller does not answer."""
        if not self.ids:
            return {}
        done = slurm(
            "squeue", "--noheader", "--array", "--states", "all", "--jobs", ",".join(self.ids), "-o", "%A|%F|%K|%T|%r"
        )
        if done.returncode:
            if "Invalid job id" in done.stderr:
                return {}  # all have ended, and Slurm has removed them
            if (why := one_line(done.stderr)) != self.told:
                self.told = why
                say(f"{self.name}: {why}; polling continues")
            return None
        jobs: Jobs = {}
        for line in done.stdout.splitlines():
            single, array, index, state, reason = line.split("|", 4)
            offset = self.ids.get(array, self.ids.get(single))
            if offset is not None:
                jobs[offset + (int(index) if index.isdigit() else 0)] = (state, reason)
        return jobs

    def wait(self, numbers: list[int]) -> tuple[dict[int, int], dict[int, str]]:
        """Waits until jobs have ended. Returns the exit statuses of ended jobs and the states of lost ones.

        ``sbatch --wait`` is no alternative: it returns 0 if a node died or a waiting job was cancelled, does not name
        the failed jobs of an array, and does not report held jobs.
        """
        ended: dict[int, int] = {}
        lost: dict[int, str] = {}
        gone: dict[int, float] = {}
        left, began = set(numbers), time.monotonic()
        while left:
            time.sleep(min(self.call.poll, 0.5 + (time.monotonic() - began) / 20))
            # Read the queue first: a job writes its status before it leaves the queue.
            jobs = self.queue()
            for number, status in self.statuses(left).items():
                ended[number] = status
            left -= ended.keys()
            if jobs is None:
                continue
            self.tell_why(jobs)
            now = time.monotonic()
            for number in sorted(left):
                state, reason = jobs.get(number, ("gone", ""))
                if HELD.search(reason) and reason != HELD_BY_USER and state == "PENDING":
                    self.cancel()
                    complain(f"{self.name}: job {' '.join(self.ids)} would wait forever: {reason}")
                if state in (SUCCEEDED, *FAILED, *LOST, "gone"):
                    if now - gone.setdefault(number, now) < self.call.patience:
                        continue
                    left.remove(number)
                    if state in LOST or state == "gone":
                        lost[number] = state
                    else:
                        ended[number] = self.status_by_state(number, state)
                else:
                    gone.pop(number, None)
        return ended, lost

    def statuses(self, numbers: set[int]) -> dict[int, int]:
        """Exit statuses from status files."""
        found = {}
        for entry in os.scandir(self.folder):
            head, _, tail = entry.name.partition(".")
            if tail == "status" and int(head) in numbers:
                found[int(head)] = int(Path(entry.path).read_text(encoding="utf-8").split()[0])
        return found

    def status_by_state(self, number: int, state: str) -> int:
        """Exit status of a job without a status file. The reason is added to its log."""
        if state == SUCCEEDED:
            return 0
        with open(self.call.log_of(number), "a", encoding="utf-8") as f:
            f.write(f"error: Slurm ended the job: {state}\n")
        return 1

    def tell_why(self, jobs: Jobs) -> None:
        """Reports unusual reasons for which jobs wait."""
        usual = ("None", "Priority", "Resources", "JobArrayTaskLimit", "BeginTime", "Prolog", "Cleaning", "")
        reasons = sorted({r for state, r in jobs.values() if state == "PENDING" and r not in usual})
        if reasons and (told := ", ".join(reasons)) != self.told:
            self.told = told
            say(f"{self.name}: job {' '.join(self.ids)} waits: {told}")

    def cancel(self) -> None:
        """Cancels the remaining jobs and waits until they have ended, for a limited time."""
        if self.unsure:
            self.ids |= dict.fromkeys(find(self.unsure, seconds=CANCELLING), 0)
        if not self.ids:
            return
        until = time.monotonic() + CANCELLING
        sent = False
        while time.monotonic() < until:
            sent = sent or not busy(slurm("scancel", *self.ids))
            if sent and not self.active():
                return
            time.sleep(0.5)
        say(f"{self.name}: some jobs may still run; to cancel them: scancel {' '.join(self.ids)}")

    def show(self, failed: dict[int, int]) -> None:
        """Names failed jobs and shows the ends of their logs."""
        for number in list(failed)[:SHOWN_FAILURES]:
            log = self.call.log_of(number)
            say(f"{self.call.title(number)}exit status {failed[number]}, log {log}")
            try:
                lines = Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                continue
            for line in [line for line in lines if not line.startswith("# ended")][-LAST_LINES:]:
                print(f"  | {line}", file=sys.stderr)
        if len(failed) > SHOWN_FAILURES:
            say(f"and {len(failed) - SHOWN_FAILURES} more: {self.call.pattern} {as_ranges(sorted(failed))}")


def run(call: Call) -> int:
    """Runs all jobs and returns the exit status."""
    jobs = Run(call)
    statuses: dict[int, int] = {}
    left = call.numbers
    try:
        jobs.prepare()
        for attempt in range(1, SUBMISSIONS + 1):
            jobs.ids = {}
            jobs.submit(left)
            ended, lost = jobs.wait(left)
            statuses |= ended
            if not lost:
                break
            left = sorted(lost)
            lost_ones = f"{len(left)} of {len(call.numbers)} lost by Slurm ({', '.join(sorted(set(lost.values())))})"
            again = "submitted again" if attempt < SUBMISSIONS else f"given up after {SUBMISSIONS} submissions"
            say(f"{jobs.name}: {lost_ones}, {again}: {as_ranges(left)}")
        else:
            statuses |= dict.fromkeys(left, 1)
    except Stopped as e:
        jobs.cancel()
        return 128 + e.number
    except BaseException:
        jobs.cancel()
        raise
    failed = {number: status for number, status in sorted(statuses.items()) if status}
    jobs.show(failed)
    return next(iter(failed.values()), 0)


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stop(number: int, _frame: object) -> NoReturn:
    """Handles the first signal and ignores further ones."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)


def main() -> None:
    """Entry point."""
    call = parse(sys.argv[1:])
    for each in SIGNALS:
        signal.signal(each, stop)
    try:
        status = run(call)
    except OSError as e:
        complain(f"{e.filename or call.log}: {e.strerror}")
    sys.exit(status)


if __name__ == "__main__":
    main()
