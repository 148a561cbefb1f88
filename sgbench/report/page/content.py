"""The content of a page, gathered from a store."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sgbench import __version__
from sgbench.analysis import Filters, View
from sgbench.analysis.compare import Comparison, Verdict, comparisons
from sgbench.analysis.tunings import chances
from sgbench.analysis.view import BASELINE
from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.core.words import listed, natural, plural
from sgbench.data import PackedImages
from sgbench.report import tunings
from sgbench.report.compare import in_places, notes, sentence
from sgbench.report.figures.saved_images import SavedImages
from sgbench.report.page import summary
from sgbench.report.page.gallery import Gallery, gallery
from sgbench.report.page.grids import Grid, of_comparisons, of_failures, of_runs, of_tunings
from sgbench.report.page.pictures import Picture, pictures
from sgbench.report.page.summary import Finding
from sgbench.report.tables import Table, paper_table, pivot
from sgbench.report.tables.model import metric_order
from sgbench.report.tables.paper_layouts import OF, SG


@dataclass(frozen=True)
class Duel:
    """A loss against `BASELINE`.

    Attributes:
        loss: Its expression.
        findings: In words.
        grid: Every comparison.
        sentences: On each of them, without the reasons of what is inconclusive.
        notes: What the columns mean, and what is left out.
    """

    loss: str
    findings: Sequence[Finding]
    grid: Grid
    sentences: Sequence[str]
    notes: Sequence[str]


@dataclass(frozen=True)
class Content:
    """The content of a page, from top to bottom.

    Attributes:
        title: Title of the page.
        about: Facts about the store, by label.
        counted: The status of the runs, in a sentence.
        duels: Each loss against `BASELINE`, if any seed has scores of both.
        remarks: What cannot be compared, and why comparisons are inconclusive, one sentence each.
        tables: Tables of scores, each with the notes that the tables do not all share.
        notes: Notes that all tables share.
        tunings: What each loss was given by a search for its settings.
        about_tunings: How it was searched, and what the columns mean.
        pictures: Figures.
        gallery: Images to compare.
        runs: Every run.
        failures: Failed runs.
    """

    title: str
    about: Mapping[str, str]
    counted: str
    duels: Sequence[Duel]
    remarks: Sequence[str]
    tables: Sequence[Table]
    notes: Sequence[str]
    tunings: Sequence[Grid]
    about_tunings: Sequence[str]
    pictures: Sequence[Picture]
    gallery: Gallery
    runs: Grid
    failures: Grid


def gather(
    view: View, filters: Filters, storage: Storage, title: str, hr: Sequence[tuple[str, PackedImages]], images: int
) -> Content:
    """Gather the content of a page.

    Args:
        view: A store.
        filters: What of it is shown, resolved; differences are judged by all that the store has.
        storage: Where it lies, with its saved images.
        title: The page's.
        hr: Test sets whose HR images are available locally, each with how the person wrote it.
        images: The most of each test set that are shown.

    Raises:
        InputError: If a saved image cannot be read.
    """
    tables = _tables(view, filters)
    common = [note for note in tables[0].notes if all(note in table.notes for table in tables)]
    duels, remarks = _duels(view, filters)
    tuned = chances(view.results.tunings)
    saved = [SavedImages(storage, packed, reference) for reference, packed in hr]
    return Content(
        title=title,
        about=_about(view, filters, storage),
        counted=summary.counted(view, filters),
        duels=duels,
        remarks=[*remarks, *summary.without_numbers(view, filters)],
        tables=[replace(table, notes=tuple(note for note in table.notes if note not in common)) for table in tables],
        notes=common,
        tunings=list(map(of_tunings, tunings.grids(tuned))),
        about_tunings=tunings.notes(tuned),
        pictures=pictures(view, filters, saved, (BASELINE, SG)),
        gallery=gallery(view, filters, storage, [packed for _, packed in hr], images),
        runs=of_runs(view, filters),
        failures=of_failures(view, filters),
    )


def _about(view: View, filters: Filters, storage: Storage) -> dict[str, str]:
    rows = view.rows(filters).select(["finished", "git_revision", "device", "host", "versions"]).to_pylist()
    finished = [row["finished"] for row in rows if row["finished"]]
    torch = [json.loads(row["versions"] or "{}").get("torch") for row in rows]
    several = {
        "Devices": [row["device"] for row in rows],
        "Hosts": [row["host"] for row in rows],
        "PyTorch": torch,
        "Revisions of sgbench": [row["git_revision"] for row in rows],
    }
    about = {"Store": storage.root}
    if finished:
        about["Newest run"] = f"{max(finished):%Y-%m-%d %H:%M} UTC"
    about |= {name: listed(sorted(set(filter(None, values)), key=natural)) for name, values in several.items()}
    about["sgbench of this page"] = __version__
    return {name: text for name, text in about.items() if text}


def _duels(view: View, filters: Filters) -> tuple[list[Duel], list[str]]:
    """Return each loss against `BASELINE`, and what cannot be compared.

    `SG` comes first, and then those by which most can be decided.
    """
    rivals = sorted({run.loss for run in view.runs(filters) if run.trained} - {BASELINE}, key=natural)
    if not rivals or BASELINE not in view.names.losses:
        return [], [f"To be compared, losses need runs with {BASELINE} and with another one."]
    found = {rival: _cells(view, filters, rival) for rival in rivals}
    paired = {rival: [cell for cell in cells if cell.seeds] for rival, cells in found.items()}
    waiting = [rival for rival, cells in paired.items() if not cells]
    decided = {
        rival: sum(cell.verdict is not Verdict.INCONCLUSIVE for cell in cells)
        for rival, cells in paired.items()
        if cells
    }
    duels = [
        _duel(paired[rival], len(found[rival]) - len(paired[rival]))
        for rival in sorted(decided, key=lambda rival: (rival != SG, -decided[rival], natural(rival)))
    ]
    unpaired = f"Not compared, for no seed has scores of both {view.label(BASELINE)} and the other"
    remarks = [f"{unpaired}: {listed(map(view.label, waiting))}."] if waiting else []
    remarks += in_places("Inconclusive", ((cell, cell.reason) for cells in paired.values() for cell in cells))
    if duels and filters.seeds is not None:
        remarks.append("Losses are compared by all seeds of the store, also by those that are not shown.")
    return duels, remarks


def _cells(view: View, filters: Filters, rival: str) -> list[Comparison]:
    """Return the comparisons of a loss to show; their p values are corrected for all those in the store."""
    try:
        cells = comparisons(view, BASELINE, rival)
    except InputError:  # neither has been scored, nor is to be
        return []
    return [
        cell
        for cell in sorted(cells, key=lambda cell: metric_order(cell.metric))
        if (filters.metrics is None or cell.metric in filters.metrics)
        and (filters.datasets is None or cell.dataset in filters.datasets)
        and (filters.backbones is None or cell.backbone in filters.backbones)
    ]


def _duel(cells: Sequence[Comparison], unpaired: int) -> Duel:
    """Return a duel from its comparisons, each with at least one seed that has both scores."""
    places = f"{plural(unpaired, 'place')} where no seed has both scores {'is' if unpaired == 1 else 'are'} left out"
    return Duel(
        loss=cells[0].b,
        findings=summary.findings(cells),
        grid=of_comparisons(cells),
        sentences=[sentence(cell, reason=False) for cell in cells],
        notes=[*notes(cells), *([f"{places}; `sgbench compare` says why."] if unpaired else [])],
    )


def _tables(view: View, filters: Filters) -> list[Table]:
    """Return the tables of the paper for which every loss has numbers, and one of everything shown."""
    tables = [pivot(view, filters)]
    if filters.losses is None and filters.lambdas is None and filters.seeds is None:
        tables = [*(table for number in OF for table in _of_paper(number, view, filters)), *tables]
    return tables


def _of_paper(number: str, view: View, filters: Filters) -> list[Table]:
    """Return a table of the paper, if it has a place for what is shown and every loss in it has numbers."""
    try:
        table = paper_table(number, view, filters=filters)
    except InputError:  # of one backbone or test set too many, or of none
        return []
    return [table] if _is_filled(table) else []


def _is_filled(table: Table) -> bool:
    by_loss: dict[str, bool] = {}
    for cell in table.cells:
        loss = cell.place["loss"]
        by_loss[loss] = by_loss.get(loss, False) or cell.summary is not None
    return bool(by_loss) and all(by_loss.values())
