"""README.md and docs/: links lead somewhere, commands have the options they are shown with, code runs.

The commands themselves are run by test/docs/run_commands.py, the last part of test/run.sh.
"""

import importlib
import re
import shlex
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import soundfile

from s5.bin.command import Parser

sys.path.insert(0, str(Path(__file__).parent / "docs"))
from pages import pages as written_pages
from plan import complaints

ROOT = Path(__file__).resolve().parents[1]
PAGES = written_pages()
COMMANDS = sorted(path.stem for path in (ROOT / "s5/bin").glob("*.py") if path.stem not in ("__init__", "command"))
RECIPES = sorted(path.parent.name for path in (ROOT / "egs").glob("*/run.sh"))

pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
commands = pytest.mark.parametrize("name", COMMANDS)


class Block(NamedTuple):
    """A fenced or indented block of code."""

    language: str
    text: str


# --- what pages hold ----------------------------------------------------------------------------------------------


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def blocks(text: str) -> list[Block]:
    fenced = [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.M | re.S)]
    indented = [Block("", found) for found in re.findall(r"(?:^ {4,}\S.*\n)+", prose(text), flags=re.M)]
    return fenced + indented


def command_lines(text: str) -> list[str]:
    """Lines of code blocks, continued ones joined, and what stands between backticks in the text."""
    code = "\n".join(block.text for block in blocks(text) if block.language in ("", "sh"))
    lines = re.sub(r"\\\n", " ", code).splitlines()
    running = re.sub(r"^ {4,}\S.*$", "", prose(text), flags=re.M)
    return [line.strip() for line in lines] + [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", running)]


def words_of(line: str) -> list[str]:
    """The words of a command line, without a comment; its first command alone where several are joined."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # an apostrophe in running text
        return line.split()
    ends = [i for i, word in enumerate(words) if word in (";", "|", "&&", "--") or word.endswith(";")]
    return words[: ends[0]] if ends else words


def calls(text: str, program: str) -> list[list[str]]:
    """The arguments of every call of a program, a regular expression; what its group matches comes first."""
    found = []
    for line in command_lines(text):
        for match in re.finditer(program, line):
            found.append([*match.groups(), *words_of(line[match.end() :])])
    return found


def options_in(words: list[str]) -> list[str]:
    """The options among the words of a command line; a quoted value of several words is none."""
    words = [word.lstrip("[(") for word in words if " " not in word]
    return [word.split("=")[0].rstrip(",.:;)]") for word in words if word.startswith("--")]


def value_of(option: str, words: list[str]) -> list[str]:
    """Words of the value of an option, none without it."""
    return words[words.index(option) + 1].split() if option in words[:-1] else []


# --- what programs take -------------------------------------------------------------------------------------------


class _Caught(Exception):
    pass


@cache
def parser_of(name: str) -> Parser:
    """The parser of ``python -m s5.bin.NAME``, taken when the command is about to use it."""

    def catch(self, args=None, namespace=None):
        raise _Caught(self)

    original, Parser.parse_args = Parser.parse_args, catch  # type: ignore[method-assign]
    try:
        importlib.import_module(f"s5.bin.{name}").main([])
    except _Caught as caught:
        return caught.args[0]
    finally:
        Parser.parse_args = original  # type: ignore[method-assign]
    raise AssertionError(f"s5.bin.{name} parses no options")


@cache
def shell_options(script: str) -> set[str]:
    """The options of a script that uses utils/parse_options.sh."""
    text = (ROOT / script).read_text()
    table = re.search(r"^options=\((.*?)^\)", text, flags=re.M | re.S)
    if table is None:
        table = re.search(r"^options=\((.*)\)", text, flags=re.M)
    assert table, script
    return {f"--{name}" for name in re.findall(r'"(\w+)\|', table[1])} | {"--help"}


def data_options(recipe: str) -> set[str]:
    script = f"egs/{recipe}/local/data.sh"
    if "exec" in (text := (ROOT / script).read_text()):
        return data_options(re.findall(r"(\w+)/local/data.sh", text)[-1])
    return shell_options(script)


# --- tests --------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The names by which a page's headings can be linked."""
    heads = re.findall(r"^#+ (.*)$", prose(page.read_text()), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "docs/api.md", ROOT / "CHANGELOG.md"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text()))
    for link in links:
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert target.is_relative_to(ROOT), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@pages
def test_commands_have_the_options_that_they_are_shown_with(page):
    for name, *words in calls(page.read_text(), r"python -m s5\.bin\.(\w+)"):
        assert name in COMMANDS, f"{page.name}: s5.bin.{name}"
        for option in options_in(words):
            assert option in parser_of(name)._option_string_actions, f"{page.name}: s5.bin.{name} {option}"


@pages
def test_commands_that_are_shown_whole_can_be_called_like_that(page, capsys):
    for block in blocks(page.read_text()):
        for name, *words in calls(f"```sh\n{block.text}```\n", r"^python -m s5\.bin\.(\w+)"):
            if block.language not in ("", "sh") or "..." in words or words == ["--help"]:
                continue
            words = ["1" if re.fullmatch("[A-Z]", word) else word for word in words]
            try:
                parser_of(name).parse_args(words)
            except SystemExit:
                pytest.fail(f"{page.name}: {name} {' '.join(words)}: {capsys.readouterr().err}")


@pages
def test_run_sh_has_the_options_that_it_is_shown_with(page):
    for recipe, *words in calls(page.read_text(), r"(?<![\w/])(?:\./run|egs/(\w+)/run|run)\.sh"):
        if recipe == "my_data":
            recipe = "TEMPLATE"
        assert recipe is None or recipe in (*RECIPES, "NAME"), f"{page.name}: egs/{recipe}"
        for option in options_in(words):
            assert option in shell_options("run.sh"), f"{page.name}: run.sh {option}"
        for option in options_in(value_of("--scene_args", words)):
            assert option in parser_of("simulate")._option_string_actions, f"{page.name}: --scene_args {option}"
        if recipe in RECIPES:
            for option in options_in(value_of("--data_args", words)):
                assert option in data_options(recipe), f"{page.name}: --data_args {option}"


@pages
def test_other_scripts_are_there_with_their_options(page):
    text = page.read_text()
    for words in calls(text, r"utils/new_recipe\.sh"):
        assert set(options_in(words)) <= shell_options("utils/new_recipe.sh"), page.name
    for script, *words in calls(text, r"python ((?:\.\./)*test/[\w/]+\.py)"):
        path = ROOT / script.removeprefix("../../")
        assert path.is_file(), f"{page.name}: {script}"
        for option in options_in(words):
            if option != "--help":
                assert f'"{option}"' in path.read_text(), f"{page.name}: {script} {option}"


@pages
def test_files_that_are_named_exist(page):
    text = page.read_text()
    # Files that the page itself, or utils/new_recipe.sh, makes.
    made = set(re.findall(r"^(?: {4}|```yaml\n)# (\S+\.yaml)$", text, flags=re.M))
    made |= {f"conf/{name}" for name in ("systems/base.yaml", "tuning/tagger.yaml", "tuning/separator.yaml")}
    named = re.findall(r"(?<![\w<>/*{}-])((?:egs|conf|s5|test|utils|tools)/[\w./-]+\.(?:yaml|py|sh|conf|txt))\b", text)
    for name in set(named) - made:
        if re.search(r"\b(X|NAME|my_data)\b", name):
            continue
        places = [ROOT, *(ROOT / "egs" / recipe for recipe in RECIPES)]
        if name.startswith("conf/curation/"):  # drawn up by the user, but for the one that is there
            places.append(ROOT / "egs/dcase2026_task4")
            if name in re.findall(r"[:,\[] ?(conf/curation/\S+?)[\],}]", text):
                continue
        assert any((place / name).exists() for place in places), f"{page.name}: {name}"


def test_every_command_and_every_page_is_found_from_the_documentation():
    text = "".join(page.read_text() for page in PAGES)
    for name in COMMANDS:
        assert re.search(rf"s5\.bin\.{name}\b|`{name}`", text), name
    index = (ROOT / "docs/README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


def test_every_command_is_run_or_named_with_the_reason_why_not():
    assert complaints() == []


def test_stages_are_those_of_run_sh():
    stages = re.findall(r"^ +(\d+) ([a-z-]+) {2,}", (ROOT / "run.sh").read_text(), flags=re.M)
    assert len(stages) == 13
    page = (ROOT / "docs/stages.md").read_text()
    for number, name in stages:
        assert f"\n| {number} {name} |" in page
        assert re.search(rf"^## .*\b{number} {name}(,|$)", page, flags=re.M), name


@commands
def test_help_fits_80_columns_and_shows_defaults_as_they_are_typed(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = parser_of(name).format_help()
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r"default: *(\)|\[|\(|None|False)", " ".join(text.split()))


@commands
def test_an_option_with_a_slip_is_named_with_the_right_one(name, capsys):
    parser = parser_of(name)
    for option in parser._option_string_actions:
        if option.startswith("--"):
            slip = option + option[-1]
            with pytest.raises(SystemExit) as stop:
                parser.parse_args([slip, "x"])
            assert stop.value.code == 2
            said = capsys.readouterr().err
            assert f"unknown option {slip} (did you mean {option}?)" in said and said.count("\n") == 1


@pages
def test_python_in_pages_is_python(page):
    for block in blocks(page.read_text()):
        if block.language == "python":
            compile(block.text, str(page), "exec")


def python_of(name: str) -> list[str]:
    return [block.text for block in blocks((ROOT / "docs" / name).read_text()) if block.language == "python"]


def test_the_tutorial_runs(trained, recipe_folder, tmp_path, monkeypatch, capsys):
    """All of its code, with a small system in the place of the mini recipe's."""
    mixture = next((recipe_folder / "data/valid/wav").glob("*.wav"))
    wav = tmp_path / "egs/mini_s5/data/test/wav"
    wav.mkdir(parents=True)
    (tmp_path / "egs/mini_s5/exp").symlink_to(trained)
    (tmp_path / "conf/systems").mkdir(parents=True)
    (tmp_path / "conf/systems/mini.yaml").write_text((recipe_folder / "system.yaml").read_text())
    code = "\n".join(python_of("tutorial.md"))
    assert len(first := [line for line in python_of("tutorial.md")[0].splitlines() if line]) <= 10, first
    (recording,) = re.findall(r"egs/mini_s5/data/test/wav/(\w+\.wav)", code)
    (wav / recording).symlink_to(mixture)
    monkeypatch.chdir(tmp_path)
    state: dict = {}
    exec(compile(code, "docs/tutorial.md", "exec"), state)
    heard = [source.label for source in state["system"](state["recording"].T, state["rate"])]
    said = capsys.readouterr().out
    assert said.count(" sure, ") == len(heard) == len(list(tmp_path.glob("*.wav")))
    for file in tmp_path.glob("*.wav"):
        assert soundfile.info(file).frames == soundfile.info(mixture).frames
    assert len(re.findall(r"^Speech \d", said, flags=re.M)) == 2
    assert "found label Speach, expected Speech" in said


def test_scores_in_the_results_page(capsys):
    (code,) = python_of("results.md")
    exec(compile(code, "docs/results.md", "exec"), {})
    assert capsys.readouterr().out == "50.0\n"


def test_the_configurations_of_the_extending_page_load(tmp_path):
    import torch

    from s5.separation import SEPARATORS
    from s5.system.config import SystemConfig
    from s5.utils.config import check_arguments, load_inherited

    for folder in ("systems", "tuning"):
        (tmp_path / "conf" / folder).mkdir(parents=True)
        for file in (ROOT / "conf" / folder).glob("*.yaml"):
            (tmp_path / "conf" / folder / file.name).symlink_to(file)
    written = [block.text for block in blocks((ROOT / "docs/extending.md").read_text()) if block.language == "yaml"]
    training, system = (tmp_path / text.splitlines()[0].removeprefix("# ") for text in written)
    for path, text in zip((training, system), written, strict=True):
        path.write_text(text)
    config = SystemConfig.load(system)
    assert tmp_path / config.separators[0].train == training
    assert [model.name for model in config.taggers] == ["yamnet_tiny"]
    values = load_inherited(training)
    network = SEPARATORS[values["network"]]
    check_arguments(network, values["network_conf"], "network_conf", given=("n_labels",))
    with torch.device("meta"):
        assert network(n_labels=8, **values["network_conf"]).n_slots == 3


def test_the_parts_of_the_extending_page_are_taken_by_the_tables():
    import torch

    from s5.separation import SEPARATORS
    from s5.tagging.heads import HEADS
    from s5.utils.config import check_arguments

    known = {id(table): set(table) for table in (HEADS, SEPARATORS)}
    try:
        for code in python_of("extending.md"):
            exec(compile(code, "docs/extending.md", "exec"), {"__name__": "docs"})
        given = ("feature_dim", "n_slots", "n_classes", "auxiliary_dim")
        check_arguments(HEADS["peak"], {}, "head", given=given)
        head = HEADS["peak"](feature_dim=5, n_slots=3, n_classes=4, auxiliary_dim=0)
        assert head(torch.randn(2, 7, 5)).shape == (2, 3, 4)
        check_arguments(SEPARATORS["gain"], {"n_slots": 2, "start": 0.5}, "network_conf", given=("n_labels",))
        network = SEPARATORS["gain"](n_labels=3, n_slots=2, start=0.5)
        query = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
        sources = network(torch.ones(1, 4, 9), query)
        assert sources[0, 0].tolist() == [0.5] * 9 and not sources[0, 1].any()
    finally:
        for table in (HEADS, SEPARATORS):
            for name in set(table) - known[id(table)]:
                del table[name]
