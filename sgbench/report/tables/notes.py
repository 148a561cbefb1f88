"""Notes that explain a table, one sentence each."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pyarrow.compute as pc

from sgbench.analysis.cells import Cell
from sgbench.analysis.view import Basis, Filters, Outcome, View, Why
from sgbench.core.words import listed, natural, plural, printable
from sgbench.report.tables.model import Protocol, metric_order
from sgbench.spec.sources import Sources, in_words, read_code
from sgbench.store.rows import RunKind

_PROVENANCE = {"device": "device", "workers": "number of workers", "versions": "package versions"}
"""Columns outside a run's identity that may still affect the last digit, and their names in notes."""


def about(view: View, outcomes: Collection[Outcome], cells: Iterable[Cell]) -> list[str]:
    """Return notes on the numbers: spread, scale, sizes of test sets, protocols, and differences between runs."""
    scored = [outcome for outcome in outcomes if outcome.basis]
    notes = []
    if any(cell.summary and cell.summary.sd is not None for cell in cells):
        notes.append("± is the sample standard deviation over seeds.")
    scales = {outcome.run.scale for outcome in outcomes}
    if len(scales) == 1:
        notes.append(f"The scale is ×{max(scales)}.")
    sizes = {(outcome.dataset, outcome.basis.n_images) for outcome in scored if outcome.basis}
    notes += [
        f"{dataset} has {plural(count, 'image')}."
        for dataset, count in sorted(sizes, key=lambda size: (natural(size[0]), size[1]))
    ]
    bases: defaultdict[str, Counter[tuple[Basis, bool]]] = defaultdict(Counter)
    for outcome in scored:
        if outcome.basis:
            bases[outcome.metric][outcome.basis, outcome.value is not None] += 1
    notes += [_about_metric(metric, bases[metric]) for metric in sorted(bases, key=metric_order)]
    notes += [*_missing_weights(scored), *_stale_metrics(view, {outcome.metric for outcome in scored})]
    return notes + _provenance(view, {outcome.run.run_id for outcome in scored})


def _about_metric(metric: str, bases: Mapping[tuple[Basis, bool], int]) -> str:
    with_number = {key: count for key, count in bases.items() if key[1]} or bases
    protocols = Counter[str]()
    for (basis, _), count in with_number.items():
        protocols[_words(basis)] += count
    if len(protocols) == 1:
        return Protocol(f"{metric}: {next(iter(protocols))}.")
    each = "; or ".join(f"{words} ({plural(count, 'score')})" for words, count in protocols.items())
    return f"{metric} mixes {len(protocols)} protocols, which cannot be compared: {each}."


def _missing_weights(outcomes: Iterable[Outcome]) -> list[str]:
    """Return one sentence for each missing network, however many metrics need it."""
    metrics: dict[str, set[str]] = {}
    for outcome in outcomes:
        if outcome.fate and outcome.fate.why is Why.NO_WEIGHTS and outcome.fate.reason:
            metrics.setdefault(_first_clause(outcome.fate.reason), set()).add(outcome.metric)
    needing = {reason: ", ".join(sorted(names, key=metric_order)) for reason, names in sorted(metrics.items())}
    return [
        f"no weights: {names}: {reason}; `sgbench weights list` says what to bring."
        for reason, names in needing.items()
    ]


def _stale_metrics(view: View, metrics: Collection[str]) -> list[str]:
    """Return a sentence on each metric that has scores of other code than it has now."""
    columns = ["metric", "metric_code"]
    rows = view.totals(Filters(metrics=sorted(metrics))).group_by(columns).aggregate([]).to_pylist()
    scored = [(row["metric"], row["metric_code"]) for row in rows if row["metric_code"]]
    now = Sources().of_metrics(metric for metric, _ in scored)
    stale = {metric for metric, code in scored if now.get(metric, code) != code}
    return [
        printable(f"{metric} has scores of other code than it has now, which a sweep or eval computes anew.")
        for metric in sorted(stale, key=metric_order)
    ]


def _first_clause(reason: str) -> str:
    """Return ``the inception weights are not on this machine`` without the addresses that follow."""
    return reason.partition(": ")[0].rstrip(".")


def _words(basis: Basis) -> str:
    """Return ``version 0.1; network AlexNet; no border crop``."""
    fields = {key.replace("_", " "): value for key, value in basis.fields.items() if key != "direction"}
    if not fields.get("weights"):
        fields.pop("weights", None)
    words = [f"version {basis.metric_version}", *(_word(key, value) for key, value in fields.items())]
    return printable("; ".join(words))


def _word(key: str, value: Any) -> str:
    if key == "weights":
        return "weights " + ", ".join(f"{network} {digest[:8]}" for network, digest in value.items())
    if value is None or value is False:
        return f"no {key}"
    return key if value is True else f"{key} {value}"


def _provenance(view: View, shown: Collection[str]) -> list[str]:
    rows = view.rows(Filters(runs=shown))
    trained = rows.filter(pc.equal(rows["kind"], RunKind.TRAIN))
    mixed = [what for column, what in _PROVENANCE.items() if len(trained[column].unique()) > 1]
    codes: defaultdict[str, set[str]] = defaultdict(set)
    for column in trained["code"].unique().to_pylist():
        for plugin, digest in read_code(column).items():
            codes[plugin].add(digest)
    if differing := [plugin for plugin, digests in sorted(codes.items()) if len(digests) > 1]:
        mixed.append(printable(f"the code of {in_words(differing)}"))
    return [f"The runs differ in {listed(mixed)}."] if mixed else []
