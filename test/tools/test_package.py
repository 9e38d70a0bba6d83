"""The installed package: what `pip install .` brings is whole, and stands without the repository."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RANGES = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]


def name_of(requirement: str) -> str:
    """The name of a package as indexes compare it."""
    return re.sub(r"[-_.]+", "-", Requirement(requirement).name).lower()


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / "tools" / file).read_text(encoding="utf-8").splitlines()
    return {name_of(name): version for name, _, version in (line.partition("==") for line in lines) if version}


def imports(file: Path) -> set[str]:
    """Top-level names of what a module imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).split(".")[0])
    return names - {"s5"} - sys.stdlib_module_names


def test_every_package_that_is_imported_is_declared():
    by_hand = {file.stem.removeprefix("install_") for file in (ROOT / "tools/installers").glob("install_*.sh")}
    known, declared = packages_distributions(), {name_of(line) for line in RANGES}
    for file in (ROOT / "s5").rglob("*.py"):
        for package in imports(file) - by_hand:
            assert {name_of(name) for name in known.get(package, [])} & declared, (file, package)


def test_no_package_is_declared_twice():
    names = [name_of(line) for line in RANGES]
    assert sorted(set(names)) == sorted(names)


def test_the_pins_of_the_recipes_are_within_the_ranges():
    locked = pins("constraints.txt")
    for line in RANGES:
        assert Requirement(line).specifier.contains(locked[name_of(line)]), line


def test_every_requirement_of_the_recipes_is_declared():
    assert pins("requirements.txt").keys() <= {name_of(line) for line in RANGES}


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the wheel's content, as installers lay it down; the wheel is built of a copy without the rest."""
    copy, folder = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("installed")
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    shutil.copytree(ROOT / "s5", copy / "s5", ignore=shutil.ignore_patterns("__pycache__"))
    code = "from setuptools import build_meta; build_meta.build_wheel('.')"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True)
    [wheel] = copy.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def test_the_wheel_holds_every_file_of_the_package_and_no_other(installed):
    def files(folder: Path) -> set[str]:
        return {
            str(file.relative_to(folder))
            for file in folder.rglob("*")
            if file.is_file() and "__pycache__" not in file.parts
        }

    assert files(installed / "s5") == files(ROOT / "s5")
    assert {path.name.split("-")[0] for path in installed.iterdir()} == {"s5"}
    assert list(installed.glob("*.dist-info/**/LICENSE"))


def python(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)


def test_what_lies_in_the_repository_alone_is_missed_in_one_line(installed, tmp_path):
    done = python(installed, tmp_path, "-m", "s5.bin.models", "--system", "conf/systems/mini.yaml")
    assert done.returncode == 1
    assert done.stderr == "error: conf/systems/mini.yaml: found No such file or directory, expected a YAML file\n"
    (tmp_path / "system.yaml").write_text("taggers: [{name: a, train: a}]\nseparators: [{name: b, train: b}]\n")
    done = python(installed, tmp_path, "-m", "s5.bin.pack", "--system", "system.yaml", "--out", "a.s5")
    assert done.stderr.startswith("error: licence: found none") and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_it_separates_a_recording_in_an_empty_folder_and_writes_nothing_beside_itself(installed, tmp_path):
    before = sorted(installed.rglob("*"))
    archive = str(ROOT / "egs/mini_s5/mini_long.s5")
    code = f"""
import numpy as np, soundfile, s5
from s5 import S5System, metrics
assert s5.__file__.startswith({str(installed)!r})
mixture = 0.1 * np.random.default_rng(0).standard_normal((4, 16000)).astype(np.float32)
soundfile.write("rec.wav", mixture.T, 16000, subtype="FLOAT")
system = S5System.from_pretrained({archive!r}, device="cpu")
system(mixture, 16000)
assert abs(metrics.sdr(0.9 * mixture[0], mixture[0]) - 20) < 1e-3
"""
    done = python(installed, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    words = ("--system", archive, "--device", "cpu", "--labels", "Speech Pour", "rec.wav", "out")
    done = python(installed, tmp_path, "-m", "s5.bin.separate", *words)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["rec_0_Speech.wav", "rec_1_Pour.wav"]
    assert sorted(installed.rglob("*")) == before
