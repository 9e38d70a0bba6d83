"""A process that renders scene after scene keeps its size."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from s5.scene import Sampler, render

PAGE_MB = 4096 / (1 << 20)
REPOSITORY = Path(__file__).resolve().parents[2]


def resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE_MB


def soak(root, config, keep) -> float:
    """MB that this process grows by over 160 scenes, after 40; ``keep``: it leaks what it rendered."""
    importlib.import_module("s5.scene.rendering.cpu").spectra.resize(1_000_000)
    sampler = Sampler(config, root)
    sizes, kept = [], []
    for item in range(200):
        rendered = render(sampler.scene(0, item), root)
        kept += [rendered] * keep
        if item in (39, 199):
            sizes.append(resident_mb())
    return sizes[1] - sizes[0]


def growth(root, config, keep: bool) -> float:
    """:func:`soak` in a process of its own, whose memory no other test has used."""
    command = [sys.executable, __file__, str(root), json.dumps(config), str(int(keep))]
    return float(
        subprocess.run(
            command, cwd=REPOSITORY, env={"PYTHONPATH": str(REPOSITORY)}, check=True, capture_output=True
        ).stdout
    )


@pytest.mark.slow
def test_no_growth_over_hundreds_of_scenes_with_caches_that_overflow(material, config):
    config |= {"n_events": [1, 3], "interference": [1, 2]}
    assert growth(material, config, keep=False) < 8
    assert growth(material, config, keep=True) > 15  # the measure would see it


if __name__ == "__main__":
    print(soak(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])))
