"""``sgbench sweep``: train and score what is missing, then show the table."""

import contextlib

import typer

from sgbench.cli import options

EXAMPLES = (
    "sgbench sweep quick",
    "sgbench sweep quick --backbone edsr-light --lambda 0,0.1,1 --seeds 0,1,2 --train mine=photos",
    "sgbench sweep mine.yaml --set recipe.steps=5000 --address auto",
)


def sweep(
    asked: options.Asked,
    address: options.Address = None,
    retry: options.Retry = False,
    rerun: options.Rerun = False,
    as_json: options.Json = False,
) -> None:
    """Train and score every run that is missing, then print the table.

    Interrupted runs continue from their last checkpoint; finished ones are not repeated.
    """
    from sgbench.assets.weights import Locator
    from sgbench.cli import output
    from sgbench.report.live import Display
    from sgbench.runs.execute import Job
    from sgbench.runs.forecast import expect, longest_first
    from sgbench.runs.maintenance import clean
    from sgbench.runs.plan import make_plan, pack
    from sgbench.store import Store

    name, storage = asked.name, asked.storage
    Store(storage).refuse_other_folders()
    with output.packing() as progress:
        data = pack(asked.sweep, progress)
    with Store(storage).writing(f"sgbench sweep {name}"):
        with contextlib.suppress(OSError):  # the workers of a sweep that was killed may be writing for a moment yet
            clean(Store(storage))
        local = Locator(download=False)
        plan = make_plan(name, asked.sweep, data, Store(storage), retry=retry, rerun=rerun, locator=local)
        Store(storage).write_plan(name, plan.records())
        output.say(f"{name}: {plan.summary()}{'' if plan.pending else '; nothing to do'}")
        failed, interrupted = plan.count("failed"), False
        if plan.pending:
            output.fetch_for(asked.sweep.metrics)
            from sgbench.cluster import connect, run_sweep

            order = longest_first(expect(plan.pending, Store(storage)))
            jobs = [Job.of(run, data, asked.sweep, storage) for run in order]
            with (
                connect(address) as lost,
                Display(output.console, len(plan.runs), plan.count("done")) as display,
            ):
                remote = address is not None
                summary = run_sweep(name, jobs, asked.sweep, storage, display, remote=remote, fresh=rerun, lost=lost)
            failed, interrupted = failed + len(summary.failed), summary.interrupted
    output.print_results(storage.root, as_json=as_json)
    if interrupted:
        output.say("Interrupted: the same command continues.")
        raise typer.Exit(130)
    if failed:
        output.say(f"{failed} of {len(plan.runs)} runs failed: --retry does them again.")
        raise typer.Exit(1)
