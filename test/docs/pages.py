"""What README.md, docs/ and the recipes' README.md show: blocks of code, and the commands in them and in the text."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = re.compile(
    r"(?:\w+=\S* )*(?:python|hf|sbatch|tensorboard|wandb|cd|cp|rm|for|git|pip|\.|(?:[\w.<>-]+/)*[\w-]+\.sh"
    r"|utils/run_slurm\.py)(?=\s|;|$)"
)
"""What a command begins with."""


class Block(NamedTuple):
    """A fenced or indented block of code, or what stands between backticks in a line of text."""

    line: int
    language: str
    """As the fence says it; empty without one."""
    text: str
    inline: bool = False

    def is_commands(self) -> bool:
        """Whether it is for a shell. In a text, the name of a program, or of its option, is no command."""
        if self.inline:
            alone = re.fullmatch(r"\S+( --(?!help)\w+)?|python -m \S+", self.text)
            return not alone and PROGRAM.match(self.text) is not None
        return self.language == "sh" or (self.language == "" and PROGRAM.match(self.text.strip()) is not None)

    def commands(self) -> list[str]:
        """Its commands, one a line each, without comments; a loop is one of several lines."""
        lines = re.sub(r"\\\n", " ", self.text).splitlines()
        found: list[str] = []
        for line in lines:
            line = " ".join(re.sub(r"(^|\s)#.*", "", line).split())
            if found and found[-1].startswith("for ") and not found[-1].endswith("done"):
                found[-1] += f"\n{line}"
            elif line:
                found.append(line)
        return found


def pages() -> list[Path]:
    """All written pages, README.md first; docs/api.md is generated, and its examples are doctests."""
    written = sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "api.md")
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *written, *sorted((ROOT / "egs").glob("*/README.md"))]


def name_of(page: Path) -> str:
    """Its path in the repository."""
    return str(page.relative_to(ROOT))


def blocks_of(text: str) -> list[Block]:
    """The blocks of code of a page, and the code in its text, in the order of the page."""
    found: list[Block] = []

    def take(pattern: str, text: str, *, inline: bool = False) -> str:
        """Notes what matches (groups: language, code), and leaves empty lines in its place."""

        def note(match: re.Match) -> str:
            line = text.count("\n", 0, match.start()) + 1
            code = " ".join(match[2].split()) if inline else match[2]
            found.append(Block(line, match[1], code, inline))
            return re.sub(r"[^\n]+", "", match[0])

        return re.sub(pattern, note, text, flags=re.M)

    text = take(r"^ *```(\w*)\n((?:.*\n)*?) *```$", text)
    text = take(r"^()((?: {4,}\S.*\n)+)", text)
    take(r"()`([^`]+)`", text, inline=True)
    return sorted(found, key=lambda block: block.line)
