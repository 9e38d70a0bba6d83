"""Runs the commands that README.md, docs/ and the recipes' README.md show, in the order of the pages.

    python test/docs/run_commands.py [--recordings egs/mini_s5/data/raw] [--only docs/results.md ...]

They run as they stand, in copies of the repository in which trainings and data sets are small, with a server of this
machine in the place of the network. commands.yaml says what is small, in which folder a page's commands run, what
stands for the names that pages leave open, and which commands are not run, and why. A block of code is one shell, as a
reader's would be; every file that an --out named, or that the table says, has to be there after it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from pages import ROOT
from plan import TABLE, Page, Plan, Step, Table, quoted
from stand_ins import StandIns

WARM, WARM_CALL = Path(__file__).with_name("warm.py"), Path(__file__).with_name("warm_call.py")
IMPORTS = """
import matplotlib.pyplot, torch.utils.tensorboard, torch
with torch.device("meta"):
    torch.hann_window(4)
import s5.system.archive, s5.inference.stages, s5.report.all_plots, s5.report.stage, s5.scene.simulate, s5.tuning
from s5.tasks import launch
for name in ("tagging", "separation"):
    launch._task(name)
"""
LONGEST = 600
"""Seconds that a block may take."""


# --- a copy of the repository ---------------------------------------------------------------------------------------


def own_files() -> list[str]:
    """The repository's own files: those that git knows or would; without git all but environment and results."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True) if shutil.which("git") else None
    if listed and listed.returncode == 0:
        return [name for name in listed.stdout.split("\0") if name and os.path.lexists(ROOT / name)]
    left_out = re.compile(r"(^|/)(\.\w+|venv|data|exp|__pycache__)/")
    names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file() or path.is_symlink()]
    return [name for name in names if name.startswith("s5/data/") or not left_out.search(name)]


def copy_repository(to: Path, table: Table, address: str, track: str) -> None:
    """A track's copy with small trainings and data sets, its downloads at the address of a local server."""
    for name in own_files():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to / name, follow_symlinks=False)
    for rule in table.small:
        if rule.get("track", track) != track:
            continue
        changed = 0
        for file in to.glob(rule["files"]):
            by = rule["by"].replace("ADDRESS", address)
            text, n = re.subn(rule["find"], by, file.read_text(), flags=re.M)
            changed += n
            file.write_text(text)
        if not changed:
            raise ValueError(f"{TABLE.name}: found nothing to make small: {rule}")


class WarmPython:
    """The environment of a copy, whose python is a server's fork (warm.py)."""

    def __init__(self, copy: Path, socket: Path, environment: dict[str, str]) -> None:
        real, shims = ROOT / "tools/venv/bin", copy / "tools/venv/bin"
        shutil.rmtree(shims, ignore_errors=True)
        shims.mkdir(parents=True)
        socket.unlink(missing_ok=True)
        for program in real.iterdir():
            if not program.name.startswith("python"):
                (shims / program.name).symlink_to(program)
        call = f'exec "{real}/python" -I -S "{WARM_CALL}" "{socket}" "$@"'
        # Everything on the CPU, whatever the machine has.
        for name, line in (("python", call), ("python3", call), ("nvidia-smi", "exit 1")):
            (shims / name).write_text(f"#!/bin/sh\n{line}\n")
            (shims / name).chmod(0o755)
        self.server = subprocess.Popen(
            [real / "python", WARM, socket, IMPORTS],
            env={**environment, "PYTHONPATH": str(copy)},
            cwd=copy,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def wait(self) -> None:
        """Until it is there."""
        assert self.server.stdout is not None
        if b"ready\n" not in iter(self.server.stdout.readline, b""):  # imports print a word, too
            raise RuntimeError("the server of warm.py did not start")

    def end(self) -> None:
        """Ends the server."""
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait(10)


# --- running --------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What became of a command."""

    page: str
    line: int
    command: str
    seconds: float
    failure: str

    def __str__(self) -> str:
        place = f"{self.page}:{self.line}" if self.line else self.page
        command = self.command.replace("\n", "; ")
        return f"{'FAILED' if self.failure else 'ok'}: {place}: {command} ({self.seconds:.1f} s)"


def run_step(step: Step, copy: Path, environment: dict[str, str], scratch: Path) -> list[Outcome]:
    """Runs the commands of a step in one shell. What comes after a failed one is not run, and has failed too."""
    marks, outputs = scratch / "marks", [scratch / f"output{i}" for i in range(len(step.scripts))]
    for path in (marks, *outputs):
        path.write_text("")
    lines = ["set -eu", f"cd {quoted(str(copy))}"]
    # What a reader has in his shell by then.
    if re.search(r"(^|; )(\w+=\S* )*(python|tensorboard|local/)", "\n".join(step.scripts), flags=re.M):
        lines.append(". ./path.sh")
    lines.append(f"cd {step.folder}")
    for i, script in enumerate(step.scripts):
        if script:
            mark = f'echo "{i} $EPOCHREALTIME $PWD" >>{quoted(str(marks))}'
            lines += [f"exec >{quoted(str(outputs[i]))} 2>&1", script, mark]
    began = time.time()
    shell = subprocess.Popen(
        ["bash", "-c", "\n".join(lines)], env=environment, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        shell.wait(LONGEST)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
    ended = {int(line.split()[0]): line.split(maxsplit=2)[1:] for line in marks.read_text().splitlines()}
    outcomes = []
    for i, script in enumerate(step.scripts):
        if not script:
            continue
        moment, folder = ended.get(i, (str(time.time()), ""))
        why = complaint(step, i, outputs[i].read_text(errors="replace"), Path(folder) if i in ended else None)
        outcomes.append(Outcome(step.page, step.line, step.commands[i], float(moment) - began, why))
        began = float(moment)
    return outcomes


def complaint(step: Step, i: int, said: str, folder: Path | None) -> str:
    """What is wrong with a command of a step that ended in a folder (None: it did not succeed); empty for nothing."""
    if folder is None:
        why = "failed"
    elif missing := [path for path in step.leaves[i] if not (folder / path).exists()]:
        why = f"does not leave {', '.join(missing)}"
    elif not re.search(step.prints[i], said, flags=re.M):
        why = f"does not print {step.prints[i]}"
    else:
        return ""
    last = "\n".join(said.splitlines()[-40:])
    return f"{why}:\n{step.scripts[i]}\n{last or '(no output)'}"


class Track:
    """Pages that run one after the other, in a copy of the repository of their own."""

    def __init__(self, name: str, pages: list[Page], table: Table, stands: StandIns, scratch: Path) -> None:
        self.pages = pages
        self.copy, self.scratch = scratch / f"a copy for {name}", scratch / name
        copy_repository(self.copy, table, stands.address, name)
        for folder in ("home", "marks"):
            (self.scratch / folder).mkdir(parents=True, exist_ok=True)
        self.plan = Plan(table, stands.names)
        self.outcomes: list[Outcome] = []
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("S5_", "HF_", "PYTHON", "XDG_"))}
        self.environment = {
            **inherited,
            **stands.environment,
            "HOME": str(self.scratch / "home"),
            "MPLCONFIGDIR": os.environ.get(
                "MPLCONFIGDIR", os.path.expanduser("~/.cache/matplotlib")
            ),  # its list of fonts
            "S5_NO_SETUP": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "COLUMNS": "80",
            **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")},  # the tracks share the cores
        }
        self.python = WarmPython(self.copy, self.scratch / "python", self.environment)

    def take_recordings(self, folder: Path) -> None:
        """The mini recipe's recordings, made before: links where there can be, as they are only read."""
        raw = self.copy / "egs/mini_s5/data/raw"
        if raw.exists():
            return
        shutil.copytree(folder, raw, symlinks=True, copy_function=_link)

    def run(self) -> None:
        """Runs its pages; prints a line a command."""
        for page in self.pages:
            for path, text in self.plan.files(page).items():
                (self.copy / path).parent.mkdir(parents=True, exist_ok=True)
                (self.copy / path).write_text(text)
            for step in self.plan.steps(page):
                for outcome in run_step(step, self.copy, self.environment, self.scratch / "marks"):
                    self.outcomes.append(outcome)
                    print(f"{outcome}\n{outcome.failure}" if outcome.failure else outcome, flush=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=Path, help="data/raw of the mini recipe, where it is made already")
    parser.add_argument("--only", nargs="+", metavar="PAGE", help="these pages alone, e.g. docs/results.md")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in this folder, go on from what is there")
    args = parser.parse_args()
    table = Table.load()
    with contextlib.ExitStack() as stack:
        if args.keep:
            args.keep.mkdir(parents=True, exist_ok=True)
            scratch = args.keep.resolve()
        else:  # without a space in its name: a path in --data_args may have none; the copies' names have
            scratch = Path(tempfile.mkdtemp(prefix="s5_docs_"))
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        stands = StandIns(scratch)
        stack.callback(stands.end)
        tracks = []
        for name, pages in table.tracks.items():
            pages = [page for page in pages if not args.only or page.page in args.only]
            if pages:
                tracks.append(Track(name, pages, table, stands, scratch))
                stack.callback(tracks[-1].python.end)
        for track in tracks:
            if args.recordings:
                track.take_recordings(args.recordings)
            track.python.wait()
        if not (scratch / "audioset").exists():
            stands.fill(tracks[0].copy, tracks[0].environment)
        threads = [threading.Thread(target=track.run, daemon=True) for track in tracks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    outcomes = [outcome for track in tracks for outcome in track.outcomes]
    failed = sum(bool(outcome.failure) for outcome in outcomes)
    not_run = sum(len(track.plan.not_run) for track in tracks)
    print(f"{not_run} more commands are not run here: python test/docs/plan.py lists them")
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
