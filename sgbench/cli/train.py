"""``sgbench train``: one run, in this process."""

import contextlib

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
    from sgbench.cli import output
    from sgbench.core.errors import InputError
    from sgbench.runs.sweep import carry_out, run_all_here
    from sgbench.spec import TrainingData

    runs = set(asked.sweep.named_runs(TrainingData(name=asked.sweep.train)))
    if len(runs) != 1:
        raise InputError(
            f"train does one run and this asks for {len(runs)}; leave one with --backbone, --loss, --lambda and "
            "--seeds, or use sweep."
        )
    here = contextlib.nullcontext(run_all_here)
    outcome = carry_out(
        asked.name, asked.sweep, asked.storage, here, output.screen, command="train", retry=True, retrain=retrain
    )
    output.print_outcome(outcome, asked.storage.root, as_json=as_json, again="the same command tries again")
