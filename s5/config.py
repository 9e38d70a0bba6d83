"""YAML configuration: strict at any depth, and every complaint names the file and the key."""

from __future__ import annotations

import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from s5.errors import InputError, one_of
from s5.text import read_text

ROOT = Path(__file__).resolve().parents[1]
"""The repository: where shared configurations (conf/) are looked up after the recipe's own."""

UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
"""Pydantic's names for a key that it does not know."""

_STRICT: Any = {"extra": "forbid", "arbitrary_types_allowed": True, "allow_inf_nan": False}
"""Pydantic's settings: no unknown key at any depth, and numbers are finite."""

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number (YAML 1.2) and refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key} twice (line {line})", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|nan)$"),
    list("-+0123456789."),
)


def resolve(path: str | Path) -> Path:
    """A path as given if it exists from the working directory, else below the repository, else as given."""
    path = Path(path)
    if not path.is_absolute() and not path.exists() and (ROOT / path).exists():
        return ROOT / path
    return path


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file whose top level is a mapping.

    Raises:
        InputError: the file is missing, is not YAML, holds a key twice, or is not a mapping.
    """
    path = resolve(path)
    text = read_text(path, "a YAML file")
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        raise InputError(where, getattr(e, "problem", None) or str(e), "valid YAML") from e
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise InputError(path, type(data).__name__, "a mapping of keys")
    return data


def yaml_chain(path: str | Path) -> list[Path]:
    """A YAML file and those that it inherits from, nearest first.

    ``inherit: other.yaml`` is looked up beside the file. Of a list, ``inherit: [a.yaml, b.yaml]``, the last is nearest:
    what b says goes before what a says.

    Raises:
        InputError: a file is missing, is no YAML, or inherits from itself.
    """
    # A file that several inherit from goes behind all of them.
    files = list(_chain(resolve(path), path, ()))
    return list(dict.fromkeys(reversed(files)))[::-1]


def _chain(file: Path, first: str | Path, above: tuple[Path, ...]) -> Iterator[Path]:
    yield file
    parents = load_yaml(file).get("inherit") or []
    for parent in reversed(parents if isinstance(parents, list) else [parents]):
        inherited = Path(os.path.normpath(file.parent / str(parent)))
        if inherited in (file, *above):
            raise InputError(f"{first}: key inherit", f"{parent}, which inherits from it", "another file")
        yield from _chain(inherited, first, (file, *above))


def load_inherited(path: str | Path) -> dict[str, Any]:
    """A YAML file over what it inherits; mappings are merged at any depth, other values replaced."""
    merged: dict[str, Any] = {}
    for file in reversed(yaml_chain(path)):
        merged = _merge(merged, load_yaml(file))
    merged.pop("inherit", None)
    return merged


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def parse(schema: type[T] | Callable[..., Any], data: Mapping[str, Any], where: object) -> T:
    """Builds a dataclass (nested ones too) from plain data, refusing unknown keys and wrong types at any depth.

    Args:
        schema: a dataclass with type hints.
        data: the mapping, e.g. from :func:`load_yaml`.
        where: file (and key) that complaints name.

    Raises:
        InputError: unknown, missing or wrongly typed key.
    """
    adapter = _adapter(schema)  # type: ignore[arg-type]
    try:
        return adapter.validate_python(dict(data))
    except pydantic.ValidationError as e:
        raise _complaint(e, schema, where) from None
    except InputError as e:  # of a dataclass's own checks
        raise InputError.at(where, e) from None


def check_arguments(
    function: Callable[..., Any], conf: Mapping[str, Any], where: object, given: tuple[str, ...] = ()
) -> None:
    """Checks keyword arguments from a configuration against a function's or class's signature.

    Args:
        function: what will be called with ``**conf``.
        conf: the configured arguments.
        where: file and key that complaints name.
        given: names of arguments that the caller itself supplies: not allowed in ``conf``.

    Raises:
        InputError: unknown, missing or wrongly typed argument.
    """
    model = _signature_model(function, given)
    try:
        model.model_validate(dict(conf))
    except pydantic.ValidationError as e:
        raise _complaint(e, model, where) from None


@cache
def _adapter(schema: Any) -> pydantic.TypeAdapter[Any]:
    _forbid_extra(schema, set())
    return pydantic.TypeAdapter(schema)


def _forbid_extra(schema: Any, seen: set[int]) -> None:
    """Marks a dataclass and every dataclass in its hints as closed to unknown keys."""
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


@cache
def _signature_model(function: Callable[..., Any], given: tuple[str, ...]) -> type[pydantic.BaseModel]:
    target = function.__init__ if inspect.isclass(function) else function
    hints = typing.get_type_hints(target)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if name == "self" or name in given or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[name] = (hints.get(name, Any), default)
    config = pydantic.ConfigDict(**_STRICT, protected_namespaces=())
    return pydantic.create_model(function.__name__, __config__=config, **fields)


def _complaint(error: pydantic.ValidationError, schema: Any, where: object) -> InputError:
    """The first of pydantic's errors as one line of ours; a key that is not known goes before one that is missing."""
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
    """Names of the keys that are known where the path's last part stands."""
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
