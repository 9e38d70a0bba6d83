"""Strict YAML: every complaint names the file and the key, at any depth."""

from dataclasses import dataclass, field

import pytest

from s5.config import check_arguments, load_inherited, load_yaml, parse, yaml_chain
from s5.errors import InputError


@dataclass
class Inner:
    gamma: float = 1.0
    names: list[str] = field(default_factory=list)


@dataclass
class Outer:
    size: int
    inner: Inner = field(default_factory=Inner)
    table: dict[str, Inner] = field(default_factory=dict)
    rows: list[Inner] = field(default_factory=list)


def build(size: int, rate: float = 0.1, *, name: str = "a") -> None:
    """Something that a configuration calls."""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"size": 1, "sise": 2},
            "x.yaml: key sise: found an unknown key, expected size (one of size, inner, table, rows)",
        ),
        ({}, "x.yaml: key size: found nothing, expected a value"),
        (
            {"size": 1, "inner": {"gama": 2}},
            "x.yaml: key inner.gama: found an unknown key, expected gamma (one of gamma, names)",
        ),
        ({"size": 1, "inner": {"gamma": "much"}}, "x.yaml: key inner.gamma: found 'much', expected"),
        ({"size": 1, "inner": {"gamma": float("nan")}}, "x.yaml: key inner.gamma: found nan, expected a finite number"),
        ({"size": 1, "rows": [{"gamma": "-inf"}]}, "x.yaml: key rows.0.gamma: found '-inf', expected a finite number"),
        ({"size": 1, "table": {"a": {"gama": 2}}}, "x.yaml: key table.a.gama: found an unknown key, expected gamma"),
        ({"size": 1, "rows": [{}, {"gama": 2}]}, "x.yaml: key rows.1.gama: found an unknown key, expected gamma"),
    ],
)
def test_complaints_name_the_key(data, message):
    with pytest.raises(InputError) as error:
        parse(Outer, data, "x.yaml")
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_parse_builds_nested_dataclasses():
    assert parse(Outer, {"size": 2, "rows": [{"gamma": 0.5}]}, "x") == Outer(2, rows=[Inner(0.5)])


def test_arguments_of_a_function():
    check_arguments(build, {"size": 1, "rate": 1e-3}, "x")
    check_arguments(build, {}, "x", given=("size",))
    with pytest.raises(
        InputError, match=r"x: key nam: found an unknown key, expected name \(one of size, rate, name\)"
    ):
        check_arguments(build, {"size": 1, "nam": "b"}, "x")
    with pytest.raises(InputError, match="key size: found 'big'"):
        check_arguments(build, {"size": "big"}, "x")
    with pytest.raises(InputError, match="key rate: found inf, expected a finite number"):
        check_arguments(build, {"size": 1, "rate": float("inf")}, "x")
    with pytest.raises(InputError, match="key size: found an unknown key"):
        check_arguments(build, {"size": 1}, "x", given=("size",))


def test_exponents_are_numbers(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 1e-4\nb: 2.5E3\nc: 12\nd: 1.5\ne: text\n")
    assert load_yaml(tmp_path / "a.yaml") == {"a": 1e-4, "b": 2500.0, "c": 12, "d": 1.5, "e": "text"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"a.yaml:3: found key a twice"),
        ("a: [1\n", r"a.yaml:\d: found"),
        ("- 1\n", "a.yaml: found list, expected a mapping"),
        ("a: !!python/object/apply:os.system [true]\n", "a.yaml:1: found could not determine a constructor"),
    ],
)
def test_bad_yaml_is_named(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_yaml(tmp_path / "a.yaml")
    with pytest.raises(InputError, match="No such file"):
        load_yaml(tmp_path / "none.yaml")


def test_inherited_mappings_are_merged(tmp_path):
    (tmp_path / "a.yaml").write_text("x: {a: 1, b: {c: 2, d: 3}}\ny: 1\n")
    (tmp_path / "b.yaml").write_text("inherit: a.yaml\nx: {b: {c: 5}}\n")
    assert load_inherited(tmp_path / "b.yaml") == {"x": {"a": 1, "b": {"c": 5, "d": 3}}, "y": 1}
    assert yaml_chain(tmp_path / "b.yaml") == [tmp_path / "b.yaml", tmp_path / "a.yaml"]
    (tmp_path / "a.yaml").write_text("inherit: b.yaml\n")
    with pytest.raises(InputError, match=r"key inherit: found b\.yaml, which inherits from it"):
        load_inherited(tmp_path / "b.yaml")
