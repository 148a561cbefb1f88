"""``sgbench sweep``: train and score what is missing, then show the table."""

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
    from sgbench.cli import output
    from sgbench.cluster import on_ray
    from sgbench.runs.sweep import carry_out

    outcome = carry_out(
        asked.name,
        asked.sweep,
        asked.storage,
        on_ray(address),
        output.screen,
        retry=retry,
        retrain=retrain,
        rerun=rerun,
    )
    output.print_outcome(outcome, asked.storage.root, as_json=as_json, again="--retry does them again")
