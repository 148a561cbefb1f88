"""Reading specifications in YAML and JSON, within limits, so that no text can exhaust this machine."""

import contextlib
import datetime
import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from sgbench.core.errors import InputError
from sgbench.core.words import quoted, shortened
from sgbench.spec.expression import vanishes

_MOST_BYTES = 2**18
"""Of a file; PyYAML reads about 100 kB a second."""

_DEEPEST = 30
"""Lists and mappings inside one another."""

_MOST_VALUES = 50_000
"""In a document, each alias counted as what it stands for."""

_LONGEST_NUMBER = 100
"""Characters of a number."""

_MOST_SEEDS = 10_000
"""In one text, ranges spelled out."""


def read_seeds(text: str) -> list[int]:
    """Return the seeds in a list of numbers and ranges, such as ``0-4,7``; both ends of a range belong to it.

    Raises:
        ValueError: If it is none, a range ends before it begins, or there are more than 10,000.
    """
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,19})\s*-\s*([0-9]{1,19})\s*", part)
        try:
            first, last = map(int, found.groups()) if found else (int(part), int(part))
        except ValueError as error:
            raise ValueError("numbers such as 0,1,2 or a range such as 0-4 are needed") from error
        if last < first:
            raise ValueError(f"the range {first}-{last} ends before it begins")
        if len(seeds) + last - first >= _MOST_SEEDS:
            raise ValueError(f"{_MOST_SEEDS:,} seeds are the most")
        seeds += range(first, last + 1)
    return seeds


def read_file(path: str, kind: str) -> str:
    """Return the text of a file that a person wrote.

    Args:
        path: Of a regular file: a pipe or a device might never end.
        kind: What the file is, for messages: ``"sweep file"``.

    Raises:
        InputError: If it cannot be read, is not a regular file, is too large, or is not text in UTF-8.
    """
    named = f"{kind} {quoted(path)}"
    try:
        regular = stat.S_ISREG(Path(path).stat().st_mode)
        content = _beginning(path) if regular else b""
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{named} cannot be read: {why}.") from error
    if not regular:
        raise InputError(f"{named} cannot be read: a regular file is needed.")
    if len(content) > _MOST_BYTES:
        raise InputError(f"{named} has more than {_MOST_BYTES // 1024} KiB, which no specification needs.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{named} cannot be read: byte {error.start + 1} is not text in UTF-8.") from error


def _beginning(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(_MOST_BYTES + 1)


def read_yaml(text: str, source: str) -> Any:
    """Return the value that a YAML document holds: texts, numbers, truth values, lists and mappings.

    Merge keys (``<<``) are followed. Dates are texts, as no field is a date.

    Args:
        text: The document.
        source: Where it comes from, for messages.

    Raises:
        InputError: If it is not valid YAML, gives a key twice, or exceeds a limit.
    """
    try:
        return _Reader(text).read()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        problem = str(error.problem)
        if problem.startswith("but "):  # the end of a sentence that the context begins
            problem = f"{error.context} {problem}"
        raise InputError(f"{source} is not valid YAML: {where}{shortened(problem, 160)}.") from error
    except yaml.reader.ReaderError as error:
        raise InputError(f"{source} is not valid YAML: it has the character {hex(error.character)}.") from error


def read_json(text: str | bytes) -> Any:
    """Return the value that a JSON text holds.

    Raises:
        ValueError: If it is not valid JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_time(text: str) -> datetime.datetime:
    """Return the time that a text in ISO 8601 with a time zone stands for, in UTC.

    Raises:
        ValueError: If it is none, or outside the years 1 to 9999.
        TypeError: If it is no text.
    """
    try:
        time = datetime.datetime.fromisoformat(text)
        if time.tzinfo is None:
            raise ValueError(f"{text[:80]!r} is a time without a time zone")
        return time.astimezone(datetime.UTC)
    except OverflowError as error:
        raise ValueError(f"{text[:80]!r} is outside the years 1 to 9999") from error


class _Reader(yaml.SafeLoader):
    """Turns YAML's nodes into values, of which there is a short list."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._values = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose what comes next, unless it is nested too deeply."""
        with self._inside(self.peek_event()):  # type: ignore[no-untyped-call] # its stubs leave this method untyped
            return super().compose_node(parent, index)

    def read(self) -> Any:
        """Return the value of the document; None if it is empty."""
        node = self.get_single_node()
        return None if node is None else self._value(node)

    def _value(self, node: yaml.Node) -> Any:
        self._values += 1
        if self._values > _MOST_VALUES:
            raise _wrong(f"more than {_MOST_VALUES:,} values, aliases followed", node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node.tag not in _COLLECTIONS:
            raise _unsupported(node)
        with self._inside(node):
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node)
            return [self._value(each) for each in node.value]

    def _mapping(self, node: yaml.MappingNode) -> dict[Any, Any]:
        own: dict[Any, Any] = {}
        merged: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _wrong("a list or mapping is a key", key_node)
            if key_node.tag == _MERGE:
                given = self._value(value_node)
                for base in given if isinstance(given, list) else [given]:
                    if not isinstance(base, dict):
                        raise _wrong("'<<' needs a mapping or a list of mappings", value_node)
                    merged = base | merged
                continue
            key = self._scalar(key_node)
            if key in own:
                raise _wrong(f"key {quoted(str(key))} is given twice", key_node)
            own[key] = self._value(value_node)
        return merged | own

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag in _TEXTS:
            if _SURROGATE.search(node.value):  # YAML has an escape for it
                raise _wrong(f"{quoted(node.value)} is not text in UTF-8", node)
            return node.value
        if node.tag not in _SCALARS:
            raise _unsupported(node)
        kind = _SCALARS[node.tag]
        if len(node.value) > _LONGEST_NUMBER:
            raise _wrong(f"{kind} of {len(node.value):,} characters, where {_LONGEST_NUMBER} are the most", node)
        if node.tag in _NUMBERS and _OTHER_BASE.fullmatch(node.value):
            raise _wrong(f"{node.value} is to base {60 if ':' in node.value else 8} in YAML; write it to base 10", node)
        try:
            value = self.construct_object(node)
        except (ValueError, LookupError, ArithmeticError, TypeError) as error:  # !!int x
            raise _wrong(f"{quoted(node.value)} is not {kind}", node) from error
        if isinstance(value, float) and vanishes(node.value, value):
            raise _wrong(f"{node.value} is too small to differ from 0", node)
        return value

    @contextlib.contextmanager
    def _inside(self, place: Any) -> Iterator[None]:
        if self._depth == _DEEPEST:
            raise _wrong(f"more than {_DEEPEST} lists and mappings inside one another", place)
        self._depth += 1
        yield
        self._depth -= 1


_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_COLLECTIONS = {f"{_TAG}seq", f"{_TAG}map"}
_TEXTS = {f"{_TAG}str", f"{_TAG}value", f"{_TAG}timestamp"}
_SCALARS = {
    f"{_TAG}null": "null",
    f"{_TAG}bool": "true or false",
    f"{_TAG}int": "a whole number",
    f"{_TAG}float": "a number",
}
_NUMBERS = {f"{_TAG}int", f"{_TAG}float"}
_OTHER_BASE = re.compile(r"[-+]?(0[0-7_]+|[0-9_.]+(:[0-9_.]+)+)")
"""Numbers that mean something else in YAML than to whoever writes them: 010 is 8, and 1:30 is 90."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def _wrong(problem: str, place: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


def _unsupported(node: yaml.Node) -> yaml.MarkedYAMLError:
    return _wrong(f"tag {quoted(node.tag.replace(_TAG, '!!', 1))} is not supported", node)
