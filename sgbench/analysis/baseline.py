"""Which differences from L1 in a table are significant."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow.compute as pc

from sgbench.analysis.compare import Comparison, Verdict, comparisons
from sgbench.analysis.view import ALL, BASELINE, Filters, Key, Outcome, View
from sgbench.core.words import plural

SIGN = "*"
"""Follows a mean that differs significantly from that of `BASELINE`."""

MOST = 100_000
"""The most scores of single images to read for this, which takes about a second."""

_SOME_SEEDS = f"Differences from {BASELINE} are tested over all seeds, so cells with only some are not marked."


@dataclass(frozen=True)
class Significance:
    """The comparisons with `BASELINE` behind a table.

    Attributes:
        found: The comparison by run, test set and metric.
        notes: What the stars mean, or why there are none.
    """

    found: Mapping[Key, Comparison] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def of(self, outcomes: Sequence[Outcome]) -> bool | None:
        """Return whether the difference of a cell is significant; None if it was not tested."""
        keys = {(outcome.run.run_id, outcome.dataset, outcome.metric) for outcome in outcomes}
        verdicts = {self.found[key].verdict for key in keys if key in self.found}
        return verdicts == {Verdict.SIGNIFICANT} if verdicts else None


def against_baseline(
    view: View, outcomes: Iterable[Outcome], filters: Filters = ALL, dimensions: Collection[str] = ()
) -> Significance:
    """Compare the losses in a table with `BASELINE`, separately for each backbone, recipe and test set.

    Verdicts are corrected for every comparison in the store, shown or not.

    Args:
        view: The view that the outcomes are from, with all its seeds.
        outcomes: The outcomes in the table.
        filters: The filters that selected them.
        dimensions: The dimensions of the rows and columns.
    """
    outcomes = [each for each in outcomes if each.run.trained and each.value is not None]
    rivals = sorted({each.run.loss for each in outcomes} - {BASELINE})
    if not rivals or not view.rows(Filters(losses=[BASELINE])).num_rows:
        return Significance()
    if len({each.run.seed for each in outcomes}) == 1:
        return Significance(notes=(f"With one seed, no difference from {BASELINE} can be tested.",))
    if filters.seeds is not None or not {"seed", "store"}.isdisjoint(dimensions):
        return Significance(notes=(_SOME_SEEDS,))
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
    if filters.runs is not None:
        whole = {
            key: comparison
            for key, comparison in found.items()
            if {*comparison.runs_a, *comparison.runs_b} <= {*filters.runs}
        }
        if len(whole) < len(found):
            return Significance(whole, (*((_told(whole.values()),) if whole else ()), _SOME_SEEDS))
    return Significance(found, (_told(found.values()),))


def _told(marked: Iterable[Comparison]) -> str:
    found = list({id(each): each for each in marked}.values())  # one comparison has a key for each of its runs
    if not found:
        return f"No loss shares two seeds with {BASELINE}, so no difference can be tested."
    verdicts = [comparison.verdict for comparison in found]
    open_ = verdicts.count(Verdict.INCONCLUSIVE)
    rest = (
        f"; {open_} of {plural(len(found), 'difference')} {'is' if open_ == 1 else 'are'} inconclusive: too few images"
    )
    if Verdict.SIGNIFICANT in verdicts:
        levels = " or ".join(sorted({f"{comparison.alpha:g}" for comparison in found}))
        anytime = ", anytime-valid" if all(comparison.sequences for comparison in found) else ""
        test = f"`sgbench compare`, corrected p ≤ {levels}{anytime}"
        return f"{SIGN} significantly different from {BASELINE} ({test}){rest if open_ else ''}."
    return f"No difference from {BASELINE} is significant{rest if open_ else ''}."


def _size(view: View, metrics: Sequence[str], losses: Sequence[str]) -> int:
    """Return an upper bound on the number of scores of single images, without reading them."""
    return int(pc.sum(view.totals(Filters(losses=losses, metrics=metrics))["n_images"]).as_py() or 0)
