"""Writes docs/api.md, the API reference, from the docstrings of the public modules. It imports none of them.

python tools/api_reference.py            # write docs/api.md
python tools/api_reference.py --check    # exit with status 1 if docs/api.md is out of date
"""

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/api.md"
MODULES = (
    "s5.system.system",
    "s5.system.decode",
    "s5.metrics",
    "s5.separation",
    "s5.separation.losses",
    "s5.separation.locoformer.base",
    "s5.separation.uss",
    "s5.separation.tse",
    "s5.separation.sharpen",
    "s5.tagging.tagger",
    "s5.tagging.losses",
    "s5.fusion",
    "s5.scene",
    "s5.data",
    "s5.inference.results",
    "s5.labels",
    "s5.checkpoints",
    "s5.utils.errors",
)
HEAD = """# API reference

For everyone who uses the package in Python. It is written from the docstrings by

    python tools/api_reference.py

and a test checks that it is up to date; every example runs as a test. The [tutorial](tutorial.md) shows how the parts
work together.

"""
DEFINITIONS = (ast.ClassDef, ast.FunctionDef)


def parse(module: str) -> ast.Module:
    """The syntax tree of a module or a package."""
    path = ROOT / module.replace(".", "/")
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())


def public(module: str) -> dict[str, ast.ClassDef | ast.FunctionDef]:
    """The public classes and functions of a module by name, and those that a package takes from its own modules."""
    found: dict[str, ast.ClassDef | ast.FunctionDef] = {}
    for node in parse(module).body:
        if isinstance(node, DEFINITIONS) and not node.name.startswith("_"):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{module}."):
            there = public(node.module or "")
            found |= {alias.name: there[alias.name] for alias in node.names if alias.name in there}
    return found


def fenced(text: str) -> str:
    """A block of code."""
    return f"```{'pycon' if '>>>' in text else 'text'}\n{textwrap.dedent(text).strip()}\n```"


def prose(text: str) -> str:
    """A docstring as Markdown: sections in bold, their items as lists, what is indented in blocks."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    opening, *sections = re.split(r"^(Args|Returns|Raises|Yields|Attributes|Examples?|Formula):[ \n]", text, flags=re.M)
    blocks = [fenced(part) if part.startswith("    ") else part for part in re.split(r"\n\n+", opening.rstrip())]
    for name, body in zip(sections[::2], sections[1::2], strict=True):
        blocks.append(f"**{name}**")
        if name.startswith(("Example", "Formula")):
            blocks.append(fenced(body))
        elif items := re.findall(r"^ {4}(\*{0,2}[\w.]+(?:, [\w.]+)*): (.*(?:\n {5,}.*)*)", body, flags=re.M):
            blocks.append("\n".join(f"* `{item}`: {' '.join(about.split())}" for item, about in items))
        else:
            blocks.append(" ".join(body.split()))
    return "\n\n".join(blocks)


def fields(node: ast.ClassDef) -> Iterator[str]:
    """The public attributes of a class, a line each."""
    for item, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(item, ast.AnnAssign) and not ast.unparse(item.target).startswith("_"):
            text = after.value if isinstance(after, ast.Expr) else None
            about = " ".join(prose(str(text.value)).split()) if isinstance(text, ast.Constant) else ""
            yield f"* `{ast.unparse(item)}`{': ' if about else ''}{about}"


def entry(node: ast.ClassDef | ast.FunctionDef, name: str) -> Iterator[str]:
    """Heading, signature, attributes and text of a class or function, then the methods of a class."""
    yield f"### {name}" if "." not in name else f"#### {name}"
    function = node
    if isinstance(node, ast.ClassDef):
        function = next((f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"), node)
    if isinstance(function, ast.FunctionDef):
        arguments = re.sub(r"^(self|cls)(, )?", "", ast.unparse(function.args))
        returns = f" -> {ast.unparse(function.returns)}" if function.returns and function is node else ""
        value = any("property" in ast.unparse(decorator) for decorator in function.decorator_list)
        yield f"`{name}: {returns[4:]}`" if value else f"`{name}({arguments}){returns}`"
    yield prose(ast.get_docstring(node) or "")
    if isinstance(node, ast.ClassDef):
        yield "\n".join(fields(node))
        for method in node.body:
            called = isinstance(method, ast.FunctionDef) and method.name == "__call__"
            if isinstance(method, ast.FunctionDef) and (called or not method.name.startswith("_")):
                yield from entry(method, f"{name}.{method.name}")


def page() -> str:
    """The whole page."""
    parts = [HEAD.strip(), "\n".join(f"* [{name}](#{name.replace('.', '')})" for name in MODULES)]
    for module in MODULES:
        parts += [f"## {module}", prose(ast.get_docstring(parse(module)) or "")]
        for name, node in sorted(public(module).items()):
            parts += entry(node, name)
    return "\n\n".join(part for part in parts if part) + "\n"


if __name__ == "__main__":
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page())
    elif page() != PAGE.read_text():
        sys.exit(f"{PAGE.relative_to(ROOT)}: found text of other docstrings, expected what this script writes")
