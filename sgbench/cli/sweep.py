"""``sgbench sweep``: train and score what is missing, then show the table."""

from sgbench.cli import options
from sgbench.core.streams import nothing_on_stdout

EXAMPLES = (
    "sgbench sweep quick",
    "sgbench sweep quick --backbone edsr-light --lambda 0,0.1,1 --seeds 0,1,2 --train mine=photos",
    "sgbench sweep mine.yaml --set recipe.steps=5000 --address auto",
)


def sweep(
    asked: options.Asked,
    address: options.Address = None,
    fetch: options.Fetch = None,
    retry: options.Retry = False,
    retrain: options.Retrain = False,
    rerun: options.Rerun = False,
    as_json: options.Json = False,
) -> None:
    """Train and score every missing run, then print the table.

    With --address, known data sets that are not available locally are downloaded, and images and networks are sent to
    the nodes that lack them, through the store.

    Interrupted runs resume from their last checkpoint; finished runs are not repeated. With --retrain or --rerun, a run
    keeps its results until the new training is complete, and then all its scores are recomputed. If --rerun is
    interrupted, the same command resumes it and skips the runs it has already redone; without --rerun, runs that are
    not yet replaced count as done.

    The exit code is 1 if a run failed, or if scores are missing that need --retrain.
    """
    from sgbench.cli import output
    from sgbench.cluster import on_ray
    from sgbench.runs.sweep import carry_out

    with nothing_on_stdout():
        outcome = carry_out(
            asked.name,
            asked.sweep,
            asked.storage,
            on_ray(address, output.screen),
            output.screen,
            download=address is not None if fetch is None else fetch,
            retry=retry,
            retrain=retrain,
            rerun=rerun,
        )
    output.print_outcome(outcome, asked.storage.root, as_json=as_json, again="--retry repeats them")
