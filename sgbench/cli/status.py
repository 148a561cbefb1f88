"""``sgbench status``: the progress of sweeps, read from their store or from the cluster they were submitted to."""

import functools
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgbench.cli import options
from sgbench.core.words import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sgbench.runs.progress import Running
    from sgbench.store import Store

EXAMPLES = (
    "sgbench status",
    "sgbench status --results s3://bucket/results --json",
    "sgbench status --address http://127.0.0.1:8265",
    "sgbench status sgbench-quick-20260101-120000",
)


def status(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Id of a job. Default: all.")] = None,
    results: options.Results = None,
    address: options.Dashboard = None,
    as_json: options.Json = False,
) -> None:
    """Show the progress of the sweeps in a store or, with --address or JOB, the jobs of a cluster.

    The store is enough, from any machine and even if the cluster is gone: it shows how many runs of each sweep are
    done, to score, running, resumable, out of their budget of hours, to do and failed, what the running ones are doing,
    and which command is using the store.
    """
    from sgbench.core.errors import InputError

    if job is None and address is None:
        _show_store(options.find_store(results), as_json=as_json)
    elif results is None:
        _show_jobs(job, address, as_json=as_json)
    else:
        raise InputError("status shows either a store or jobs of a cluster; give --results, or JOB and --address.")


def _show_jobs(job: str | None, address: str | None, *, as_json: bool) -> None:
    from sgbench.cluster.jobs import Jobs

    jobs = Jobs(address)
    shown = jobs.list() if job is None else [jobs.get(job)]

    from sgbench.cli import output  # only once the cluster has answered: this takes longer to load

    if as_json:
        output.print_json([vars(each) for each in shown])
        return
    if not shown:
        output.say("No sweep has been submitted to this cluster.")
        return
    rows = [
        {
            "job": each.id,
            "sweep": each.sweep or each.command,
            "flags": each.flags,
            "results": each.results,
            "status": each.status,
            "started": f"{each.started:%Y-%m-%d %H:%M} UTC" if each.started else None,
            "for": duration(each.took.total_seconds()) if each.took else None,
        }
        for each in shown
    ]
    output.print_rows(rows, as_json=False)


def _show_store(root: str, *, as_json: bool) -> None:
    from sgbench.analysis import View, load_results
    from sgbench.analysis.decisions import decisions
    from sgbench.cli import output
    from sgbench.core.errors import InputError
    from sgbench.core.lease import in_words
    from sgbench.core.storage import Storage
    from sgbench.report.decisions import rows as decision_rows
    from sgbench.runs.progress import read_progress
    from sgbench.store import Store
    from sgbench.store.layout import PLANS

    storage = Storage(root)
    if not storage.exists(PLANS):
        raise InputError(f"'{root}' has no record of a sweep: the folder '{PLANS}' is missing.")
    store = Store(storage)
    holders = storage.holders()
    at_work = list(read_progress(storage, holders))
    running = {run_id: run for each in at_work for run_id, run in each.runs.items()}
    (rows, exhausted), unchecked = _counts(store, running), _unchecked(store)
    view = View(load_results(root))
    decided = [each for declaration in store.declarations() for each in decisions(view, declaration)]
    holder, kind = (in_words(holders), storage.locks.kind) if holders else (None, None)
    seconds: dict[str, float | None] = {}
    for each in at_work:  # several shards of a sweep may be
        seconds[each.sweep] = max(each.seconds_left or 0.0, seconds.get(each.sweep) or 0.0) or None
    if as_json:
        doing = [_facts(run_id, run, each.sweep) for each in at_work for run_id, run in each.runs.items()]
        told = {"in_use_by": holder, "lock": kind, "seconds_left": seconds, "labels": store.labels()}
        output.print_json(
            {"store": storage.root, **told, "sweeps": rows, "running": doing, "unchecked_metrics": unchecked}
            | {"decisions": [each.row for each in decided]}
        )
        return
    output.print_rows(rows, as_json=False)
    if running:
        output.print_rows([_line(run_id, run) for run_id, run in running.items()], as_json=False)
    if decided:
        output.print_rows(decision_rows(decided), as_json=False)
    for remark in exhausted:
        output.say(f"{remark}.")
    if unchecked:
        output.say(
            f"note: scores of any version count for {', '.join(unchecked)}, because status does not run plug-in code."
        )
    etas = "".join(f"; {sweep}: ETA {duration(left)}" for sweep, left in seconds.items() if left is not None)
    output.say(f"In use by {holder}{etas}; lock: {kind}." if holder else "Not in use.")


def _facts(run_id: str, run: "Running", sweep: str) -> dict[str, Any]:
    """Return what a program is told of a run that is going."""
    from sgbench.runs.progress import Lane

    lane = run.lane or Lane("")
    return {
        "run_id": run_id,
        "sweep": sweep,
        "name": run.label,
        "doing": run.doing,
        "step": run.step,
        "steps": run.steps or None,
        "loss": run.loss if run.steps else None,
        "steps_per_second": run.rate or None,
        "seconds_left": run.seconds_left,
        "node": lane.node or None,
        "workers": lane.workers,
        "gpu": lane.gpu or None,
        "gpu_type": lane.kind or None,
    }


def _line(run_id: str, run: "Running") -> dict[str, Any]:
    """Return what a person is shown of a run that is going."""
    training = run.doing == "training"
    return {
        "running": run.label,
        "run": run_id,
        "node": str(run.lane) if run.lane else None,
        "step": f"{run.step}/{run.steps}" if training else run.doing,
        "loss": f"{run.loss:.4g}" if training else None,
        "steps/s": f"{run.rate:.3g}" if training else None,
        "ETA": duration(run.seconds_left) if training and run.seconds_left is not None else None,
    }


def _counts(store: "Store", running: "Mapping[str, Running]") -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row for each sweep of a store: how many of its runs have which status.

    Also a sentence for each sweep that has used up its budget of hours, on one of its runs.
    """
    from sgbench.assets.locator import Locator
    from sgbench.runs.status import Judge, RunStatus
    from sgbench.spec.sources import Sources
    from sgbench.spec.stored import read_recipe

    sources = Sources()
    judge = Judge(store, locator=Locator(download=False), plugins=False, running=running, sources=sources)
    shown = [status for status in RunStatus if status is not RunStatus.UNKNOWN]  # what is planned has an id
    sweeps, exhausted = [], []
    for name, runs in store.plans().items():
        recipes = (read_recipe(run.run.get("spec"), f"run {run.run_id}") for run in runs)
        standings = [
            judge.standing(run.run_id, recipe, run.tests, run.metrics, functools.partial(sources.code_of_row, run.run))
            for run, recipe in zip(runs, recipes, strict=True)
        ]
        counts = Counter(standing.status for standing in standings)
        sweeps.append({"sweep": name, "runs": len(runs), **{str(status): counts[status] for status in shown}})
        told = (standing.error for standing in standings if standing.status is RunStatus.EXHAUSTED)
        exhausted += [f"{name}: {first}" for first in itertools.islice(told, 1)]
    return sweeps, exhausted


def _unchecked(store: "Store") -> list[str]:
    """Return the plug-in metrics that sweeps ask for; no plug-in is imported because a store names it."""
    from sgbench.metrics import METRICS

    return sorted({metric for run in store.planned() for metric in run.metrics if not METRICS.available(metric)})
