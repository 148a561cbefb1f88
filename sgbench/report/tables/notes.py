"""What has to be known to read a table: one sentence each."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sgbench.analysis import Results
from sgbench.analysis.naming import natural
from sgbench.report.tables.facts import Fact, Score, protocol
from sgbench.report.tables.model import Cell, listed, metric_order, plural

_PROVENANCE = {"device": "device", "workers": "number of workers", "versions": "package versions"}
"""Columns that are not identity and may still move the last digit, and what notes call them."""


class _Kind(NamedTuple):
    """What scores have in common that notes tell."""

    dataset: str
    n_images: int
    metric: str
    metric_version: str
    protocol: str
    status: str
    reason: str | None


def about(results: Results, facts: Collection[Fact], cells: Iterable[Cell]) -> list[str]:
    """Return what numbers are: their spread, scale, sizes of test sets, protocols, and what their runs differ in."""
    kinds = Counter(map(_kind, (fact.row for fact in facts if fact.row)))
    notes = []
    if any(cell.summary and cell.summary.sd is not None for cell in cells):
        notes.append("± is the sample standard deviation over seeds.")
    scales = {fact.run.scale for fact in facts}
    if len(scales) == 1:
        notes.append(f"The scale is ×{max(scales)}.")
    sizes = {(kind.dataset, kind.n_images) for kind in kinds}
    notes += [
        f"{dataset} has {plural(count, 'image')}."
        for dataset, count in sorted(sizes, key=lambda size: (natural(size[0]), size[1]))
    ]
    for metric in sorted({kind.metric for kind in kinds}, key=metric_order):
        notes.append(_about_metric(metric, {kind: count for kind, count in kinds.items() if kind.metric == metric}))
    return notes + _missing_weights(kinds) + _provenance(results.runs, {fact.run.run_id for fact in facts if fact.row})


def _kind(row: Score) -> _Kind:
    return _Kind(row.dataset, row.n_images, row.metric, row.metric_version, row.protocol, row.status, row.reason)


def _about_metric(metric: str, kinds: Mapping[_Kind, int]) -> str:
    scored = {kind: count for kind, count in kinds.items() if kind.status == "ok"} or kinds
    protocols = Counter[tuple[str, str]]()
    for kind, count in scored.items():
        protocols[kind.metric_version, kind.protocol] += count
    if len(protocols) == 1:
        return f"{metric}: {_words(*next(iter(protocols)))}."
    each = "; or ".join(f"{_words(*protocol)} ({plural(count, 'score')})" for protocol, count in protocols.items())
    return f"{metric} mixes {len(protocols)} protocols, which cannot be compared: {each}."


def _missing_weights(kinds: Iterable[_Kind]) -> list[str]:
    """Return a sentence for each network that is missing, whatever the number of metrics that need it."""
    metrics: dict[str, set[str]] = {}
    for kind in kinds:
        if kind.status == "no weights" and kind.reason:
            metrics.setdefault(_first_clause(kind.reason), set()).add(kind.metric)
    needing = {reason: ", ".join(sorted(names, key=metric_order)) for reason, names in sorted(metrics.items())}
    return [
        f"no weights: {names}: {reason}; `sgbench weights list` says what to bring."
        for reason, names in needing.items()
    ]


def _first_clause(reason: str) -> str:
    """Return ``the inception weights are not on this machine`` without the addresses that follow."""
    return reason.partition(": ")[0].rstrip(".")


def _words(version: str, text: str) -> str:
    """Return ``version 0.1; network AlexNet; no border crop``."""
    fields = {key.replace("_", " "): value for key, value in protocol(text).items() if key != "direction"}
    if not fields.get("weights"):
        fields.pop("weights", None)
    return "; ".join([f"version {version}", *(_word(key, value) for key, value in fields.items())])


def _word(key: str, value: Any) -> str:
    if key == "weights":
        return "weights " + ", ".join(f"{network} {digest[:8]}" for network, digest in value.items())
    if value is None or value is False:
        return f"no {key}"
    return key if value is True else f"{key} {value}"


def _provenance(runs: pa.Table, shown: Collection[str]) -> list[str]:
    trained = runs.filter(
        pc.and_(pc.equal(runs["kind"], "train"), pc.is_in(runs["run_id"], pa.array(sorted(shown), pa.string())))
    )
    mixed = [what for column, what in _PROVENANCE.items() if len(trained[column].unique()) > 1]
    return [f"The runs differ in {listed(mixed)}."] if mixed else []
