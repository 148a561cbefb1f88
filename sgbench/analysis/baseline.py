"""Which differences from L1 are significant, of what a table shows."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow.compute as pc

from sgbench.analysis.compare import Comparison, Verdict, comparisons
from sgbench.analysis.view import ALL, BASELINE, Filters, Key, Outcome, View
from sgbench.core.words import plural

SIGN = "*"
"""Stands behind a mean that differs significantly from that of `BASELINE`."""

MOST = 100_000
"""Scores of single images that are read for it: reading them takes about a second."""


@dataclass(frozen=True)
class Significance:
    """The comparisons of what a table shows with `BASELINE`.

    Attributes:
        found: Each comparison, for each run that it is about, test set and metric.
        notes: What the signs mean, or why there are none.
    """

    found: Mapping[Key, Comparison] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def of(self, outcomes: Sequence[Outcome]) -> bool | None:
        """Return whether the difference of a cell is significant; none if that was not tested."""
        keys = {(outcome.run.run_id, outcome.dataset, outcome.metric) for outcome in outcomes}
        verdicts = {self.found[key].verdict for key in keys if key in self.found}
        return verdicts == {Verdict.SIGNIFICANT} if verdicts else None


def against_baseline(
    view: View, outcomes: Iterable[Outcome], filters: Filters = ALL, dimensions: Collection[str] = ()
) -> Significance:
    """Compare what a table shows with `BASELINE`, each backbone, recipe and test set for itself.

    Verdicts are corrected for all that the store compares, shown or not.

    Args:
        view: What the outcomes are from, all seeds of it.
        outcomes: Those that are shown.
        filters: What they were chosen by.
        dimensions: Those of the rows and columns.
    """
    outcomes = [each for each in outcomes if each.run.trained and each.value is not None]
    rivals = sorted({each.run.loss for each in outcomes} - {BASELINE})
    if not rivals or not view.rows(Filters(losses=[BASELINE])).num_rows:
        return Significance()
    if len({each.run.seed for each in outcomes}) == 1:
        return Significance(notes=(f"With one seed, no difference from {BASELINE} can be tested.",))
    if filters.seeds is not None or filters.runs is not None or not {"seed", "store"}.isdisjoint(dimensions):
        return Significance(
            notes=(f"Differences from {BASELINE} are tested over all seeds, and not marked in cells of some.",)
        )
    places = sorted({(each.run.loss, each.metric) for each in outcomes})
    metrics = {rival: [metric for loss, metric in places if loss == rival] for rival in rivals}
    if _size(view, sorted(set().union(*metrics.values())), [BASELINE, *rivals]) > MOST:
        told = f"With so many scores, `sgbench compare {BASELINE} LOSS` says which differences are significant."
        return Significance(notes=(told,))
    shown = {(each.run.run_id, each.dataset, each.metric) for each in outcomes}
    found = {
        key: comparison
        for rival in rivals
        for comparison in comparisons(view, BASELINE, rival, metrics=metrics[rival])
        if comparison.by_seed
        for run_id in comparison.runs_b
        if (key := (run_id, comparison.dataset, comparison.metric)) in shown
    }
    return Significance(found, (_told(list({id(each): each for each in found.values()}.values())),))


def _told(found: Sequence[Comparison]) -> str:
    if not found:
        return f"No loss shares two seeds with {BASELINE}, and so no difference can be tested."
    verdicts = [comparison.verdict for comparison in found]
    open_ = verdicts.count(Verdict.INCONCLUSIVE)
    rest = (
        f"; {open_} of {plural(len(found), 'difference')} {'is' if open_ == 1 else 'are'} inconclusive: too few images"
    )
    if Verdict.SIGNIFICANT in verdicts:
        test = f"`sgbench compare`, corrected p ≤ {found[0].alpha:g}"
        return f"{SIGN} significantly different from {BASELINE} ({test}){rest if open_ else ''}."
    return f"No difference from {BASELINE} is significant{rest if open_ else ''}."


def _size(view: View, metrics: Sequence[str], losses: Sequence[str]) -> int:
    """Return how many scores of single images some losses may have, without reading them."""
    return int(pc.sum(view.totals(Filters(losses=losses, metrics=metrics))["n_images"]).as_py() or 0)
