"""What all entry points share."""

import importlib
import subprocess
import sys

import pytest

from s5.bin.command import Parser, at_least_zero, count, count_or_zero, number, positive, run
from s5.utils.errors import InputError


@pytest.fixture
def parser():
    parser = Parser("Does things.")
    parser.add_argument("--system", help="system YAML")
    parser.add_argument("--nj", type=int, default=2, help="jobs")
    return parser


def test_an_unknown_option_is_named_with_the_nearest_one(parser, capsys):
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--sytem", "x"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "unknown option --sytem (did you mean --system?)" in said and said.count("\n") == 1


def test_a_required_option_with_a_slip_is_not_just_missing(parser, capsys):
    parser.add_argument("--estimates", required=True)
    with pytest.raises(SystemExit):
        parser.parse_args(["--estimate", "x"])
    assert "unknown option --estimate (did you mean --estimates?)" in capsys.readouterr().err


def test_words_behind_two_dashes_are_no_options_of_ours(parser):
    parser.add_argument("espnet", nargs="*")
    assert parser.parse_args(["--nj", "3", "--", "--max_epoch", "4"]).espnet == ["--max_epoch", "4"]


def test_a_word_too_many_is_refused(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["--nj", "3", "more"])
    assert "found 'more', expected no further word" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (number, "nan", "a number"),
        (number, "-inf", "a number"),
        (positive, "0", "a number above 0"),
        (positive, "nan", "a number above 0"),
        (positive, "1e999", "a number above 0"),
        (at_least_zero, "-0.5", "a number, 0 or more"),
        (at_least_zero, "inf", "a number, 0 or more"),
        (count, "0", "a whole number of at least 1"),
        (count, "2.5", "a whole number of at least 1"),
        (count_or_zero, "-1", "a whole number, 0 or more"),
        (count_or_zero, "nan", "a whole number, 0 or more"),
    ],
)
def test_numbers_that_do_not_fit_an_option_are_refused(parser, capsys, kind, text, expected):
    parser.add_argument("--x", type=kind)
    with pytest.raises(SystemExit):
        parser.parse_args([f"--x={text}"])
    assert f"argument --x: found {text}, expected {expected} (see --help)\n" in capsys.readouterr().err


def test_numbers_that_fit_are_read(parser):
    for i, (kind, text, value) in enumerate(
        [
            (number, "-3.5", -3.5),
            (positive, "1e-3", 1e-3),
            (at_least_zero, "0", 0),
            (count, "1", 1),
            (count_or_zero, "0", 0),
        ]
    ):
        parser.add_argument(f"--x{i}", type=kind)
        assert getattr(parser.parse_args([f"--x{i}={text}"]), f"x{i}") == value


@pytest.mark.parametrize(
    "words",
    [
        "separate a b --system x --overlap nan",
        "separate a b --system x --window inf",
        "score --estimates a --references b --penalty_fn nan",
        "score --estimates a --references b --level nan",
        "score --estimates a --references b --seed -1",
        "compare a b --seed -1",
        "find_outliers --min_duration nan",
        "find_outliers --threshold nan",
        "find_outliers --most 0",
        "check_submission a.zip --duration nan",
        "check_submission a.zip --sampling_rate 0",
        "download --timeout nan",
    ],
)
def test_no_command_takes_a_number_that_is_none(words, capsys):
    name, *argv = words.split()
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(f"s5.bin.{name}").main(argv)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1
    assert f": found {argv[-1]}, expected" in said


def test_defaults_of_several_values_are_shown_as_they_are_typed(parser):
    parser.add_argument("--parts", nargs="+", default=("vote", "50 %"), help="which")
    parser.add_argument("--files", nargs="*", default=[], help="none")
    text = parser.format_help()
    assert "which (default: vote 50 %)" in text and "[]" not in text


def test_help_shows_the_defaults_that_there_are(parser):
    text = parser.format_help()
    assert "(default: 2)" in text and "None" not in text


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("a.wav", "2 channels", "4"), "error: a.wav: found 2 channels, expected 4"),
        (OSError(28, "No space left on device", "exp/x"), "error: exp/x: No space left on device"),
    ],
)
def test_bad_input_and_a_full_disk_end_in_one_line(error, line):
    def main(argv):
        raise error

    with pytest.raises(SystemExit) as stop:
        run(main)
    assert stop.value.code == line


def test_a_command_that_lost_a_process_ends_whatever_it_waits_for():
    """A lock that the killed process held, say."""
    code = """
import errno, threading
from s5.bin import command
command.ENDING = 1
threading.Thread(target=threading.Event().wait).start()  # the end of Python waits for it
def main(argv):
    raise ChildProcessError(errno.ECHILD, "a process was killed")
command.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode and done.stderr == "error: a process was killed\n"


def test_importing_s5_imports_neither_torch_nor_espnet():
    code = "import s5, sys; print(sorted({'torch', 'espnet2', 'scipy', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "name",
    [
        "simulate",
        "train",
        "models",
        "tag",
        "vote",
        "separate",
        "fuse",
        "score",
        "compare",
        "figures",
        "report",
        "tune",
    ],
)
def test_every_entry_point_explains_itself_at_80_columns(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = subprocess.run(
        [sys.executable, "-m", f"s5.bin.{name}", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "usage" in text and max(map(len, text.splitlines())) <= 80


def test_a_package_that_only_an_extra_brings_is_missed_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)

    def main(argv):
        importlib.import_module("jinja2")

    with pytest.raises(SystemExit, match=r"^error: jinja2: found no such package, expected it of pip install .*report"):
        run(main)


def test_a_module_of_ours_that_is_missing_keeps_its_traceback():
    with pytest.raises(ModuleNotFoundError):
        run(lambda argv: importlib.import_module("s5.nowhere"))
