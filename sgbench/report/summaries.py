"""Tables and comparisons of a store for programs and notebooks, without torch."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sgbench.analysis import Filters, Results, View, load_results
from sgbench.analysis.agreement import agreements
from sgbench.analysis.compare import ALPHA
from sgbench.core.storage import absolute
from sgbench.report import agreement as agreeing
from sgbench.report import compare as comparison
from sgbench.report import tables
from sgbench.report.shown import Shown

Folder = str | os.PathLike[str]
"""A results store: a folder or a URI."""


def compare(
    results: Results | Folder,
    a: str,
    b: str,
    *,
    metrics: str | Iterable[str] = (),
    backbones: str | Iterable[str] = (),
    tests: str | Iterable[str] = (),
    alpha: float = ALPHA,
    anytime: bool = False,
    g: float | None = None,
    equivalent: float | None = None,
) -> Shown:
    """Compare two losses, like ``sgbench compare``: effect size, and whether it is significant.

    Runs are paired by seed, for every backbone that has both losses; see `sgbench.analysis.compare.comparisons`.

    Args:
        results: From `sgbench.sweep` or `sgbench.load_results`, or a store.
        a: The loss to compare against, such as ``"l1"``.
        b: The loss to compare.
        metrics: Only these; by default ``lpips_alex``, or all if there is none.
        backbones: Only these; p values stay corrected for every backbone and test set in the store.
        tests: Only these test sets.
        alpha: Significance level: the probability of any false positive.
        anytime: Whether to use tests that hold however often one looks and adds seeds, even where nothing says that one
            has.
        g: For these tests, the prior variance of the effect, in squared standard deviations of the seeds' differences;
            4 by default. What was declared keeps its own.
        equivalent: Also test whether the losses are equivalent: whether they differ by less than this margin, in the
            unit of the metric, of which one has to be named.

    Returns:
        A comparison for each metric, recipe, test set and backbone. A notebook shows a table and what it means,
        ``print`` shows them as text, and `Shown.to_pandas` has every number.

    Raises:
        InputError: If a name is unknown, neither loss has been scored, ``alpha``, ``g`` or ``equivalent`` is out of
            range, or ``equivalent`` is given without its metric.
    """
    cells = comparison.compared(
        View(_results(results)),
        a,
        b,
        metrics=many(metrics) or None,
        backbones=many(backbones) or None,
        tests=many(tests) or None,
        alpha=alpha,
        anytime=anytime,
        g=g,
        equivalent=equivalent,
    )
    return comparison.shown(cells)


def table(
    results: Results | Folder | Mapping[str, Results],
    number: int | str | None = None,
    *,
    show: str = tables.OURS,
    rows: Sequence[str] = tables.ROWS,
    columns: Sequence[str] = tables.COLUMNS,
    rank: str | None = None,
    backbones: str | Iterable[str] = (),
    losses: str | Iterable[str] = (),
    lambdas: float | Iterable[float] = (),
    seeds: int | Iterable[int] = (),
    tests: str | Iterable[str] = (),
    metrics: str | Iterable[str] = (),
) -> Shown:
    """Summarise scores as mean ± sample standard deviation over seeds, like ``sgbench table``.

    Args:
        results: From `sgbench.sweep` or `sgbench.load_results`, or a store; or several, by label.
        number: Number of a table of the paper: 1, 2, 3 or 5; by default a table of ``rows`` and ``columns``.
        show: Whose numbers a table of the paper has: ``ours``, ``paper`` or ``both``.
        rows: Any of dataset, store, scale, backbone, loss, lambda, recipe, seed and metric.
        columns: Any of the same.
        rank: A metric by which losses are sorted and ranked; where no difference is significant, ranks are ranges.
        backbones: Only these.
        losses: Only these; tables of the paper have fixed losses, λ and seeds.
        lambdas: Only these values of λ.
        seeds: Only these.
        tests: Only these test sets.
        metrics: Only these.

    Returns:
        The table. A notebook shows it, ``print`` shows it as text, and `Shown.to_pandas` has a row for each cell.

    Raises:
        InputError: If a name is unknown.
    """
    view = View(results if isinstance(results, Mapping) else _results(results))
    filters = Filters(
        backbones=many(backbones) or None,
        losses=many(losses) or None,
        lambdas=many(lambdas) or None,
        seeds=many(seeds) or None,
        datasets=many(tests) or None,
        metrics=many(metrics) or None,
    )
    if number is None:
        return tables.shown(tables.pivot(view, filters, rows=rows, columns=columns, rank=rank))
    return tables.shown(tables.paper_table(str(number), view, show, filters))


def agreement(
    results: Results | Folder,
    *,
    metrics: str | Iterable[str] = (),
    backbones: str | Iterable[str] = (),
    losses: str | Iterable[str] = (),
    tests: str | Iterable[str] = (),
    baseline: str | None = None,
    alpha: float = ALPHA,
) -> Shown:
    """Show whether metrics agree on which losses are better, like ``sgbench metrics agree``.

    Args:
        results: From `sgbench.sweep` or `sgbench.load_results`, or a store.
        metrics: Only these.
        backbones: Only these.
        losses: Only these; p values stay corrected for every loss in the store.
        tests: Only these test sets.
        baseline: The loss that others are compared with; by default ``l1``.
        alpha: Significance level: the probability of any false positive.

    Returns:
        Kendall's τ of every two metrics, over losses and in single images, with confidence intervals, and by which
        metrics each loss is better or worse than the baseline. A notebook shows tables and what they mean, ``print``
        shows them as text, and `Shown.to_pandas` has a row for every two metrics.

    Raises:
        InputError: If a name is unknown, there is nothing to compare, or ``alpha`` is out of range.
    """
    filters = Filters(
        backbones=many(backbones) or None,
        losses=many(losses) or None,
        datasets=many(tests) or None,
        metrics=many(metrics) or None,
    )
    return agreeing.shown(agreements(View(_results(results)), filters, baseline=baseline, alpha=alpha))


def many(value: Any) -> list[Any]:
    """Return one value or several as a list; a string is one value."""
    return [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)


def _results(results: Results | Folder) -> Results:
    return results if isinstance(results, Results) else load_results(absolute(os.fspath(results)))
