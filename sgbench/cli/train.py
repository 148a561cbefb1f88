"""``sgbench train``: one run, in this process."""

import typer

from sgbench.cli import options

EXAMPLES = (
    "sgbench train quick --loss 'l1 + 1.0*sg' --seeds 0",
    "sgbench train quick --backbone edsr-light --loss l1 --seeds 0 --train mine=photos --set recipe.steps=20000",
)


def train(asked: options.Asked, retrain: options.Retrain = False, as_json: options.Json = False) -> None:
    """Train and score one run of a sweep without Ray; the flags must leave a single one.

    Its id, and on the same machine its bits, are those that the sweep would give it. A run that failed is tried again.
    One that is done, lacks scores and has no final weights is trained again if --retrain says so, else the command ends
    with 1; it keeps its results until the new training is complete, and has all its scores computed again.
    """
    from sgbench.assets.weights import Locator
    from sgbench.cli import output
    from sgbench.core.errors import InputError
    from sgbench.report.live import Display
    from sgbench.runs.execute import Job, begin, conclude, run_here
    from sgbench.runs.plan import make_plan, pack, refuse_losses
    from sgbench.store import Store

    storage = asked.storage
    Store(storage).refuse_other_folders()
    with output.packing() as progress:
        data = pack(asked.sweep, progress)
    local = Locator(download=False)
    plan = make_plan(asked.name, asked.sweep, data, Store(storage), retry=True, retrain=retrain, locator=local)
    if len(plan.runs) != 1:
        raise InputError(
            f"train does one run and this asks for {len(plan.runs)}; leave one with --backbone, --loss, --lambda and "
            "--seeds, or use sweep."
        )
    (run,) = plan.runs
    if run.pending:
        with Store(storage).writing(f"sgbench train {asked.name}"):
            output.fetch_for(plan.metrics)
            refuse_losses(plan, local)
            job = Job.of(run, data, asked.sweep, storage)
            begin([job])
            with Display(output.console, total=1, done=0) as display:
                end, faults = run_here(job, display)
            if end != "stopped":
                conclude(Store(storage), [job.run_id])
        if end == "stopped":
            output.say("Interrupted: the same command continues.")
            raise typer.Exit(130)
        if end == "failed" or faults:
            raise typer.Exit(1)
    output.print_results(storage.root, as_json=as_json)
    if remark := plan.to_retrain():
        output.say(remark)
        raise typer.Exit(1)
