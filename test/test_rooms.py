"""The rooms of the package: what may import what (docs/pipeline.md shows them)."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

LEVELS = (
    ("utils", "labels"),
    ("checkpoints", "data", "fusion", "metrics", "scene", "separation", "tagging"),
    ("inference", "system"),
    ("challenge", "report", "tasks", "tuning"),
    ("bin",),
)
"""Rooms of ``s5/`` from the ground up. A room may import from its own level and from those below."""

LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


def modules():
    """Path of each module of the package by its dotted name."""
    found = {}
    for path in (ROOT / "s5").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports():
    """Module -> modules of the package that it imports anywhere: at the top, in functions, for type checkers."""
    known, found = modules(), defaultdict(set)
    for module, path in known.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}: a relative import"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                while name and name not in known:
                    name = name.rpartition(".")[0]
                if name and name != module:
                    found[module].add(name)
    return found


def room(module):
    return module.split(".")[1] if "." in module else None


def circles(arrows):
    """Groups of nodes that reach each other."""

    def reached(start):
        seen, waiting = set(), [start]
        while waiting:
            for node in arrows.get(waiting.pop(), ()):
                if node not in seen:
                    seen.add(node)
                    waiting.append(node)
        return seen

    reach = {node: reached(node) for node in arrows}
    return {frozenset(b for b in reach[a] if a in reach.get(b, ())) for a in arrows if a in reach[a]}


def test_every_part_of_the_package_has_a_level():
    assert {room(module) for module in modules()} - {None} == set(LEVEL)


def test_no_import_points_up():
    up = [
        f"{module} -> {target}"
        for module, targets in imports().items()
        for target in targets
        if room(module) and room(target) and LEVEL[room(target)] > LEVEL[room(module)]
    ]
    assert not up


def test_modules_import_each_other_in_no_circle():
    # A package's __init__ imports its own modules, and they may import other names of the package.
    inside = {m: {t for t in targets if not m.startswith(f"{t}.")} for m, targets in imports().items()}
    assert not circles(inside)


def test_rooms_import_each_other_in_no_circle():
    arrows = defaultdict(set)
    for module, targets in imports().items():
        arrows[room(module)] |= {room(t) for t in targets} - {room(module), None}
    arrows.pop(None, None)
    assert not circles(arrows)


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == {frozenset("abc")}
    assert circles({"a": {"b"}, "b": {"c"}}) == set()
