"""YAML configuration, checked at any depth. Every error names the file and the key."""

from __future__ import annotations

import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pydantic
import yaml

from s5.utils.errors import InputError, one_of
from s5.utils.text import read_text

ROOT = Path(__file__).resolve().parents[2]
"""The repository. Its configurations (conf/) are used if the recipe has no file of that name."""

IN_REPOSITORY = (ROOT / "path.sh").is_file()
"""Whether this is the repository, and not an installed package without its other files."""

UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
"""Pydantic's error types of an unknown key."""

_STRICT: Any = {"extra": "forbid", "arbitrary_types_allowed": True, "allow_inf_nan": False}
"""Pydantic's settings: refuse unknown keys at any depth and numbers that are not finite."""

T = TypeVar("T")

MOST_VALUES = 1_000_000
"""Largest number of values of a YAML file. Values behind an alias count each time: a few lines could fill memory."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number (YAML 1.2). It refuses a repeated key, a key that is not a plain value, an
    alias of a value that contains it, and control characters."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            self._count(node, {})
        return node

    def _count(self, node: yaml.Node, known: dict[int, int]) -> int:
        """Number of values of a node with those below it."""
        if known.get(id(node)) == 0:
            _refuse_node("an alias of a value that contains it", node)
        if id(node) in known:
            return known[id(node)]
        known[id(node)] = 0
        if isinstance(node, yaml.ScalarNode):
            if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in node.value):
                _refuse_node(f"the text {ascii(node.value)[:40]}", node)
            known[id(node)] = 1
            return 1
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        known[id(node)] = total = 1 + sum(self._count(part, known) for part in parts)
        if total > MOST_VALUES:
            _refuse_node(f"more than {MOST_VALUES} values", node)
        return total

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                _refuse_node(f"a key that is a {key_node.id}", key_node)
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                _refuse_node(f"key {key} twice (line {key_node.start_mark.line + 1})", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _refuse_node(what: str, node: yaml.Node) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|nan)$"),
    list("-+0123456789."),
)


def resolve(path: str | Path) -> Path:
    """The path below the repository if it exists there and not below the working directory; else the path as given."""
    path = Path(path)
    if IN_REPOSITORY and not path.is_absolute() and not path.exists() and (ROOT / path).exists():
        return ROOT / path
    return path


def working_folder() -> Path:
    """The working directory as the shell names it, with symbolic links unresolved."""
    named = os.environ.get("PWD", "")
    if os.path.isabs(named) and os.path.exists(named) and os.path.samefile(named, "."):
        return Path(named)
    return Path.cwd()


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file whose top level is a mapping.

    Raises:
        InputError: the file is missing, not valid YAML, has a key twice, or is not a mapping.
    """
    path = resolve(path)
    return read_yaml(read_text(path, "a YAML file"), path)


def read_yaml(text: str, where: object) -> dict[str, Any]:
    """Reads a YAML text whose top level is a mapping. Raises InputError as :func:`load_yaml`, naming ``where``."""
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark else where
        raise InputError(place, getattr(e, "problem", None) or str(e), "valid YAML") from e
    except RecursionError:
        raise InputError(where, "values nested too deeply", "valid YAML") from None
    except (ValueError, TypeError, AttributeError, LookupError) as e:  # for example, an invalid date or !!float
        raise InputError(where, f"a value that cannot be read ({e})", "valid YAML") from e
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise InputError(where, type(data).__name__, "a mapping of keys")
    return data


def parse_value(text: str) -> Any:
    """Reads a value as in a YAML file; the text itself if it is not valid YAML.

    Example:
        >>> parse_value("1e-3"), parse_value("[a, 2]"), parse_value("a: b: c")
        (0.001, ['a', 2], 'a: b: c')
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError:
        return text


def yaml_chain(path: str | Path) -> list[Path]:
    """A YAML file and the files that it inherits from, nearest first.

    ``inherit: other.yaml`` is a path relative to the file. In a list, ``inherit: [a.yaml, b.yaml]``, the last file is
    the nearest: b overrides a.

    Raises:
        InputError: a file is missing, not valid YAML, or inherits from itself.
    """
    # A file that several files inherit from comes after all of them.
    files = list(_chain(resolve(path), path, ()))
    return list(dict.fromkeys(reversed(files)))[::-1]


def _chain(file: Path, first: str | Path, above: tuple[Path, ...]) -> Iterator[Path]:
    yield file
    parents = load_yaml(file).get("inherit") or []
    for parent in reversed(parents if isinstance(parents, list) else [parents]):
        inherited = Path(os.path.normpath(file.parent / str(parent)))
        if not inherited.exists():
            # In a recipe folder that is a link, ../ is the folder that contains the link.
            linked = Path(os.path.normpath(working_folder() / file.parent / str(parent)))
            inherited = linked if linked.exists() else inherited
        if inherited in (file, *above):
            raise InputError(f"{first}: key inherit", f"{parent}, which inherits from it", "another file")
        yield from _chain(inherited, first, (file, *above))


def load_inherited(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file over the files that it inherits. Mappings are merged at any depth, other values replaced."""
    return _merged(path, lambda keys, file: keys)


def origins(path: str | Path) -> dict[str, Any]:
    """:func:`load_inherited` with, in the place of each value that is no mapping, the file that it comes from."""
    return _merged(path, _named)


def _merged(path: str | Path, read: Callable[[Any, Path], Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for file in reversed(yaml_chain(path)):
        merged = merge(merged, read(load_yaml(file), file))
    merged.pop("inherit", None)
    return merged


def _named(value: Any, file: Path) -> Any:
    return {key: _named(part, file) for key, part in value.items()} if isinstance(value, dict) else file


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Merges ``top`` over ``base``. Mappings are merged at any depth, other values replaced."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def parse(schema: type[T] | Callable[..., Any], data: Mapping[str, Any], where: object) -> T:
    """Builds a dataclass from plain data. Refuses unknown keys and wrong types at any depth.

    Args:
        schema: dataclass with type hints.
        data: mapping, e.g. from :func:`load_yaml`.
        where: file or key that errors name.

    Raises:
        InputError: unknown, missing or wrongly typed key.
    """
    if not isinstance(data, Mapping):
        raise InputError(where, ascii(data)[:80], "a mapping of keys")
    adapter = _adapter(schema)  # type: ignore[arg-type]
    try:
        return adapter.validate_python(dict(data))
    except pydantic.ValidationError as e:
        raise _complaint(e, schema, where) from None
    except InputError as e:  # from the checks of the dataclass
        raise InputError.at(where, e) from None


def check_arguments(
    function: Callable[..., Any], conf: Mapping[str, Any], where: object, given: tuple[str, ...] = ()
) -> None:
    """Checks keyword arguments from a configuration against a function's or class's signature.

    Args:
        function: function to be called with ``**conf``.
        conf: configured arguments.
        where: file and key that errors name.
        given: names of arguments that the caller supplies. ``conf`` must not have them.

    Raises:
        InputError: unknown, missing or wrongly typed argument.
    """
    if not isinstance(conf, Mapping):
        raise InputError(where, ascii(conf)[:80], "a mapping of keys")
    model = _signature_model(function, given)
    try:
        read = model.model_validate(dict(conf))
    except pydantic.ValidationError as e:
        raise _complaint(e, model, where) from None
    for key, value in conf.items():  # pydantic accepts "1", true and 1.0 as 1
        if not _as_read(value, getattr(read, key)):
            kind = type(getattr(read, key)).__name__
            raise InputError(f"{where}: key {key}", ascii(value)[:80], f"values of type {kind}")


def _as_read(given: Any, read: Any) -> bool:
    """Whether a value has the type that it was read as. An integer counts as a float."""
    if isinstance(read, list | tuple) and isinstance(given, list | tuple):
        return all(map(_as_read, given, read))
    if isinstance(read, dict) and isinstance(given, dict):
        return all(_as_read(given[key], value) for key, value in read.items() if key in given)
    if isinstance(read, float) and not isinstance(given, bool):
        return isinstance(given, int | float)
    return type(given) is type(read) if isinstance(read, int | str) else True


def build(function: Callable[..., T], conf: Mapping[str, Any], where: object, **given: Any) -> T:
    """Calls a class or function with configured arguments after :func:`check_arguments`.

    Args:
        function: class or function to call.
        conf: configured arguments.
        where: file and key that errors name.
        given: arguments that the caller supplies. ``conf`` must not have them.

    Raises:
        InputError: see :func:`check_arguments`; or arguments that the function rejects.
    """
    check_arguments(function, conf, where, given=tuple(given))
    try:
        return function(**given, **conf)
    except (*_REFUSALS, MemoryError) as e:
        reason = str(e).strip().split("\n")[0] or type(e).__name__
        raise InputError(where, reason, f"arguments that {function.__name__} accepts") from e


_REFUSALS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Errors that functions raise for arguments that do not fit together."""


@cache
def _adapter(schema: Any) -> pydantic.TypeAdapter[Any]:
    _forbid_extra(schema, set())
    return pydantic.TypeAdapter(schema)


def _forbid_extra(schema: Any, seen: set[int]) -> None:
    """Makes a dataclass and all dataclasses in its hints refuse unknown keys."""
    if id(schema) in seen:
        return
    seen.add(id(schema))
    if inspect.isclass(schema) and hasattr(schema, "__dataclass_fields__"):
        if "__pydantic_config__" not in vars(schema):
            setattr(schema, "__pydantic_config__", pydantic.ConfigDict(**_STRICT))  # noqa: B010
        for hint in typing.get_type_hints(schema).values():
            _forbid_extra(hint, seen)
    for argument in typing.get_args(schema):
        _forbid_extra(argument, seen)


_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _targets(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """A function; of a class, its ``__init__``, and while that hands on ``**keywords``, the base class's."""
    if not inspect.isclass(function):
        yield function
        return
    for part in function.__mro__:
        if "__init__" in vars(part):
            target = vars(part)["__init__"]
            yield target
            if all(p.kind is not p.VAR_KEYWORD for p in inspect.signature(target).parameters.values()):
                return


@cache
def _signature_model(function: Callable[..., Any], given: tuple[str, ...]) -> type[pydantic.BaseModel]:
    fields: dict[str, Any] = {}
    for target in _targets(function):
        hints = typing.get_type_hints(target)
        for name, parameter in inspect.signature(target).parameters.items():
            if name == "self" or name in (*given, *fields) or parameter.kind in _VARIABLE:
                continue
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[name] = (hints.get(name, Any), default)
    config = pydantic.ConfigDict(**_STRICT, protected_namespaces=())
    return pydantic.create_model(function.__name__, __config__=config, **fields)


def _complaint(error: pydantic.ValidationError, schema: Any, where: object) -> InputError:
    """The first error of pydantic as an InputError. An unknown key comes before a missing one."""
    errors = error.errors(include_url=False)
    first = next((e for e in errors if e["type"] in UNKNOWN), errors[0])
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] in UNKNOWN:
        return InputError(f"{where}: key {key}", "an unknown key", one_of(_keys_beside(schema, path), path[-1]))
    if first["type"] in ("missing", "missing_argument"):
        return InputError(f"{where}: key {key}", "nothing", "a value")
    message = first["msg"][0].lower() + first["msg"][1:]
    return InputError(f"{where}: key {key}", repr(first["input"]), message.removeprefix("input should be "))


def _keys_beside(schema: Any, path: list[str]) -> list[str]:
    """Names of the known keys at the place of the path's last part."""
    for part in path[:-1]:
        if typing.get_origin(schema) in (typing.Union, types.UnionType):
            schema = _element(schema)
        schema = _field_types(schema).get(part) or _element(schema)
    return list(_field_types(_element(schema) if not _field_types(schema) else schema))


def _field_types(schema: Any) -> dict[str, Any]:
    if inspect.isclass(schema) and issubclass(schema, pydantic.BaseModel):
        return {name: field.annotation for name, field in schema.model_fields.items()}
    if inspect.isclass(schema) and hasattr(schema, "__dataclass_fields__"):
        return typing.get_type_hints(schema)
    return {}


def _element(schema: Any) -> Any:
    """The dataclass inside list[X], dict[str, X] or X | None, if there is one."""
    for argument in typing.get_args(schema):
        if _field_types(argument):
            return argument
        inner = _element(argument)
        if inner is not None and _field_types(inner):
            return inner
    return None
