"""``sgbench train``: one run, in this process."""

import contextlib

from sgbench.cli import options
from sgbench.core.streams import nothing_on_stdout

EXAMPLES = (
    "sgbench train quick --loss 'l1 + 1.0*sg' --seeds 0",
    "sgbench train quick --backbone edsr-light --loss l1 --seeds 0 --train mine=photos --set recipe.steps=20000",
)


def train(
    asked: options.Asked,
    retrain: options.Retrain = False,
    rerun_stale: options.RerunStale = False,
    keep_stale: options.KeepStale = False,
    as_json: options.Json = False,
) -> None:
    """Train and score a single run of a sweep without Ray; the flags must select exactly one.

    The run gets the same id as in the sweep and, on the same machine, bit-identical weights. A failed run is tried
    again. A finished run that lacks scores and has no final weights is trained again only with --retrain; otherwise the
    exit code is 1. It keeps its results until the new training is complete, and then all its scores are recomputed.
    --rerun-stale and --keep-stale are those of sweep. Several of these commands may run side by side on one store, and
    beside shards of sweeps.
    """
    from sgbench.cli import output
    from sgbench.core.errors import InputError
    from sgbench.runs.sweep import carry_out, run_all_here
    from sgbench.spec import TrainingData

    runs = asked.sweep.runs(TrainingData(name=asked.sweep.train))
    if len(runs) != 1:
        raise InputError(
            f"train does exactly one run, but this selects {len(runs)}; select one with --backbone, --loss, --lambda "
            "and --seeds, or use sweep."
        )
    here = contextlib.nullcontext(run_all_here)
    with nothing_on_stdout():
        outcome = carry_out(
            asked.name,
            asked.sweep,
            asked.storage,
            here,
            output.screen,
            command="train",
            retry=True,
            retrain=retrain,
            rerun_stale=rerun_stale,
            keep_stale=keep_stale,
        )
    output.print_outcome(outcome, asked.storage.root, as_json=as_json, again="the same command tries again")
