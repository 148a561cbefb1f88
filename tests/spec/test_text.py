"""YAML and JSON within limits: what is too much is one sentence, at once."""

import math
import os
from pathlib import Path

import pytest

from sgbench.core.errors import InputError
from sgbench.spec.text import read_file, read_json, read_time, read_yaml

BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{key}: &{key} [{','.join([f'*{before}'] * 9)}]\n" for before, key in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = "a: &a {x: 1}\n" + "".join(
    f"{key}: &{key} {{<<: [{','.join([f'*{before}'] * 9)}]}}\n"
    for before, key in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (
            "a: .inf\nb: 1_000\nc: ~\nd: yes\ne: 0x1f\nf: 1e-4",
            {"a": math.inf, "b": 1000, "c": None, "d": True, "e": 31, "f": "1e-4"},
        ),
        ("day: 2026-13-45\nother: 2026-01-31", {"day": "2026-13-45", "other": "2026-01-31"}),
        ("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}", {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}}),
        ("b: {<<: [{x: 1}, {x: 2, y: 2}], z: 3}", {"b": {"x": 1, "y": 2, "z": 3}}),
        ("a: &a [1]\nb: [*a, *a]", {"a": [1], "b": [[1], [1]]}),
        ("!!str 5", "5"),
        ("", None),
    ],
)
def test_values(text, value):
    assert read_yaml(text, "x") == value


def test_an_alias_stands_for_a_value_of_its_own():
    value = read_yaml("a: &a [1]\nb: *a", "x")
    value["b"].append(2)
    assert value["a"] == [1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("k: 0b_", "line 1: '0b_' is not a whole number"),
        ("k: [0.0, 1.0e-400]", "line 1: 1.0e-400 is too small to differ from 0"),
        ("k: -0.5e-999", "line 1: -0.5e-999 is too small to differ from 0"),
        ("k: [10, 010]", "line 1: 010 is to base 8 in YAML; write it to base 10"),
        ("k: 1:30", "line 1: 1:30 is to base 60 in YAML; write it to base 10"),
        ("k: -1:30.5", "line 1: -1:30.5 is to base 60 in YAML; write it to base 10"),
        ("k: !!int x", "line 1: 'x' is not a whole number"),
        ("k: !!float _", "line 1: '_' is not a number"),
        ("k: !!bool x", "line 1: 'x' is not true or false"),
        ("\nk: !!python/object:os.system {}", "line 2: tag '!!python/object:os.system' is not supported"),
        ("!!binary aGk=", "line 1: tag '!!binary' is not supported"),
        ("k: !mine 3", "line 1: tag '!mine' is not supported"),
        ("!!set {a}", "line 1: tag '!!set' is not supported"),
        (f"k: {'1' * 5000}", "line 1: a whole number of 5,000 characters, where 100 are the most"),
        (f"k: 0x{'f' * 5000}", "line 1: a whole number of 5,002 characters, where 100 are the most"),
        (f"k: {':'.join(['1'] * 500)}", "line 1: a whole number of 999 characters, where 100 are the most"),
        ("[" * 1000, "line 1: more than 30 lists and mappings inside one another"),
        ("{" * 1000, "line 1: more than 30 lists and mappings inside one another"),
        ("- " * 1000, "line 1: more than 30 lists and mappings inside one another"),
        ("&a [*a]", "line 1: more than 30 lists and mappings inside one another"),
        ("&a {<<: *a}", "line 1: more than 30 lists and mappings inside one another"),
        (BOMB, "line 1: more than 50,000 values, aliases followed"),
        (MERGE_BOMB, "line 1: more than 50,000 values, aliases followed"),
        ("<<: 5", "line 1: '<<' needs a mapping or a list of mappings"),
        ("<<: [5]", "line 1: '<<' needs a mapping or a list of mappings"),
        ("? [a]\n: 1", "line 1: a list or mapping is a key"),
        ("a: 1\na: 2", "line 2: key 'a' is given twice"),
        ("a: *b", "line 1: found undefined alias 'b'"),
        ("a: 1\n---\nb: 2", "line 2: expected a single document in the stream but found another document"),
        ("a\0b", "it has the character 0x0"),
        ("a: \ud800", "it has the character 0xd800"),
        ("\ta: 1", r"line 1: found character '\t' that cannot start any token"),
    ],
    ids=lambda value: value[:20].encode("ascii", "backslashreplace").decode(),
)
def test_what_is_too_much_or_wrong_is_one_sentence(text, problem):
    with pytest.raises(InputError) as error:
        read_yaml(text, "x")
    assert str(error.value) == f"x is not valid YAML: {problem}."


def test_a_file_is_read_with_or_without_a_byte_order_mark(tmp_path: Path):
    for content in (b"\xef\xbb\xbfgrids: \xce\xbb", b"grids: \xce\xbb"):
        (tmp_path / "a.yaml").write_bytes(content)
        assert read_file(str(tmp_path / "a.yaml"), "sweep file") == "grids: λ"


def test_only_regular_files_of_text_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(path: str) -> str:
        with pytest.raises(InputError) as error:
            read_file(path, "sweep file")
        return str(error.value).removeprefix(f"sweep file '{path}' ").removesuffix(".")

    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"#" * (2**18 + 1))
    (tmp_path / "wide").write_text("grids: []", encoding="utf-16")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert refused("pipe") == "cannot be read: a regular file is needed"
    assert refused("/dev/zero") == "cannot be read: a regular file is needed"
    assert refused(".") == "cannot be read: a regular file is needed"
    assert refused("large") == "has more than 256 KiB, which no specification needs"
    assert refused("wide") == "cannot be read: byte 1 is not text in UTF-8"
    assert refused("loop") == "cannot be read: Too many levels of symbolic links"
    assert refused("none") == "cannot be read: No such file or directory"
    assert refused("nul\0").endswith("cannot be read: embedded null byte")


@pytest.mark.parametrize(
    ("text", "problem"),
    [("[" * 100_000, "it is nested too deeply"), ("{", "Expecting property name"), ("1" * 5000, "Exceeds the limit")],
    ids=["deep", "cut", "digits"],
)
def test_json_is_read_or_a_value_error(text, problem):
    with pytest.raises(ValueError, match=problem):
        read_json(text)


def test_a_time_is_in_utc_whatever_its_time_zone() -> None:
    assert read_time("2026-11-28T09:00:00.250+01:00").isoformat() == "2026-11-28T08:00:00.250000+00:00"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("yesterday", "isoformat"),
        ("2026-11-28T09:00:00", "without a time zone"),
        ("0001-01-01T00:00:00+01:00", "outside the years"),
    ],
)
def test_what_is_no_time_is_told(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_time(text)
