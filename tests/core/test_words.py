import pytest

from sgbench.core.errors import InputError, unknown
from sgbench.core.words import MOST_QUOTED, printable, quoted, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("λ é ×4", "λ é ×4"),
        ("\x1b[2J\a", r"\x1b[2J\x07"),
        ("two\nlines\ttab", r"two\nlines\ttab"),
        ("\udcff\u202egnp", r"\udcff\u202egnp"),
        ("", ""),
    ],
)
def test_what_is_not_seen_is_escaped(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(("most", "shown"), [(10, "0123456789"), (9, "0123…6789"), (8, "0123…789")])
def test_the_middle_is_left_out(most, shown):
    assert shortened("0123456789", most) == shown
    assert len(shown) == most


def bomb():
    nested: list[object] = ["x"]
    for _ in range(60):
        nested = [nested, nested]
    return nested


@pytest.mark.parametrize(
    "value",
    ["x" * 10**7, "\x1b" * 10**7, 10**4299, 10**5000, bomb(), {"a": "b" * 1000}, b"\0" * 1000],
    ids=["text", "escapes", "number", "number-without-text", "bomb", "mapping", "bytes"],
)
def test_at_most_80_characters_of_a_value_are_quoted(value):
    assert len(quoted(value)) <= MOST_QUOTED + 2
    assert quoted(value).isprintable()


def test_a_value_is_quoted_as_it_is():
    assert quoted("l1 + sq") == "'l1 + sq'"
    assert quoted(5) == "5"
    assert quoted([]) == "[]"


def test_an_error_is_one_printable_line_that_can_be_read():
    error = InputError(f"there is no folder '{'x' * 10**6}\x1b[2J'\n  of that name.")
    assert str(error).startswith("there is no folder 'xxx")
    assert str(error).endswith(r"xxx\x1b[2J' of that name.")
    assert len(str(error)) <= 290
    assert str(error).isprintable()


def test_an_unknown_name_may_be_long():
    assert len(str(unknown("loss", "x" * 10**6, ["l1", "l2"]))) < 150
