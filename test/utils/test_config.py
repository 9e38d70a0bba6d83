"""Strict YAML: every complaint names the file and the key, at any depth."""

from dataclasses import dataclass, field

import pytest

from s5.utils.config import build as call
from s5.utils.config import check_arguments, load_inherited, load_yaml, origins, parse, yaml_chain
from s5.utils.errors import InputError


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


def test_aliases_stand_for_what_they_name(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &x {b: 1}\nc: *x\n")
    assert load_yaml(tmp_path / "a.yaml") == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize("data", [None, 3, "size", [1], float("inf")])
def test_what_is_no_mapping_is_refused(data):
    for read in (parse, check_arguments):
        with pytest.raises(InputError, match=r"x\.yaml: found .*, expected a mapping of keys"):
            read(Outer, data, "x.yaml")


@pytest.mark.parametrize("value", ["1", True, 1.0])
def test_an_argument_is_called_with_what_was_checked(value):
    """Pydantic reads all these as 1, but the function would get them as they are."""
    with pytest.raises(InputError, match=r"x: key size: found .*, expected values of type int"):
        check_arguments(build, {"size": value}, "x")
    check_arguments(build, {"size": 1, "rate": 1}, "x")


def halve(whole: int, parts: tuple[int, int] = (1, 1)) -> int:
    """Something that some arguments of the right type do not suit."""
    return whole // parts[0]


def test_what_a_function_cannot_do_with_is_one_line():
    assert call(halve, {"parts": [2, 1]}, "x", whole=4) == 2
    with pytest.raises(InputError, match=r"^x: found integer.* by zero, expected arguments that halve accepts"):
        call(halve, {"parts": [0, 1]}, "x", whole=4)
    with pytest.raises(InputError, match=r"key parts: found .*, expected values of type tuple"):
        call(halve, {"parts": [2.0, 1]}, "x", whole=4)
    with pytest.raises(InputError, match="key whole: found an unknown key"):
        call(halve, {"whole": 3}, "x", whole=4)


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
        ("a: &x [*x]\n", "a.yaml:1: found an alias of a value that contains it"),
        ("a: &x {b: [*x]}\n", "a.yaml:1: found an alias of a value that contains it"),
        ("? [a]\n: 1\n", "a.yaml:1: found a key that is a sequence"),
        ("b: 1\n? {a: b}\n: 1\n", "a.yaml:2: found a key that is a mapping"),
        ("a: 2001-02-30\n", r"a.yaml: found a value that cannot be read \(day"),
        ("a: !!float x\n", "a.yaml: found a value that cannot be read"),
        ("a: !!timestamp x\n", "a.yaml: found a value that cannot be read"),
        ("a: " + "9" * 5000 + "\n", "a.yaml: found a value that cannot be read"),
        ('a: "b\\0c"\n', r"a.yaml:1: found the text 'b\\x00c'"),
        ('a: "\\ud800"\n', "a.yaml:1: found the text"),
        ("[" * 3000, "a.yaml: found values nested too deeply"),
        (
            "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)),
            r"a.yaml:\d: found more than 1000000 values",
        ),
    ],
)
def test_bad_yaml_is_named(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        load_yaml(tmp_path / "a.yaml")
    assert "\n" not in str(error.value)
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


def test_each_value_names_the_file_that_it_comes_from(tmp_path):
    base, top = tmp_path / "base.yaml", tmp_path / "top.yaml"
    base.write_text("a: 1\nb: {c: 2, d: 3}\ne: {f: 4}\n")
    top.write_text("inherit: base.yaml\nb: {d: 5}\ne: 6\n")
    assert load_inherited(top) == {"a": 1, "b": {"c": 2, "d": 5}, "e": 6}
    assert origins(top) == {"a": base, "b": {"c": base, "d": top}, "e": top}


def test_a_recipe_folder_that_is_a_link_inherits_from_beside_the_link(tmp_path, monkeypatch):
    (tmp_path / "repo/conf").mkdir(parents=True)
    (tmp_path / "repo/conf/base.yaml").write_text("a: 1\n")
    (tmp_path / "disk/own/conf").mkdir(parents=True)
    (tmp_path / "disk/own/conf/top.yaml").write_text("inherit: ../../../conf/base.yaml\n")
    (tmp_path / "repo/egs").mkdir()
    (tmp_path / "repo/egs/own").symlink_to(tmp_path / "disk/own")
    monkeypatch.chdir(tmp_path / "repo/egs/own")
    monkeypatch.setenv("PWD", str(tmp_path / "repo/egs/own"))  # as a shell has it
    assert load_inherited("conf/top.yaml") == {"a": 1}


class Base:
    def __init__(self, size: int, rate: float = 0.1) -> None:
        self.size, self.rate = size, rate


class Derived(Base):
    def __init__(self, name: str = "a", **base: int) -> None:
        super().__init__(**base)


def test_a_class_that_hands_on_keywords_has_the_arguments_of_its_base_class():
    assert call(Derived, {"name": "b", "size": 2, "rate": 0.5}, "x").rate == 0.5
    for conf, message in (
        ({"sise": 2}, "x: key sise: found an unknown key, expected size (one of name, size, rate)"),
        ({"name": "b"}, "x: key size: found nothing, expected a value"),
        ({"size": 1, "rate": "much"}, "x: key rate: found 'much'"),
    ):
        with pytest.raises(InputError) as error:
            call(Derived, conf, "x")
        assert str(error.value).startswith(message)
