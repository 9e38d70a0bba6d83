"""A thousand mutated inputs of all kinds: each is refused in one line or gives a right result, and nothing else.

``python test/fuzz/run.py --number 20000 --seed S`` tries more of them.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")


@pytest.mark.slow
def test_a_thousand_mutants_are_refused_in_one_line_or_read_rightly():
    done = subprocess.run([sys.executable, RUN, "--number", "1000"], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


@pytest.mark.slow
def test_a_seed_gives_the_same_mutants_again(tmp_path):
    outcomes = []
    for name in ("a.json", "b.json"):
        only = ["--seed", "5", "--only", "labels/3", "datadir/4", "submission/5", "--json", str(tmp_path / name)]
        subprocess.run([sys.executable, RUN, *only], capture_output=True, timeout=600)
        outcomes.append([{**found, "s": 0} for found in json.loads((tmp_path / name).read_text())])
    assert outcomes[0] == outcomes[1] and len(outcomes[0]) == 3
