"""Several stores as one: a run that is in two of them counts once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from sgbench.analysis.results import Results
from sgbench.core.errors import InputError
from sgbench.core.words import plural
from sgbench.store import Declaration, Tuning, relabelled
from sgbench.store.rows import RunEnd

_SCORE = ("run_id", "dataset", "metric")


@dataclass(frozen=True)
class Stores:
    """Several stores, with unambiguous names across all of them.

    Attributes:
        each: The results of each store, by its label.
        merged: The results of all; of a run or score in several stores, the first that is done or has a number. A label
            that stores give to several losses is that of the first.
        notes: One sentence each on scores that differ between stores.
    """

    each: Mapping[str, Results]
    merged: Results
    notes: tuple[str, ...] = ()


def labelled(paths: Sequence[str]) -> dict[str, str]:
    """Return the paths of stores by label: the folder's name, with as many parents as make it unique.

    Raises:
        InputError: If a store is given twice.
    """
    for path in paths:
        if paths.count(path) > 1:
            raise InputError(f"--results '{path}' is given twice.")
    parts = [PurePosixPath(path).parts for path in paths]
    levels = range(1, max(map(len, parts)) + 1)
    every = (["/".join(part[-level:]) for part in parts] for level in levels)
    return dict(zip(next(labels for labels in every if len(set(labels)) == len(paths)), paths, strict=True))


def together(stores: Mapping[str, Results]) -> Stores:
    """Combine stores, without their training curves.

    Args:
        stores: The results of each store, by label; if they differ, the first one counts.
    """
    if len(stores) == 1:
        return Stores(stores, next(iter(stores.values())))
    sources = [results.source for results in stores.values()]
    each = {label: Results(results.source, sources) for label, results in stores.items()}
    done = {
        label: dict(
            zip(
                results.runs["run_id"].to_pylist(),
                pc.equal(results.runs["status"], RunEnd.DONE).to_pylist(),
                strict=True,
            )
        )
        for label, results in each.items()
    }
    values = {label: _values(results.totals) for label, results in each.items()}
    runs = _owners(done)
    scores = _owners({label: {key: value is not None for key, value in own.items()} for label, own in values.items()})
    labels: dict[str, str] = {}
    for results in each.values():
        labels = relabelled(results.labels, labels)
    merged = Results.of(
        pa.concat_tables(_among(results.runs, ("run_id",), runs[label]) for label, results in each.items()),
        pa.concat_tables(_among(results.scores, _SCORE, scores[label]) for label, results in each.items()),
        planned=[plan for results in each.values() for plan in results.planned],
        labels=labels,
        declarations=_declared(stores.values()),
        tunings=_tuned(stores),
    )
    return Stores(each, merged, tuple(_disagreements(values)))


def _declared(stores: Iterable[Results]) -> list[Declaration]:
    """Return what was declared for any of the stores, each declaration as it was made first."""
    every = sorted((each for results in stores for each in results.declarations), key=lambda each: each.declared)
    return list({each.digest: each for each in reversed(every)}.values())


def _tuned(stores: Mapping[str, Results]) -> dict[str, Tuning]:
    """Return the searches of all stores, each once; of two that share a name, the second has its store's before it."""
    found: dict[str, Tuning] = {}
    for label, results in stores.items():
        known = {tuning.digest for tuning in found.values()}
        new = {name: tuning for name, tuning in results.tunings.items() if tuning.digest not in known}
        found |= {f"{label}: {name}" if name in found else name: tuning for name, tuning in new.items()}
    return found


def _owners(found: Mapping[str, Mapping[str, bool]]) -> dict[str, set[str]]:
    """Return the keys that each store contributes: a key goes to the first store with True for it, or else with it."""
    owner: dict[str, str] = {}
    for label, own in found.items():
        for key, good in own.items():
            if key not in owner or (good and not found[owner[key]][key]):
                owner[key] = label
    return {label: {key for key, at in owner.items() if at == label} for label in found}


def _disagreements(values: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    numbers: dict[str, dict[str, float]] = {}
    for label, own in values.items():
        for key, value in own.items():
            if value is not None:
                numbers.setdefault(key, {})[label] = value
    differing = {key: by for key, by in numbers.items() if len(set(by.values())) > 1}
    if not differing:
        return []
    key, by = next(iter(differing.items()))
    run, dataset, metric = key.split("\n")
    told = ", ".join(f"{value:.6g} in {label}" for label, value in by.items())
    return [
        f"The stores disagree on {plural(len(differing), 'score')} of runs that they share, such as {metric} of "
        f"{run} on {dataset}: {told}; the first is shown."
    ]


def _values(totals: pa.Table) -> dict[str, float | None]:
    """Return the value of each whole test set."""
    return dict(zip(_keys(totals, _SCORE).to_pylist(), totals["value"].to_pylist(), strict=True))


def _among(rows: pa.Table, key: Sequence[str], wanted: Iterable[str]) -> pa.Table:
    return rows.filter(pc.is_in(_keys(rows, key), pa.array(sorted(wanted), pa.string())))


def _keys(rows: pa.Table, key: Sequence[str]) -> pa.ChunkedArray:
    return rows[key[0]] if len(key) == 1 else pc.binary_join_element_wise(*(rows[name] for name in key), "\n")
