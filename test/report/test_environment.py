import os
import shutil
import socket
import subprocess

import pytest

from s5.report import environment


@pytest.fixture
def repository(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("no git, as on a bare machine")
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q")
    return root


def git(root, *arguments):
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", "-C", root, *author, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit_file(root, name, text):
    (root / name).write_text(text)
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "c")
    return git(root, "rev-parse", "--short=10", "HEAD")


def test_commit_and_changes(repository):
    name = commit_file(repository, "a", "1")
    assert environment.commit(repository) == name
    (repository / "venv").symlink_to("/elsewhere")  # git does not know it
    assert environment.commit(repository) == name
    (repository / "a").write_text("2")
    assert environment.commit(repository) == f"{name} + changes"


def test_rewriting_the_report_itself_is_no_change(repository):
    name = commit_file(repository, "RESULTS.md", "old")
    (repository / "RESULTS.md").write_text("new")
    assert environment.commit(repository, ignore=[repository / "RESULTS.md", "/elsewhere"]) == name


def test_without_commit_repository_or_git(repository, tmp_path, monkeypatch):
    assert environment.commit(repository) == "no commit yet"
    assert environment.commit(tmp_path) == "not a git repository"
    inside = repository / "unpacked"
    inside.mkdir()
    assert environment.commit(inside) == "not a git repository"  # it is part of another project
    monkeypatch.setenv("PATH", "")
    assert environment.commit(repository) == "not a git repository"


def test_describes_versions_without_the_host(monkeypatch):
    monkeypatch.setitem(os.environ, "HOSTNAME", "secret-host")
    found = environment.describe()
    assert list(found)[:2] == ["commit", "Python"]
    assert found["numpy"] == __import__("numpy").__version__
    assert "core" in found["CPU"]
    assert found["GPU"]
    assert socket.gethostname() not in found.values()
    assert environment._version("no-such-package-at-all") == "not installed"
