"""What of a store a page shows."""

from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sgbench.analysis import Results
from sgbench.report.tables import Filters
from sgbench.report.tables.facts import Inventory, resolved
from sgbench.report.tables.stores import together


@dataclass(frozen=True)
class Chosen:
    """A store, and what of it was asked for.

    Attributes:
        whole: All of it, by which differences are judged.
        shown: What was asked for: its runs, and their scores, histories and plans.
        filters: With the very names of the store.
    """

    whole: Results
    shown: Results
    filters: Filters

    def of_runs(self, run_ids: Collection[str]) -> Results:
        """Return what is shown of some runs that have ended."""
        tables = (self.shown.runs, self.shown.scores, self.shown.history)
        return Results(*(_among(rows, "run_id", run_ids) for rows in tables))


def choose(results: Results, filters: Filters) -> Chosen:
    """Choose what is shown.

    Raises:
        InputError: If a filter names what the store does not have.
    """
    filters = resolved(filters, Inventory.of(together({"": results})).names)
    named = {"backbone": filters.backbones, "loss": filters.losses, "lambda": filters.lambdas, "seed": filters.seeds}
    asked = {column: values for column, values in named.items() if values is not None}
    trained = pc.equal(results.runs["kind"], "train")
    names = pc.if_else(trained, results.runs["backbone"], results.runs["name"])  # as tables call what was not trained
    called = results.runs.set_column(results.runs.schema.get_field_index("backbone"), "backbone", names)
    for column, wanted in asked.items():
        called = _among(called, column, wanted)
    ids = called["run_id"].to_pylist()
    runs, scores, history = (_among(rows, "run_id", ids) for rows in (results.runs, results.scores, results.history))
    for column, kept in (("dataset", filters.datasets), ("metric", filters.metrics)):
        scores = scores if kept is None else _among(scores, column, kept)
    planned = [
        plan for plan in results.planned if all(plan.run.get(column) in values for column, values in asked.items())
    ]
    return Chosen(results, Results(runs, scores, history, planned), filters)


def _among(rows: pa.Table, column: str, values: Collection[object]) -> pa.Table:
    return rows.filter(pc.is_in(rows[column], pa.array(list(values), rows[column].type)))
