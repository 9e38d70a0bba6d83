"""Shared parts of all entry points: options and their types, errors of one line, exit status, log format."""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from s5.system.sizes import FULL, with_size
from s5.utils.errors import InputError

if TYPE_CHECKING:
    from s5.system.decode import DecodeConfig

EXTRAS = "pip install '.[train,report,hub]' in the repository, or of its tools/setup.sh"
"""Installation of the packages that only some commands need, for errors."""

T = TypeVar("T", int, float)

DECODE = "conf/decode.yaml"
ENDING = 20
"""Seconds that a command has to end after one of its processes was killed."""


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults if there are any, several values as they are typed."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default in ("", [], ()):
            return action.help
        if isinstance(action.default, list | tuple):
            values = " ".join(map(str, action.default)).replace("%", "%%")
            return f"{action.help} (default: {values})"
        return super()._get_help_string(action)

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        if action.type in (float, number, positive, at_least_zero):
            return "X"
        if action.type in (int, count, count_or_zero):
            return "N"
        return super()._get_default_metavar_for_optional(action)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser with errors of one line, which suggest the nearest option for an unknown one."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, formatter_class=_Formatter, allow_abbrev=False)

    def parse_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Parses the words. Unknown options come first, so that a misspelt required option is not called missing."""
        words = list(sys.argv[1:] if args is None else args)
        for word in words[: words.index("--")] if "--" in words else words:
            if word.startswith("--") and " " not in word:
                self._check_option(word.split("=")[0])
        parsed, unknown = self.parse_known_args(words, namespace)
        if unknown:
            self._check_option(unknown[0])
        if "--size" in self._option_string_actions:
            parsed.system = with_size(parsed.system, parsed.size)
        return parsed

    def _check_option(self, name: str) -> None:
        """Refuses an unknown option or a word too many."""
        if name in self._option_string_actions:
            return
        if not name.startswith("-"):
            self.error(f"found '{name}', expected no further word")
        import difflib

        options = [option for option in self._option_string_actions if option.startswith("--")]
        near = difflib.get_close_matches(name.replace("-", "_").replace("__", "--", 1), options, n=1)
        self.error(f"unknown option {name}" + (f" (did you mean {near[0]}?)" if near else ""))

    def error(self, message: str):  # type: ignore[no-untyped-def]
        """Prints one line on stderr and exits with status 2."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def add_system(parser: argparse.ArgumentParser, text: str = "system YAML") -> None:
    """Adds --system and --size, which :class:`Parser` joins to one name (:mod:`s5.system.sizes`)."""
    parser.add_argument("--system", required=True, metavar="SYSTEM", help=text)
    parser.add_argument("--size", default=FULL, help="size of the models: full, or the name of a file in conf/sizes")


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """Adds the options of commands that run networks: --nj, and options that override conf/decode.yaml."""
    parser.add_argument("--nj", type=count, default=1, help="processes; the results do not depend on it")
    group = parser.add_argument_group("options of the networks; they override the YAML")
    group.add_argument(
        "--decode", default=DECODE, metavar="YAML", help="YAML of batch size, windows, precision and device"
    )
    group.add_argument("--device", help="torch device, e.g. cpu or cuda:1")
    group.add_argument("--precision", choices=("fp32", "bf16"), help="precision of the networks")
    group.add_argument("--batch_size", type=count, help="mixtures or windows in a batch")


def decode_config(args: argparse.Namespace) -> DecodeConfig:
    """Settings of the networks from the options of :func:`add_decoding`."""
    from s5.system.decode import DecodeConfig
    from s5.utils.config import resolve

    names = ("device", "precision", "batch_size", "window", "overlap")
    options = {name: getattr(args, name, None) for name in names}
    if args.decode == DECODE and not resolve(DECODE).exists():  # the package alone, without the repository
        return DecodeConfig(**{name: value for name, value in options.items() if value is not None})
    return DecodeConfig.load(args.decode, **options)


def add_shards(parser: argparse.ArgumentParser) -> None:
    """Adds the options of stages that run in several jobs: --shard, --join, --parts (:mod:`s5.utils.shards`)."""
    group = parser.add_argument_group("several jobs with a part of the items each, and one that joins the parts")
    group.add_argument("--shard", metavar="I/N", help="work on part I of N, from 1")
    group.add_argument("--join", type=count, help="join N parts")
    group.add_argument("--parts", metavar="DIR", help="folder of the parts")


def _number(kind: Callable[[str], T], fits: Callable[[T], bool], expected: str) -> Callable[[str], T]:
    """Makes the type of an option: a finite number that fits."""

    def read(text: str) -> T:
        with contextlib.suppress(ValueError, OverflowError):
            value = kind(text)
            if math.isfinite(value) and fits(value):
                return value
        raise argparse.ArgumentTypeError(f"found {text}, expected {expected}")

    return read


count = _number(int, lambda value: value >= 1, "a whole number of at least 1")
count_or_zero = _number(int, lambda value: value >= 0, "a whole number, 0 or more")
number = _number(float, lambda value: True, "a number")
positive = _number(float, lambda value: value > 0, "a number above 0")
at_least_zero = _number(float, lambda value: value >= 0, "a number, 0 or more")
percentage = _number(float, lambda value: 0 < value < 100, "a percentage between 0 and 100")


def run(main: Callable[[list[str] | None], None], argv: list[str] | None = None) -> None:
    """Calls an entry point. Wrong input or an OSError ends in one line on stderr and exit status 1.

    Any other error is a bug and keeps its traceback.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s", stream=sys.stderr
    )
    # The signal of a lost worker may interrupt a log line. The next step reports the worker.
    logging.raiseExceptions = False
    try:
        main(argv)
    except InputError as e:
        sys.exit(f"error: {e}")
    except ModuleNotFoundError as e:
        if (e.name or "s5").split(".")[0] == "s5":
            raise
        sys.exit(f"error: {e.name}: found no such package, expected it of {EXTRAS}")
    except ChildProcessError as e:
        # The end of Python may wait forever for a lock of the killed process. An alarm ends it.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(ENDING)
        print(f"error: {e.strerror or e}", file=sys.stderr, flush=True)
        sys.exit(1)
    except OSError as e:
        name = f"{e.filename}: " if e.filename else ""
        sys.exit(f"error: {name}{e.strerror or e}")
    except KeyboardInterrupt:
        sys.exit(130)
