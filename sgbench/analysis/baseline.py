"""Which differences from L1 a table may call real."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from sgbench.analysis import Results
from sgbench.analysis.compare import REAL, UNDECIDABLE, Comparison, comparisons
from sgbench.report.tables.facts import Fact, Filters, Key
from sgbench.report.tables.model import REAL as SIGN

BASELINE = "l1"
"""The loss that differences are judged against."""

MOST = 100_000
"""Scores of single images that are read for it: reading them takes about a second."""


@dataclass(frozen=True)
class Judged:
    """The comparisons of what a table shows with `BASELINE`.

    Attributes:
        found: Each comparison, for each run that it is about, test set and metric.
        notes: What the signs mean, or why there are none.
    """

    found: Mapping[Key, Comparison] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def real(self, facts: Sequence[Fact]) -> bool | None:
        """Return whether the difference of a cell is real; none if that was not tested."""
        keys = {(fact.run.run_id, fact.dataset, fact.metric) for fact in facts}
        verdicts = {self.found[key].verdict for key in keys if key in self.found}
        return verdicts == {REAL} if verdicts else None


def judged(results: Results, facts: Iterable[Fact], filters: Filters, dimensions: Collection[str] = ()) -> Judged:
    """Compare what a table shows with `BASELINE`, each backbone, recipe and test set for itself.

    Verdicts are corrected for all that the store compares, shown or not.

    Args:
        results: What the facts are from, all seeds of it.
        facts: Those that are shown.
        filters: What they were chosen by.
        dimensions: By which cells are told apart.
    """
    facts = [fact for fact in facts if fact.run.kind == "train" and fact.row and fact.row.value is not None]
    there = set(results.runs.filter(pc.equal(results.runs["kind"], "train"))["loss"].unique().to_pylist())
    rivals = sorted({fact.run.loss for fact in facts} - {BASELINE})
    if BASELINE not in there or not rivals:
        return Judged()
    if len({fact.run.seed for fact in facts}) == 1:
        return Judged(notes=(f"With one seed no difference from {BASELINE} can be shown to be real.",))
    if filters.seeds is not None or filters.runs is not None or not {"seed", "store"}.isdisjoint(dimensions):
        told = f"Differences from {BASELINE} are judged by all seeds that there are, and not marked in cells of some."
        return Judged(notes=(told,))
    metrics = {rival: sorted({fact.metric for fact in facts if fact.run.loss == rival}) for rival in rivals}
    if _size(results, sorted(set().union(*metrics.values())), [BASELINE, *rivals]) > MOST:
        return Judged(
            notes=(f"With so many scores, `sgbench compare {BASELINE} LOSS` says which differences are real.",)
        )
    shown = {(fact.run.run_id, fact.dataset, fact.metric) for fact in facts}
    found = {
        key: comparison
        for rival in rivals
        for comparison in comparisons(results, BASELINE, rival, metrics=metrics[rival])
        if comparison.by_seed
        for run_id in comparison.runs_b
        if (key := (run_id, comparison.dataset, comparison.metric)) in shown
    }
    return Judged(found, (_told(list({id(each): each for each in found.values()}.values())),))


def _told(found: Sequence[Comparison]) -> str:
    if not found:
        return f"No loss shares two seeds with {BASELINE}, and so no difference can be shown to be real."
    undecided = sum(comparison.verdict == UNDECIDABLE for comparison in found)
    but = f"; of {len(found)} differences {undecided} cannot be decided with so few images" if undecided else ""
    if not any(comparison.verdict == REAL for comparison in found):
        return f"No difference from {BASELINE} is shown to be real{but}."
    return (
        f"{SIGN} differs from {BASELINE} beyond the noise of seeds and images (`sgbench compare`, p ≤ "
        f"{found[0].alpha:g} corrected){but}."
    )


def _size(results: Results, metrics: Sequence[str], losses: Sequence[str]) -> int:
    """Return how many scores of single images some losses may have, without reading them."""
    runs = results.runs.filter(pc.is_in(results.runs["loss"], pa.array(losses, pa.string())))
    totals = results.totals
    ours = pc.and_(
        pc.is_in(totals["run_id"], pa.array(runs["run_id"].to_pylist(), pa.string())),
        pc.is_in(totals["metric"], pa.array(metrics, pa.string())),
    )
    return int(pc.sum(totals.filter(ours)["n_images"]).as_py() or 0)
