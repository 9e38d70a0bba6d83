"""What is run of the commands that the pages show, and how: commands.yaml applied to the pages."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pages import ROOT, Block, blocks_of, name_of, pages

TABLE = Path(__file__).with_name("commands.yaml")
COMMANDS = sorted(path.stem for path in (ROOT / "s5/bin").glob("*.py") if path.stem not in ("__init__", "command"))


@dataclass
class Rule:
    """What is different about a command; the head of commands.yaml explains the keys."""

    page: str
    command: str
    not_run: str = ""
    run_by: str = ""
    needs: str = ""
    text: dict[str, str] = field(default_factory=dict)
    more: str = ""
    fresh: list[str] = field(default_factory=list)
    first: str = ""
    leaves: list[str] = field(default_factory=list)
    prints: str = ""

    def fits(self, page: str, command: str) -> bool:
        """Whether it is about this command."""
        pattern = ".*".join(map(re.escape, self.command.split("...")))
        return self.page in (page, "*") and re.fullmatch(pattern, command, flags=re.S) is not None

    def reason(self) -> str:
        """Why the command is not run; empty if it is."""
        if self.needs and importlib.util.find_spec(self.needs) is None:
            return f"needs {self.needs}"
        return self.not_run or (f"run by {self.run_by}" if self.run_by else "")


@dataclass
class Page:
    """Where a page's commands run, and what its code in Python needs."""

    page: str
    folder: str = "."
    before: str = ""
    python: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)

    def blocks(self) -> list[Block]:
        """Its blocks of code."""
        return blocks_of((ROOT / self.page).read_text())

    def code(self, language: str = "python") -> list[str]:
        """Its blocks in a language, Python as it is run."""
        blocks = "\0".join(block.text for block in self.blocks() if block.language == language)
        return _with(blocks, self.text if language == "python" else {}).split("\0")


@dataclass
class Table:
    """commands.yaml."""

    tracks: dict[str, list[Page]]
    exceptions: list[Rule]
    texts: list[str]
    small: list[dict[str, str]]

    @classmethod
    def load(cls) -> Table:
        """Reads it. Raises TypeError for an unknown key."""
        data = yaml.safe_load(TABLE.read_text())
        tracks = {name: [Page(**page) for page in track] for name, track in data.pop("tracks").items()}
        return cls(tracks, [Rule(**entry) for entry in data.pop("exceptions")], **data)


@dataclass
class Step:
    """Some commands for one shell: those of a block, or one of a text."""

    page: str
    line: int
    folder: str
    commands: list[str]
    """As the page shows them."""
    scripts: list[str] = field(default_factory=list)
    """As they are run; empty for one that is not."""
    leaves: list[list[str]] = field(default_factory=list)
    prints: list[str] = field(default_factory=list)

    @classmethod
    def plain(cls, page: Page, line: int, command: str, script: str) -> Step:
        """One command without rules."""
        return cls(page.page, line, page.folder, [command], [script], [[]], [""])


class Plan:
    """What is run, and what is not.

    Attributes: ``not_run``, the commands that are not, each with page and reason; ``used``, how often each rule was.
    """

    def __init__(self, table: Table, names: Mapping[str, str]) -> None:
        self.table, self.names = table, names
        self.used: Counter[int] = Counter()
        self.not_run: list[tuple[str, str, str]] = []

    def steps(self, page: Page) -> Iterator[Step]:
        """The steps of a page, in its order."""
        if page.before:
            yield Step.plain(page, 0, page.before, self._named(page.before))
        python = page.python
        for block in page.blocks():
            if block.is_commands():
                yield self._step(page, block)
            elif python is not None and block.language == "python":
                code, python = "\n".join([python, *page.code()]), None
                yield Step.plain(page, block.line, "its code in Python", f"python -c {quoted(self._named(code))}")

    def files(self, page: Page) -> dict[str, str]:
        """What a page takes for granted: texts by path."""
        own = {f"{name.upper()}{i}": code for name in ("python", "yaml") for i, code in enumerate(page.code(name))}
        return {path: self._named(text, own) for path, text in page.files.items()}

    def _step(self, page: Page, block: Block) -> Step:
        """A block's commands, with what the table says about them."""
        step = Step(page.page, block.line, page.folder, block.commands())
        for command in step.commands:
            rules = [rule for rule in self.table.exceptions if rule.fits(page.page, command)]
            self.used.update(map(id, rules))
            reasons = [reason for rule in rules if (reason := rule.reason())]
            script = "" if reasons else self._script(command, rules)
            if reasons:
                self.not_run.append((page.page, command, reasons[0]))
            leaves = [*re.findall(r" --out ([^\s;]+)", script), *(path for rule in rules for path in rule.leaves)]
            step.scripts.append(script)
            step.leaves.append([self._named(path) for path in leaves])
            step.prints.append("|".join(rule.prints for rule in rules if rule.prints))
        return step

    def _script(self, command: str, rules: list[Rule]) -> str:
        """A command as it is run."""
        before = [f"rm -rf {path}" for rule in rules for path in rule.fresh]
        before += [rule.first for rule in rules if rule.first]
        for rule in rules:
            command = f"{_with(command, rule.text)} {rule.more}".strip()
        each = COMMANDS if "@COMMAND@" in command else [""]
        return "\n".join(self._named(line, {"COMMAND": name}) for name in each for line in (*before, command))

    def _named(self, text: str, more: Mapping[str, str] | None = None) -> str:
        """With what is known only now in the place of names in capitals between @."""
        names = more or {}
        return re.sub(
            r"@([A-Z]+\d*)@", lambda match: names[match[1]] if match[1] in names else self.names[match[1]], text
        )


def _with(text: str, other: Mapping[str, str]) -> str:
    """With other words in the place of some. Raises ValueError for one that is not there."""
    for found, by in other.items():
        if found not in text:
            raise ValueError(f"{TABLE.name}: no {found} in: {text}")
        text = text.replace(found, by)
    return text


def quoted(text: str) -> str:
    """For a shell."""
    return "'" + text.replace("'", "'\\''") + "'"


class _Any(dict):
    """Whatever is asked for."""

    def __missing__(self, key: str) -> str:
        return key


def complaints() -> list[str]:
    """What does not fit together: the pages and commands.yaml."""
    table = Table.load()
    known = {page.page: page for track in table.tracks.values() for page in track}
    found = [f"{page}: no such page" for page in known if not (ROOT / page).is_file()]
    plan, texts = Plan(table, _Any()), set()
    for path in pages():
        name = name_of(path)
        if name not in known:
            found.append(f"{name}: in no track")
            continue
        plan.files(known[name])
        list(plan.steps(known[name]))
        for block in known[name].blocks():
            if block.language == "" and not block.inline and not block.is_commands():
                first = block.text.strip()
                text = next((text for text in table.texts if first.startswith(text)), None)
                texts.add(text)
                if text is None:
                    found.append(f"{name}:{block.line}: neither commands nor one of texts: {first.splitlines()[0]}")
    found += [f"texts: no block begins with {text}" for text in table.texts if text not in texts]
    for rule in table.exceptions:
        if not plan.used[id(rule)]:
            found.append(f"exceptions: {rule.page}: there is no command {rule.command}")
        if rule.run_by and not (ROOT / rule.run_by).is_file():
            found.append(f"exceptions: there is no {rule.run_by}")
        elif rule.run_by in known:
            there = [block.commands() for block in known[rule.run_by].blocks() if block.is_commands()]
            if not any(rule.command in commands for commands in there):
                found.append(f"exceptions: {rule.run_by} has no command {rule.command}")
    return [f"{TABLE.name}: {each}" for each in found]


if __name__ == "__main__":
    plan = Plan(Table.load(), _Any())
    for track in plan.table.tracks.values():
        for page in track:
            list(plan.steps(page))
    for page_name, command, why in plan.not_run:
        print(f"| {page_name} | `{command}` | {why} |")
