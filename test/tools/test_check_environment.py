"""tools/check_environment.py on this environment, whole and with packages that are spoilt."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "check_environment.py"


def run(*spoilt: Path) -> tuple[int, list[str]]:
    """Exit status and lines of the check, with these folders before the environment's own packages."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, spoilt))}
    done = subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def test_every_requirement_has_an_act():
    script = runpy.run_path(str(SCRIPT))
    assert script["ACTS"].keys() == script["requirements"]().keys()


@pytest.mark.slow
def test_every_requirement_works_here():
    assert run() == (0, [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "code", "found", "mend"),
    [
        ("soundfile", "raise OSError(\"cannot load library 'libsndfile.so'\")", "libsndfile.so", "pip config list"),
        ("einops", "import os; os.kill(os.getpid(), 4)", "found SIGILL", "another build of the package"),
        ("soxr", "resample = lambda *_: []", "found a wrong result", "uv cache clean soxr"),
    ],
)
def test_a_package_that_does_not_work_is_named_once_in_one_line(tmp_path, package, code, found, mend):
    (tmp_path / f"{package}.py").write_text(code)
    status, lines = run(tmp_path)
    assert status == 1
    # librosa, for one, imports soundfile.
    assert [line.split(":")[0] for line in lines] == [package]
    assert found in lines[0]
    assert mend in lines[0]
