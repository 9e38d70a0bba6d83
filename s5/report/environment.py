"""Describes the machine and the versions behind the results, without paths and host names."""

from __future__ import annotations

import os
import platform
import subprocess
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from s5.utils.config import ROOT

PACKAGES = ("torch", "espnet", "numpy")


def describe(ignore: Sequence[str | Path] = ()) -> dict[str, str]:
    """Commit, versions, processor and GPU, as RESULTS.md lists them.

    Args:
        ignore: files whose changes do not count for :func:`commit`, e.g. RESULTS.md itself.
    """
    return {
        "commit": commit(ROOT, ignore),
        "Python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "CPU": cpu(),
        "GPU": gpu(),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def commit(root: str | Path, ignore: Sequence[str | Path] = ()) -> str:
    """Short hash of the checked-out commit, with "+ changes" if tracked files differ from it.

    Args:
        root: the repository. A folder inside another repository has no commit of its own.
        ignore: files whose changes do not count.
    """
    root = Path(root).resolve()
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel")).resolve() != root:
            return "not a git repository"
    except (OSError, subprocess.SubprocessError):
        return "not a git repository"
    try:
        name = _git(root, "rev-parse", "--short=10", "HEAD")
    except subprocess.SubprocessError:
        return "no commit yet"
    inside = [Path(file).resolve() for file in ignore if Path(file).resolve().is_relative_to(root)]
    exclude = [f":(top,exclude){file.relative_to(root)}" for file in inside]
    changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ":(top)", *exclude)
    return name + (" + changes" if changes else "")


def _git(root: Path, *arguments: str) -> str:
    call = ["git", "-C", str(root), *arguments]
    # The variable GIT_DIR of a surrounding hook would select another repository.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(call, check=True, capture_output=True, text=True, timeout=60, env=env).stdout.strip()


def cpu() -> str:
    """Model of the processor, and number of cores that this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{name}, {cores} core{'s' if cores != 1 else ''}"


def gpu() -> str:
    """Names of the GPUs that the driver lists, or ``none`` without a driver."""
    try:
        call = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        text = subprocess.run(call, check=True, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return "none"
    names = Counter(line.strip() for line in text.splitlines() if line.strip())
    return ", ".join(f"{n} x {name}" for name, n in names.items()) or "none"
