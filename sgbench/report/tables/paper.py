"""Tables 1, 2, 3 and 5 as the paper lays them out, with the numbers of stores, of the paper, or both."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sgbench.analysis.baseline import against_baseline
from sgbench.analysis.cells import Cell
from sgbench.analysis.view import ALL, Filters, View, chosen, directions
from sgbench.core.errors import InputError, unknown
from sgbench.core.words import listed
from sgbench.metrics import display_of
from sgbench.report.tables.candidates import Candidates, candidates, trained
from sgbench.report.tables.model import Column, Line, Table, finished
from sgbench.report.tables.notes import about
from sgbench.report.tables.paper_layouts import FAMILIES, METRICS, OF, Layout, Subject, crossed, family, layout
from sgbench.report.tables.paper_numbers import UNSTATED, PaperNumbers

OURS, PAPER, BOTH = "ours", "paper", "both"
SHOW = (OURS, PAPER, BOTH)

IDENTITY = (
    "Tables 1, 2, 3 and 5 name 23 runs, of which 18 are different: what several tables name is one run and stands in "
    "each."
)
ABOUT_TRIALS = {
    "2": [
        "Trial k is seed k − 1; the mean, which the paper does not print, is ± the sample standard deviation of trials."
    ]
}
OTHER_NETWORKS = "Ours are not the paper's networks: compare what a loss changes, not the values."

_SHOWN = {(OURS,): "ours", (PAPER,): "the paper's", (OURS, PAPER): "ours and the paper's"}

Place = Mapping[str, Any]


def paper_table(number: str, view: View | None = None, show: str = OURS, filters: Filters = ALL) -> Table:
    """Lay out a table as the paper does.

    Args:
        number: Of the paper's table: ``1``, ``2``, ``3`` or ``5``.
        view: One store or several; none for the paper's numbers alone.
        show: One of `SHOW`.
        filters: Backbones, test sets and metrics other than the usual ones; see `candidates`.

    Raises:
        InputError: If there is no such table, a filter asks for what is not there, or several backbones are asked for
            where there is room for one.
    """
    if number not in OF:
        raise unknown("table", number, OF)
    if show not in SHOW:
        raise unknown("choice of --show", show, SHOW)
    asked = list(filters.backbones or ())
    if number != "1" and len(asked) > 1:
        raise InputError(f"table {number} is of one backbone, and --backbone names {len(asked)}: {', '.join(asked)}.")
    printed = PaperNumbers.of(number)
    if view is None or show == PAPER:
        return _of_paper(number, printed, filters)
    return _of_stores(number, printed, view, show, filters)


def _of_paper(number: str, printed: PaperNumbers, filters: Filters) -> Table:
    subject = Subject(
        _titles(_picked("backbone", filters.backbones, printed.backbones)),
        _picked("test set", filters.datasets, printed.datasets),
        {metric: display_of(metric).direction for metric in _picked("metric", filters.metrics, printed.metrics)},
        (PAPER,),
    )
    drawn = layout(number, subject)
    return _table(drawn, subject, _lines(drawn, {PAPER: printed.cell}), [*ABOUT_TRIALS.get(number, ()), UNSTATED])


def _of_stores(number: str, printed: PaperNumbers, view: View, show: str, filters: Filters) -> Table:
    chosen("backbone", filters.backbones, view.names.backbones)
    metrics = chosen("metric", filters.metrics, view.names.metrics) or list(METRICS)
    ours = candidates(number, view, metrics, filters.backbones)
    datasets = _datasets(ours, printed, filters, both=show == BOTH)
    ours = ours.on(datasets)
    ways = directions(ours.outcomes)
    subject = Subject(
        ours.backbones or _titles(printed.backbones),
        datasets,
        {metric: ways.get(metric) or display_of(metric).direction for metric in metrics},
        (OURS, PAPER) if show == BOTH else (OURS,),
    )
    drawn, significance = layout(number, subject), against_baseline(view, ours.outcomes)
    lines = _lines(drawn, {OURS: lambda place: ours.cell(place, significance), PAPER: printed.cell})
    notes = list(ABOUT_TRIALS.get(number, ()))
    if ours.outcomes:
        notes.append(trained(ours.outcomes))
    if show == BOTH:
        notes += [UNSTATED, *_other_networks(ours)]
    notes += [*_lacking(subject, printed, filters), *ours.notes, *significance.notes, *view.disagreements]
    notes += about(view, ours.outcomes, [cell for line in lines for cell in line.cells])
    return _table(drawn, subject, lines, [*notes, IDENTITY])


def _lines(drawn: Layout, sources: Mapping[str, Callable[[Place], Cell]]) -> list[Line]:
    """Return the lines, but those for which the paper has nothing."""
    lines = []
    for labels, place, _ in crossed(drawn.rows):
        cells = [sources[place["source"]]({**place, **at}) for _, at, _ in crossed(drawn.columns)]
        if place["source"] == PAPER and not any(cell.summary for cell in cells):
            continue
        first = cells[0].place
        shared = {name for name in first if all(cell.place.get(name) == first[name] for cell in cells)}
        lines.append(Line(labels, {name: first[name] for name in first if name in shared}, tuple(cells)))
    return lines


def _table(drawn: Layout, subject: Subject, lines: Sequence[Line], notes: Sequence[str]) -> Table:
    told = [axis for axis in drawn.rows if axis.shown]
    lines, about_cells = finished(lines, subject.metrics)
    return Table(
        title=f"{drawn.title} ({_SHOWN[subject.sources]})",
        heads=tuple(axis.head for axis in told),
        titles=tuple(axis.title for axis in told),
        columns=tuple(
            Column(tuple(map(str, place.values())), labels, group) for labels, place, group in crossed(drawn.columns)
        ),
        lines=lines,
        notes=(*about_cells, *notes),
        directions=subject.metrics,
    )


def _picked(kind: str, asked: Sequence[str] | None, there: Sequence[str]) -> list[str]:
    labels = chosen(kind, asked, there)
    return [name for name in there if labels is None or name in labels]


def _titles(backbones: Sequence[str]) -> dict[str, str]:
    return {name: FAMILIES[family(name)] for name in backbones}


def _datasets(ours: Candidates, printed: PaperNumbers, filters: Filters, *, both: bool) -> list[str]:
    """Return the test sets to show: those of ours, and beside them the paper's, if they have none in common."""
    plain = {name.partition("@")[0] for name in ours.datasets}
    of_paper = [name for name in printed.datasets if both and name not in plain]
    if filters.datasets is not None:
        return _picked("test set", filters.datasets, [*ours.datasets, *of_paper])
    return ours.datasets + ([] if plain & set(printed.datasets) else of_paper)


def _lacking(subject: Subject, printed: PaperNumbers, filters: Filters) -> list[str]:
    """Return what the paper's table has and this one lacks, unless it was asked for less."""
    there = {name.partition("@")[0] for name in subject.datasets}
    families = {family(name) for name in subject.backbones}
    sets = [name for name in printed.datasets if name not in there] if filters.datasets is None else []
    titles = [title for name, title in _titles(printed.backbones).items() if family(name) not in families]
    no_set = len(sets) == len(printed.datasets)
    missing = [*(titles if filters.backbones is None else []), *([] if no_set else sets)]
    told = [f"The paper's table is of {listed(sets)}."] if no_set else []
    return [*told, *([f"The paper's table also has {listed(missing)}."] if missing else [])]


def _other_networks(ours: Candidates) -> list[str]:
    return [OTHER_NETWORKS] if any(not name.endswith("-paper") for name in ours.backbones) else []
