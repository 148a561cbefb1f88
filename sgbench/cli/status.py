"""``sgbench status``: the progress of sweeps, read from their store or from the cluster they were submitted to."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgbench.cli import options

if TYPE_CHECKING:
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
    done, to score, resumable, to do and failed, and which command is using the store.
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
    from sgbench.core.words import duration

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
    from sgbench.cli import output
    from sgbench.core.errors import InputError
    from sgbench.core.storage import Storage
    from sgbench.store import Store
    from sgbench.store.layout import PLANS

    storage = Storage(root)
    if not storage.exists(PLANS):
        raise InputError(f"'{root}' has no record of a sweep: the folder '{PLANS}' is missing.")
    store = Store(storage)
    rows, unchecked, holder = _counts(store), _unchecked(store), storage.holder()
    if as_json:
        output.print_json({"store": storage.root, "in_use_by": holder, "sweeps": rows, "unchecked_metrics": unchecked})
        return
    output.print_rows(rows, as_json=False)
    if unchecked:
        output.say(
            f"note: scores of any version count for {', '.join(unchecked)}, because status does not run plug-in code."
        )
    output.say(f"In use by {holder}." if holder else "Not in use.")


def _counts(store: "Store") -> list[dict[str, Any]]:
    """Return a row for each sweep of a store: how many of its runs have which status."""
    from sgbench.assets.locator import Locator
    from sgbench.runs.status import Judge, RunStatus

    judge = Judge(store, locator=Locator(download=False), plugins=False)
    shown = [status for status in RunStatus if status is not RunStatus.UNKNOWN]  # what is planned has an id
    sweeps = []
    for name, runs in store.plans().items():
        counts = Counter(judge.standing(run.run_id, run.tests, run.metrics).status for run in runs)
        sweeps.append({"sweep": name, "runs": len(runs), **{str(status): counts[status] for status in shown}})
    return sweeps


def _unchecked(store: "Store") -> list[str]:
    """Return the plug-in metrics that sweeps ask for; no plug-in is imported because a store names it."""
    from sgbench.metrics import METRICS

    return sorted({metric for run in store.planned() for metric in run.metrics if not METRICS.available(metric)})
