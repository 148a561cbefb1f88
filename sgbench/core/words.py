"""The order in which names are read, and what a recipe is called among others."""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any


@functools.cache
def natural(text: str) -> tuple[Any, ...]:
    """Return a key by which Set5 comes before Set14 and a weight of 0.1 before one of 10."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return tuple(float(part) if index % 2 else part for index, part in enumerate(parts))


def recipe_name(run: Mapping[str, Any], differing: Iterable[str]) -> str:
    """Return what tells a recipe from others, such as ``steps=1200, train=photos@1a2b3c4d``.

    Args:
        run: The columns of `RUNS`, of a trained run.
        differing: Those in which the recipes differ.
    """
    return ", ".join(
        f"train={run['train']}@{str(run[column])[:8]}" if column == "train_sha256" else f"{column}={run[column]}"
        for column in differing
    )
