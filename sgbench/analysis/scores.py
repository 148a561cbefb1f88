"""Scores as comparisons need them: with their values by image, and whether they can be compared at all."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sgbench.analysis.stats import Array
from sgbench.analysis.view import NOT_SCORED, Basis, Fate, Key, Outcome


class Score(NamedTuple):
    """A run's scores by one metric on one test set."""

    run_id: str
    value: float
    basis: Basis
    images: tuple[str, ...]
    """Sorted; empty for a metric without a value per image."""
    values: Array
    """[I], by image."""


Side = Mapping[int, Score | Fate]
"""The scores of a loss by seed, or why there is none."""

ByImage = Mapping[Key, tuple[tuple[str, ...], Array]]
"""The names of images, sorted, and their values."""


def score_of(outcome: Outcome, by_image: ByImage) -> Score | Fate:
    """Return a run's score with its values by image, or why there is none."""
    if outcome.value is None or outcome.basis is None:
        return outcome.fate or NOT_SCORED
    images, values = by_image.get((outcome.run.run_id, outcome.dataset, outcome.metric), ((), np.empty(0)))
    return Score(outcome.run.run_id, outcome.value, outcome.basis, images, values)


def by_image(rows: pa.Table) -> ByImage:
    """Return the names of images, sorted, and their values, from the scores of single images."""
    rows = rows.filter(pc.is_valid(rows["value"]))
    if not rows.num_rows:
        return {}
    (runs, run_ids), (sets, datasets), (by, metrics), (images, names) = (
        _codes(rows[column]) for column in ("run_id", "dataset", "metric", "image")
    )
    order = np.lexsort((images, by, sets, runs))
    values = rows["value"].to_numpy()[order]
    runs, sets, by, images = (codes[order] for codes in (runs, sets, by, images))
    starts = np.flatnonzero(np.diff(runs, prepend=-1) | np.diff(sets, prepend=-1) | np.diff(by, prepend=-1))
    known: dict[bytes, tuple[str, ...]] = {}
    found = {}
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(values)], strict=True):
        codes = images[start:end]
        if (code := codes.tobytes()) not in known:
            known[code] = tuple(names[at] for at in codes.tolist())
        key = (run_ids[runs[start]], datasets[sets[start]], metrics[by[start]])
        found[key] = (known[code], values[start:end])
    return found


def _codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], list[str]]:
    """Return a text column as indices into a sorted list."""
    encoded = (column if pa.types.is_dictionary(column.type) else column.dictionary_encode()).unify_dictionaries()
    whole = encoded.combine_chunks()
    names: list[str] = whole.dictionary.to_pylist()
    ordered = sorted(names)
    place = {name: at for at, name in enumerate(ordered)}
    ranks = np.array([place[name] for name in names], np.int32)
    return ranks[whole.indices.to_numpy()], ordered


def mixture(scores: Sequence[Score]) -> str | None:
    """Return why scores cannot be compared, if they cannot."""
    for what in ("metric_version", "protocol"):
        if (count := len({getattr(score.basis, what) for score in scores})) > 1:
            return f"the scores are from {count} {what.removeprefix('metric_')}s, which cannot be compared"
    if len({score.images for score in scores}) > 1:
        return "the scores are for different images"
    return None
