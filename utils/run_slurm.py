#!/usr/bin/env python3
"""Runs a command on a Slurm cluster, in Kaldi's calling form, with its output in a
log file:

  run_slurm.py [--mem 4G] [--num_threads N] [--gpu N] [--num_nodes N] [--time T]
      [--grace S] [--max_jobs_run N] [--config FILE] [--poll S] [--patience S]
      [JOB=1:N] log/x.JOB.log command ... JOB ...

With JOB=1:N the command runs N times as a job array, with JOB replaced by the
job's number in every word, at most --max_jobs_run at once; JOB=2,5:7 runs only
those jobs. With --num_nodes above 1 it runs on all nodes at once, by srun. The
other options and their meaning for sbatch are defined in conf/slurm.conf (of
the working folder, else of the repository; or --config). Exit status: 0 if all
jobs succeeded, else that of the first failed job, and the end of its log is
printed. A signal (Ctrl-C) cancels the submitted jobs. The jobs receive SIGUSR1
--grace seconds before their time limit.

A job has ended when its wrapper (slurm_job.sh) has written a status file, or
when squeue says so. A job that disappears without such a file (e.g. its node
failed) is submitted again, at most twice. --poll is the longest time in seconds
between calls of squeue, --patience the longest delay in seconds until a file is
visible on a shared file system. While the controller is unreachable, calls are
retried for ten minutes; a submission whose answer was lost is found by the
job's name.
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
"""Submissions of a job that Slurm loses, including the first."""

SHOWN_FAILURES = 5
"""Number of failed jobs whose logs' ends are shown."""

LAST_LINES = 12
"""Lines shown of a failed job's log."""

SUCCEEDED = "COMPLETED"
FAILED = ("FAILED", "TIMEOUT", "OUT_OF_MEMORY", "CANCELLED", "DEADLINE")
LOST = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED")
"""States of jobs that have ended; jobs in other states wait, run or will be requeued."""

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
"""What Slurm's commands say while the controller is busy, away or being restarted (src/common/slurm_errno.c)."""

PAUSES = (2, 5, 15, 30, *[60] * 10)
"""Seconds from one try to the next while the controller is so."""

CANCELLING = 60.0
"""Seconds in which jobs are cancelled, at most."""

HELD = re.compile(r"held|JobHeldAdmin|DependencyNeverSatisfied|BadConstraints", re.IGNORECASE)
"""Reasons to wait that do not pass by themselves."""

HELD_BY_USER = "JobHeldUser"

Jobs = dict[int, tuple[str, str]]
"""Number of a job -> its state and why it waits."""


class Stopped(Exception):
    """Raised when a signal stops the launcher."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def say(message: str) -> None:
    """Prints a line on stderr."""
    print(f"{NAME}: {message}", file=sys.stderr, flush=True)


def complain(message: str) -> NoReturn:
    """Prints an error and exits with status 2."""
    say(f"error: {message}")
    sys.exit(2)


@dataclass
class Config:
    """The content of conf/slurm.conf.

    Attributes:
        path: the file.
        command: words that a submission begins with.
        options: name -> value or ``*`` -> words for sbatch, with ``$0`` in them.
        defaults: name -> value.
    """

    path: Path
    command: list[str] = field(default_factory=lambda: ["sbatch"])
    options: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    defaults: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Config:
        """Reads the file; complains about a line that is of no known form."""
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
        """The submission of a job with some options."""
        found = list(self.command)
        for name, value in given.items():
            forms = self.options[name]
            if value not in forms and "*" not in forms:
                complain(f"--{name}: found {value}, expected {' or '.join(forms)} ({self.path})")
            found += [word.replace("$0", value) for word in forms.get(value, forms.get("*", []))]
        return found


@dataclass
class Call:
    """A parsed command line.

    Attributes:
        sbatch: words of a submission, without the job's own.
        pattern: the word that stands for a job's number; empty if there is but one job.
        numbers: of the jobs.
        log: of a job, with the pattern in it; as it was given, so that no folder above it holds the pattern.
        command: words, with the pattern in them.
        environment: what jobs see beyond what is there.
        srun_nodes: on how many srun runs a job at once; 0: it runs without.
        max_jobs_run: jobs at once; 0 is no limit.
        poll: most seconds between looks at the queue.
        patience: seconds until a file that another machine wrote is surely seen.
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
        """The log of a job."""
        return os.path.abspath(self.log.replace(self.pattern, str(number)) if self.pattern else self.log)

    def title(self, number: int) -> str:
        """The name of a job in messages."""
        return f"{self.pattern} {number}: " if self.pattern else ""


def parse(words: list[str]) -> Call:
    """Parses a command line; exits with a one-line error if it is wrong."""
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
    """The configuration of --config, else the working folder's, else the repository's."""
    if given is not None:
        return Path(given)
    own = Path("conf/slurm.conf")
    return own if own.is_file() else HERE.parent / own


def ranges(text: str, word: str) -> list[int]:
    """The numbers in a text like ``1:3,7``."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition(":")
        if int(last or first) < int(first):
            complain(f"{word}: found an empty range, expected JOB=1:N")
        found += range(int(first), int(last or first) + 1)
    return sorted(set(found))


def as_ranges(numbers: list[int]) -> str:
    """Numbers in the form of sbatch: ``1-3,7``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def slurm_environment() -> dict[str, str]:
    """The environment without what an outer job has put there: it would set options of the jobs submitted from it."""
    kept, dropped = ("SLURM_CONF", "SLURM_CLUSTERS"), ("SLURM_", "SLURMD_", "SRUN_", "SQUEUE_", "SCANCEL_")
    return {k: v for k, v in os.environ.items() if not k.startswith(dropped) or k in kept}


def slurm(*words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Calls a command of Slurm."""
    environment = {**slurm_environment(), **(environment or {})}
    try:
        return subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    except FileNotFoundError:
        complain(f"PATH: found no {words[0]}, expected Slurm's commands (--cmd utils/run_local.sh works without)")


def busy(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether a command failed for a reason that passes by itself."""
    return done.returncode != 0 and BUSY.search(done.stderr) is not None


def patiently(*words: str, seconds: float = math.inf) -> subprocess.CompletedProcess[str]:
    """Calls a command of Slurm, for some seconds again and again while the controller is busy; its last answer."""
    until = time.monotonic() + seconds
    for pause in (*PAUSES, 0):
        done = slurm(*words)
        if not (busy(done) and pause and time.monotonic() + pause < until):
            break
        say(f"{one_line(done.stderr)}; tries again")
        time.sleep(pause)
    return done


def find(*names: str, seconds: float = math.inf) -> list[str]:
    """The ids of jobs of some names, the oldest first; ended ones are there for some minutes too.

    Complains if the queue does not tell within some seconds.
    """
    words = ("squeue", "--noheader", "--states", "all", "--user", str(os.getuid()), "-o", "%F|%j")
    done = patiently(*words, seconds=seconds)
    if done.returncode:
        complain(f"{one_line(done.stderr)} ({shlex.join(words)})")
    jobs = (line.split("|", 1) for line in done.stdout.splitlines())
    return sorted({job_id for job_id, name in jobs if name in names}, key=int)


def one_line(text: str) -> str:
    """A text without line breaks."""
    return " ".join(text.split())


def largest_array() -> int:
    """How many numbers an array may have: its indices lie below MaxArraySize."""
    match = re.search(r"MaxArraySize\s*=\s*(\d+)", patiently("scontrol", "show", "config").stdout)
    return max(1, int(match[1]) - 1) if match else 1000


class Run:
    """The jobs of one call, from submission to end.

    In the folder ``q/<name>`` beside the logs: ``jobs``, the names of what is submitted, and ``<number>.status``, the
    exit status of a job, written when it has ended. No other submission has the same name: by it a job is found that
    was taken though the controller's answer was lost.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        log = Path(os.path.abspath(call.log))
        name = log.name.replace(call.pattern, "") if call.pattern else log.name
        self.name = name.removesuffix(".log").strip("._") or log.parent.name
        self.folder = log.parent / "q" / self.name
        self.ids: dict[str, int] = {}
        """Id of a submission -> what is added to its array's indices to get jobs' numbers."""
        self.unsure = ""
        """Name of a submission of which it is not known whether it was taken."""
        self.told = ""

    def prepare(self) -> None:
        """Makes the folders, ends jobs that an earlier launcher left behind, and removes what it wrote."""
        for number in self.call.numbers:
            Path(self.call.log_of(number)).parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.end_left_behind()
        for old in self.folder.glob("*.status"):
            old.unlink()
        for number in self.call.numbers:
            Path(self.call.log_of(number)).unlink(missing_ok=True)

    def end_left_behind(self) -> None:
        """Jobs of a launcher that was killed must not write beside ours."""
        record = self.folder / "jobs"
        names = record.read_text(encoding="utf-8").split() if record.exists() else []
        self.ids = dict.fromkeys(find(*names) if names else [], 0)
        if self.ids and self.active():
            say(f"cancels jobs that an earlier run has left: {' '.join(self.ids)}")
            self.cancel()
        self.ids = {}
        record.unlink(missing_ok=True)

    def active(self) -> bool:
        """Whether any job is still in the queue."""
        jobs = self.queue()
        ended = (SUCCEEDED, *FAILED, *LOST)
        return jobs is None or any(state not in ended for state, _ in jobs.values())

    def submit(self, numbers: list[int]) -> None:
        """Submits jobs, as few arrays as Slurm allows."""
        size = largest_array()
        groups: dict[int, list[int]] = {}
        for number in numbers:
            groups.setdefault(max(0, (number - 1) // size), []).append(number)
        for group, members in groups.items():
            offset = group * size
            self.submit_array([number - offset for number in members], offset, len(groups))

    def submit_array(self, indices: list[int], offset: int, n_arrays: int) -> None:
        """Submits one array; the wrapper adds the offset to an index."""
        call, name = self.call, re.sub(r"\s", "_", self.name) + f"-{secrets.token_hex(4)}"
        numbers = {offset + index for index in indices}
        words = [*call.sbatch, "--parsable", "--job-name", name, "--open-mode", "append"]
        if len(indices) > 1:
            limit = f"%{max(1, call.max_jobs_run // n_arrays)}" if call.max_jobs_run else ""
            words += ["--array", as_ranges(indices) + limit]
        else:
            offset += indices[0]
        # What Slurm itself says of a job belongs into its log; where the index is not its number, into one file.
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
        """Submits; the job's id, or nothing if Slurm has forgotten it already.

        While the controller is busy, it looks whether the job was taken all the same before it tries again.
        """
        again = False
        for pause in (*PAUSES, 0):
            # A signal has to wait for the answer.
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                done = slurm(*words, environment=self.call.environment)
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            if not (busy(done) and pause):
                break
            again = True
            say(f"{one_line(done.stderr)}; looks in {pause} s whether the job was taken, else tries again")
            time.sleep(pause)
            if found := find(name):
                return found[0]
            if self.statuses(numbers):
                return ""
        if done.returncode:
            self.unsure = ""
            complain(f"{one_line(done.stderr)} ({shlex.join(words)})")
        if again and len(found := find(name)) > 1:
            say(f"{self.name}: the controller has taken the job twice, cancels {' '.join(found[1:])}")
            patiently("scancel", *found[1:])
            return found[0]
        return done.stdout.strip().splitlines()[-1].partition(";")[0]

    def queue(self) -> Jobs | None:
        """State of the jobs that Slurm knows, ended ones for some minutes too; None if it cannot be asked."""
        if not self.ids:
            return {}
        done = slurm(
            "squeue", "--noheader", "--array", "--states", "all", "--jobs", ",".join(self.ids), "-o", "%A|%F|%K|%T|%r"
        )
        if done.returncode:
            if "Invalid job id" in done.stderr:
                return {}  # all of them are over, and forgotten
            if (why := one_line(done.stderr)) != self.told:
                self.told = why
                say(f"{self.name}: {why}; goes on asking")
            return None
        jobs: Jobs = {}
        for line in done.stdout.splitlines():
            single, array, index, state, reason = line.split("|", 4)
            offset = self.ids.get(array, self.ids.get(single))
            if offset is not None:
                jobs[offset + (int(index) if index.isdigit() else 0)] = (state, reason)
        return jobs

    def wait(self, numbers: list[int]) -> tuple[dict[int, int], dict[int, str]]:
        """Waits until jobs have ended: exit status of those that did, state of those that Slurm lost.

        Not by ``sbatch --wait``: that ends with 0 also for a job whose node died or that was cancelled while it waited,
        does not tell which job of an array failed, and is silent while a job is held.
        """
        ended: dict[int, int] = {}
        lost: dict[int, str] = {}
        gone: dict[int, float] = {}
        left, began = set(numbers), time.monotonic()
        while left:
            time.sleep(min(self.call.poll, 0.5 + (time.monotonic() - began) / 20))
            # The queue first: a job that has left it has written its status before.
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
                    complain(f"{self.name}: job {' '.join(self.ids)} would wait for ever, Slurm says: {reason}")
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
        """The exit statuses written so far."""
        found = {}
        for entry in os.scandir(self.folder):
            head, _, tail = entry.name.partition(".")
            if tail == "status" and int(head) in numbers:
                found[int(head)] = int(Path(entry.path).read_text(encoding="utf-8").split()[0])
        return found

    def status_by_state(self, number: int, state: str) -> int:
        """The exit status of a job that wrote none; appends the reason to its log."""
        if state == SUCCEEDED:
            return 0
        with open(self.call.log_of(number), "a", encoding="utf-8") as f:
            f.write(f"error: Slurm ended the job: {state}\n")
        return 1

    def tell_why(self, jobs: Jobs) -> None:
        """Reports why jobs wait, if they wait for another reason than their turn."""
        usual = ("None", "Priority", "Resources", "JobArrayTaskLimit", "BeginTime", "Prolog", "Cleaning", "")
        reasons = sorted({r for state, r in jobs.values() if state == "PENDING" and r not in usual})
        if reasons and (told := ", ".join(reasons)) != self.told:
            self.told = told
            say(f"{self.name}: job {' '.join(self.ids)} waits: {told}")

    def cancel(self) -> None:
        """Cancels what is left of the jobs, and waits for some seconds until it has gone."""
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
        say(f"{self.name}: has not seen the end of what it cancelled; to do it again: scancel {' '.join(self.ids)}")

    def show(self, failed: dict[int, int]) -> None:
        """Reports failed jobs with the ends of their logs."""
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
    """Handler of signals: the first one counts."""
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
