"""Scores as comparisons need them: with their values by image, and whether they can be compared at all."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sgbench.analysis.stats import Array
from sgbench.analysis.view import NOT_SCORED, Basis, Fate, Key, Outcome
from sgbench.core.words import listed


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
    """Return why scores on one test set cannot be compared, if they cannot."""
    if reason := mixed_bases(scores):
        return reason
    return "the scores are for different images" if len({score.images for score in scores}) > 1 else None


def mixed_bases(scores: Sequence[Score]) -> str | None:
    """Return that scores are from different versions or protocols, if they are."""
    for what in ("metric_version", "protocol"):
        if (count := len({getattr(score.basis, what) for score in scores})) > 1:
            return f"the scores are from {count} {what.removeprefix('metric_')}s, which cannot be compared"
    return None


def pooled(sides: Mapping[str, Side]) -> Side:
    """Return the scores of a loss on several test sets as scores on one, or why a seed has none.

    Args:
        sides: By test set, each with the same seeds and values by image. Images of the result are called ``Set5/baby``.
    """
    found: dict[int, Score | Fate] = {}
    for seed in next(iter(sides.values())):
        of_seed = {dataset: side[seed] for dataset, side in sides.items()}
        scores = {dataset: each for dataset, each in of_seed.items() if isinstance(each, Score)}
        if fates := {dataset: each for dataset, each in of_seed.items() if isinstance(each, Fate)}:
            found[seed] = _shared(fates, everywhere=not scores)
            continue
        first, values = next(iter(scores.values())), np.concatenate([score.values for score in scores.values()])
        images = tuple(f"{dataset}/{image}" for dataset, score in scores.items() for image in score.images)
        found[seed] = Score(first.run_id, float(values.mean()), first.basis, images, values)
    return found


def _shared(fates: Mapping[str, Fate], *, everywhere: bool) -> Fate:
    """Return the first of some fates, which says on which test sets if it is not that of all."""
    first = next(iter(fates.values()))
    where = [dataset for dataset, fate in fates.items() if fate == first]
    if everywhere and len(where) == len(fates):
        return first
    return first._replace(where=f"{first.where} on {listed(where)}")


def strata(images: Sequence[str], values: Array) -> tuple[list[int], tuple[int, ...]]:
    """Return which images of several test sets to keep, and how many of them are of each set.

    An image that is in two sets counts once; it has the same name in both, and the same scores to the last digit. A set
    with one image, which has no spread, goes with the one beside it.

    Args:
        images: Names as `pooled` makes them.
        values: [..., I], all scores of these images.
    """
    first: dict[tuple[str, bytes], int] = {}
    for at, image in enumerate(images):
        first.setdefault((image.partition("/")[2], values[..., at].tobytes()), at)
    kept = list(first.values())
    sizes = [*Counter(images[at].partition("/")[0] for at in kept).values()]
    while len(sizes) > 1 and 1 in sizes:
        at = max(1, sizes.index(1))
        sizes[at - 1 : at + 1] = [sizes[at - 1] + sizes[at]]
    return kept, tuple(sizes)
