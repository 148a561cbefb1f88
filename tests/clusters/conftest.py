from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture
def misspelled() -> Callable[[Any], Iterator[Any]]:
    """Makes copies of a file's content, in each of which one key is misspelled, at any depth."""

    def misspelled(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            for key, below in value.items():
                yield {f"{key}s" if each == key else each: content for each, content in value.items()}
                yield from ({**value, key: changed} for changed in misspelled(below))
        elif isinstance(value, list):
            for i, below in enumerate(value):
                yield from ([*value[:i], changed, *value[i + 1 :]] for changed in misspelled(below))

    return misspelled
