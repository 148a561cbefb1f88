"""What of a store a page shows."""

from dataclasses import dataclass

from sgbench.analysis import Filters, Results, View


@dataclass(frozen=True)
class Chosen:
    """A store, and what of it was asked for.

    Attributes:
        whole: All of it, by which differences are judged.
        shown: What was asked for: its runs, and their scores, histories and plans.
        filters: With the very names of the store.
    """

    whole: View
    shown: View
    filters: Filters


def choose(results: Results, filters: Filters) -> Chosen:
    """Choose what is shown.

    Raises:
        InputError: If a filter names what the store does not have.
    """
    whole = View(results)
    filters = whole.resolved(filters)
    return Chosen(whole, whole.only(filters), filters)
