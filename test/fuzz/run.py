"""Gives mutated inputs to what reads them: each is refused in one line or gives a right result, and nothing else.

    python test/fuzz/run.py --seed 1 --number 20000          # all kinds of input
    python test/fuzz/run.py --seed 1 --kind audio --number 500
    python test/fuzz/run.py --seed 1 --only audio/17         # one again, with its traceback; --keep DIR keeps its files

A traceback, a message of several lines or without the file's name, a hang, more than 8 GB of address space, a crash
and a wrong result are failures; they are listed, those of one cause together, and the exit status is 1. A mutant
follows from the seed, its kind and its number alone.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy: a process that has threads is not to be forked
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["S5_CACHE"] = "off"

import argparse
import contextlib
import io
import json
import random
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))
import mutate
import originals
from kinds import KINDS, Mutant, Wrong, make_mutant

MEMORY = 8 << 30
"""Bytes of address space of a process."""
CPU_SECONDS, WALL_SECONDS = 20, 90
"""Of one mutant."""
BATCH = 25
"""Mutants a process."""


class TooLong(BaseException):
    """A mutant takes more than its time."""


def preload(kinds: list[str]) -> None:
    """Imports what takes long, once for all processes."""
    import torch

    torch.set_num_threads(1)
    import h5py
    import kaldiio
    import scipy.signal
    import sofar

    assert all((h5py, kaldiio, scipy, sofar))
    if "training" in kinds:
        from s5.tasks import launch

        launch._task("tagging")
        launch._task("separation")


# --- one mutant -------------------------------------------------------------------------------------------------------


def one_line(message: str) -> str | None:
    """What is wrong with a refusal, if anything is."""
    if "\n" in message.strip():
        return "several lines"
    if len(message) > 3000:
        return "a line of more than 3000 characters"
    if not re.search(r": found .*, expected ", message) and not re.match(r"error: [^:\[\]]*/?[^:\[\]]+: ", message):
        return "a line that does not name a file"
    return None


def outcome(kind_name: str, mutant: Mutant) -> tuple[str, str]:
    """What happens: ``right``, ``refused``, or a failure; and a line about it."""
    from s5.bin.command import run

    kind = KINDS[kind_name]
    said = io.StringIO()
    result: list[Any] = []

    def call(_: Any) -> None:
        result.append(kind.run(mutant))

    try:
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run(call, [])
        except SystemExit as e:
            if Path(mutate.RAN).exists():
                return "wrong result", "code of the file ran"
            if isinstance(e.code, str):
                wrong = one_line(e.code)
                left = [str(path) for pattern in kind.left for path in Path().glob(pattern)]
                if left:
                    return "left behind", f"{left[0]} after: {e.code}"
                return (wrong, e.code) if wrong else ("refused", e.code)
            text = said.getvalue().strip().splitlines()
            return ("refused" if e.code == 2 and text and "error:" in text[-1] else f"status {e.code}"), text[
                -1
            ] if text else ""
        if Path(mutate.RAN).exists():
            return "wrong result", "code of the file ran"
        kind.judge(mutant, result[0])
        return "right", ""
    except Wrong as e:
        return "wrong result", str(e)
    except TooLong:
        return "hang", _where(sys.exc_info()[1])
    except MemoryError as e:
        return "memory", _where(e)
    except BaseException as e:
        return "traceback", f"{type(e).__name__}: {str(e)[:200]!r} {_where(e)}"


def _where(error: BaseException | None) -> str:
    """The innermost place of ours."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if error] if error else []
    ours = [f for f in frames if "/s5/" in f.filename and "venv" not in f.filename] or frames[-1:]
    return f"at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""


def try_one(world: Path, seed: int, name: str, index: int, folder: Path) -> dict[str, Any]:
    """Makes a mutant in a folder of its own and tries it."""
    rng = random.Random(f"{seed}/{name}/{index}")
    mutant = Mutant(world / name, world, rng)
    folder.mkdir(parents=True)
    os.chdir(folder)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    began = time.monotonic()
    try:
        while not mutant.changes:
            make_mutant(KINDS[name], mutant)
        what, line = outcome(name, mutant)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.chdir(world)
    changes = [[file.encode("utf-8", "replace").decode(), done] for file, done in mutant.changes]
    line = line.encode("utf-8", "replace").decode()
    return {"kind": name, "index": index, "what": what, "line": line, "changes": changes, "s": time.monotonic() - began}


def work(world: Path, seed: int, tasks: list[tuple[str, int]], keep: Path | None, pipe: int) -> None:
    """What a child process does: one mutant after the other; says before each which it is, and after what came out."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
    signal.signal(signal.SIGPROF, _too_long)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    scratch = world / "mutants" / str(os.getpid())
    for name, index in tasks:
        os.write(pipe, (json.dumps({"begins": [name, index]}) + "\n").encode())
        folder = scratch / f"{name}.{index}"
        found = try_one(world, seed, name, index, folder)
        if keep is not None and found["what"] not in ("right", "refused"):
            shutil.copytree(folder, keep / f"{name}.{index}", symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        os.write(pipe, (json.dumps(found) + "\n").encode())
    os._exit(0)


def _too_long(*_: Any) -> None:
    raise TooLong


# --- all of them ------------------------------------------------------------------------------------------------------


class Child:
    """A process with its tasks."""

    def __init__(self, world: Path, seed: int, tasks: list[tuple[str, int]], keep: Path | None) -> None:
        self.tasks, self.text, self.began = list(tasks), b"", time.monotonic()
        self.pipe, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.pipe)
            try:
                work(world, seed, tasks, keep, theirs)
            except BaseException:
                os.write(theirs, (json.dumps({"broken": traceback.format_exc()}) + "\n").encode())
            finally:
                os._exit(1)
        os.close(theirs)

    def read(self) -> list[dict[str, Any]] | None:
        """What it has said; None at its end."""
        block = os.read(self.pipe, 1 << 16)
        if not block:
            return None
        *lines, self.text = (self.text + block).split(b"\n")
        self.began = time.monotonic()
        return [json.loads(line) for line in lines]

    def end(self) -> str:
        """Waits for its end; how it came."""
        os.close(self.pipe)
        _, status = os.waitpid(self.pid, 0)
        return (
            signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"
        )


def plan(number: int, kinds: list[str]) -> list[tuple[str, int]]:
    """Kind and number of each mutant, by the kinds' shares."""
    shares = {name: KINDS[name].share for name in kinds}
    wanted = {name: max(1, round(number * share / sum(shares.values()))) for name, share in shares.items()}
    tasks = [(name, i) for name in kinds for i in range(wanted[name])]
    return tasks[: number + len(kinds)]


def run_all(
    world: Path, seed: int, tasks: list[tuple[str, int]], jobs: int, keep: Path | None = None
) -> list[dict[str, Any]]:
    """Tries all mutants in child processes."""
    waiting = [tasks[i : i + BATCH] for i in range(0, len(tasks), BATCH)]
    children: dict[int, Child] = {}
    found: list[dict[str, Any]] = []
    while waiting or children:
        while waiting and len(children) < jobs:
            child = Child(world, seed, waiting.pop(0), keep)
            children[child.pipe] = child
        ready, _, _ = select.select(list(children), [], [], 1)
        for child in list(children.values()):
            if child.pipe not in ready:
                if time.monotonic() - child.began > WALL_SECONDS:
                    os.kill(child.pid, signal.SIGKILL)
                continue
            said = child.read()
            if said is not None:
                for result in said:
                    if "broken" in result:
                        raise RuntimeError(result["broken"])
                    if "begins" not in result:
                        found.append(result)
                        child.tasks.pop(0)
                continue
            del children[child.pipe]
            how = child.end()
            if child.tasks:  # it died of the first of these
                name, index = child.tasks.pop(0)
                what = "hang" if how == "SIGKILL" else "crash"
                found.append(
                    {"kind": name, "index": index, "what": what, "line": how, "changes": [], "s": WALL_SECONDS}
                )
                if child.tasks:
                    waiting.insert(0, child.tasks)
    return found


def report(found: list[dict[str, Any]], seed: int, most: int = 3) -> int:
    """Prints counts by kind and the failures, those of one cause together; how many failures there are."""
    counts: dict[str, Counter[str]] = {}
    for result in found:
        state = result["what"] if result["what"] in ("right", "refused") else "failures"
        counts.setdefault(result["kind"], Counter())[state] += 1
    failures = [result for result in found if result["what"] not in ("right", "refused")]
    causes: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for result in failures:
        line = re.sub(r"\d+", "#", re.sub(r"'[^']*'", "'..'", result["line"]))[:70]
        place = re.search(r"at \S+$", result["line"])
        causes.setdefault((result["kind"], result["what"], place[0] if place else line), []).append(result)
    for (kind, what, _), some in sorted(causes.items(), key=lambda item: (item[0][0], -len(item[1]))):
        print(f"\n{kind}, {what}: {len(some)}")
        for result in some[:most]:
            changes = "; ".join(f"{file}: {done}" for file, done in result["changes"])
            print(f"  --seed {seed} --only {kind}/{result['index']}  ({changes})\n      {result['line'][:300]}")
    print(f"\n{'kind':<12}{'mutants':>9}{'right':>9}{'refused':>9}{'failures':>9}{'ms each':>9}")
    for kind, states in counts.items():
        times = [result["s"] for result in found if result["kind"] == kind]
        row = [sum(states.values()), states["right"], states["refused"], states["failures"]]
        print(f"{kind:<12}" + "".join(f"{n:>9}" for n in row) + f"{1000 * sum(times) / len(times):>9.0f}")
    print(f"{len(found)} mutants, {len(failures)} failures")
    return len(failures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of all mutants")
    parser.add_argument("--number", type=int, default=1000, metavar="N", help="mutants in all")
    parser.add_argument("--kind", nargs="*", choices=list(KINDS), default=list(KINDS), help="by default all")
    parser.add_argument("--only", metavar="KIND/I", nargs="+", help="these mutants alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy what fails into this folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every outcome")
    args = parser.parse_args()
    began = time.monotonic()
    tasks = plan(args.number, args.kind)
    if args.only:
        tasks = [(name.split("/")[0], int(name.split("/")[1])) for name in args.only]
    preload([name for name, _ in tasks])
    keep = args.keep.absolute() if args.keep else None
    with tempfile.TemporaryDirectory(prefix="s5.fuzz.") as scratch:
        world = Path(scratch, "world")
        pid = os.fork()  # what makes the originals may start threads
        if pid == 0:
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    originals.make(world)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        if os.waitpid(pid, 0)[1]:
            sys.exit("error: the originals could not be made")
        print(f"imports and originals: {time.monotonic() - began:.1f} s", flush=True)
        found = run_all(world, args.seed, tasks, args.jobs, keep)
        if args.only:
            print(json.dumps(found, indent=1))
    if args.json:
        args.json.write_text(json.dumps(found, indent=0))
    failures = report(found, args.seed)
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
