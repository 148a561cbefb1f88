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
    retrain: options.Retrain = False,
    rerun: options.Rerun = False,
    as_json: options.Json = False,
) -> None:
    """Train and score every run that is missing, then print the table.

    Interrupted runs continue from their last checkpoint; finished ones are not repeated. A run that is trained again,
    because --retrain or --rerun asks for it, keeps its results until the new training is complete, and has all its
    scores computed again. Where --rerun was interrupted, the same command continues: it resumes the run that was under
    way and leaves those alone that were done again; without --rerun, the runs not yet replaced count as done.

    Ends with 1 if runs failed, or lack scores that only training again could give and --retrain is not there.
    """
    from sgbench.assets.weights import Locator
    from sgbench.cli import output
    from sgbench.report.live import Display
    from sgbench.runs.execute import Job, conclude, unreplaced
    from sgbench.runs.forecast import expect, longest_first
    from sgbench.runs.maintenance import clean
    from sgbench.runs.plan import make_plan, pack, refuse_losses
    from sgbench.store import Store

    name, storage = asked.name, asked.storage
    Store(storage).refuse_other_folders()
    with output.packing() as progress:
        data = pack(asked.sweep, progress)
    with Store(storage).writing(f"sgbench sweep {name}"):
        with contextlib.suppress(OSError):  # the workers of a sweep that was killed may be writing for a moment yet
            clean(Store(storage))
        local = Locator(download=False)
        plan = make_plan(
            name, asked.sweep, data, Store(storage), retry=retry, retrain=retrain, rerun=rerun, locator=local
        )
        Store(storage).write_plan(name, plan.records())
        output.say(f"{name}: {plan.summary()}{'' if plan.pending or plan.to_retrain() else '; nothing to do'}")
        failed, kept, interrupted = plan.count("failed"), 0, False
        if plan.pending:
            output.fetch_for(plan.metrics)
            refuse_losses(plan, local)
            from sgbench.cluster import connect, run_sweep

            order = longest_first(expect(plan.pending, Store(storage)))
            jobs = [Job.of(run, data, asked.sweep, storage) for run in order]
            with (
                connect(address) as lost,
                Display(output.console, len(plan.runs) - plan.count("to retrain"), plan.count("done")) as display,
            ):
                remote = address is not None
                summary = run_sweep(name, jobs, asked.sweep, storage, display, remote=remote, lost=lost)
            kept, interrupted = len(unreplaced(jobs, Store(storage)) & summary.failed.keys()), summary.interrupted
            failed += len(summary.failed) - kept
        if not interrupted:
            conclude(Store(storage), [str(run.spec.run_id) for run in (plan.runs if rerun else plan.pending)])
    output.print_results(storage.root, as_json=as_json)
    if interrupted:
        output.say("Interrupted: the same command continues.")
        raise typer.Exit(130)
    if failed:
        output.say(f"{failed} of {len(plan.runs)} runs failed: --retry does them again.")
    if kept:
        output.say(
            f"{kept} of {len(plan.runs)} runs failed when they were trained again and keep the results they had."
        )
    if remark := plan.to_retrain():
        output.say(remark)
    if failed or kept or remark:
        raise typer.Exit(1)
