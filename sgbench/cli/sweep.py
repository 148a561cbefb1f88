"""``sgbench sweep``: train and score what is missing, then show the table."""

import contextlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from sgbench.cli import options
from sgbench.core.streams import nothing_on_stdout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sgbench.core.packages import Package
    from sgbench.runs.sweep import Runner

EXAMPLES = (
    "sgbench sweep quick",
    "sgbench sweep quick --backbone edsr-light --lambda 0,0.1,1 --seeds 0,1,2 --train mine=photos",
    "sgbench sweep mine.yaml --set recipe.steps=5000 --address auto",
    "sgbench sweep mine.yaml --loss 'l1 + 0.1*mine:Loss' --address 10.0.0.1:6379 --with piq",
    "sgbench sweep paper --shard 3/8 --results /shared/paper",
)


def sweep(
    asked: options.Asked,
    address: options.Address = None,
    packages: options.With = None,
    fetch: options.Fetch = None,
    shard: options.Shard = None,
    retry: options.Retry = False,
    retrain: options.Retrain = False,
    rerun: options.Rerun = False,
    rerun_stale: options.RerunStale = False,
    keep_stale: options.KeepStale = False,
    as_json: options.Json = False,
) -> None:
    """Train and score every missing run, then print the table.

    With --address, known data sets that are not available locally are downloaded, and images and networks are sent to
    the nodes that lack them, through the store. The modules of plug-ins go along too, and so do the packages of --with,
    which those import and nodes lack.

    Interrupted runs resume from their last checkpoint; finished runs are not repeated. With --retrain or --rerun, a run
    keeps its results until the new training is complete, and then all its scores are recomputed. If --rerun is
    interrupted, the same command resumes it and skips the runs it has already redone; without --rerun, runs that are
    not yet replaced count as done.

    If the code of a plug-in is another than runs were trained with, the sweep is refused unless --rerun-stale repeats
    those runs, from their start, or --keep-stale takes them as they are. What enters the comparison is in
    docs/losses.md.

    --shard 3/8 does the third of eight parts of about equal work, without Ray: one run after another, on one GPU if
    there is one, so start a shard for each GPU. Shards may run side by side on one store, start at any time and be
    repeated. A run that others are doing too, such as a shard of another sweep, is done once.

    The exit code is 1 if a run failed, or if scores are missing that need --retrain.
    """
    from sgbench.cli import output
    from sgbench.core.packages import to_send
    from sgbench.runs.shards import Shard
    from sgbench.runs.sweep import carry_out

    part = None if shard is None else Shard.of(shard, "--shard")
    sent = to_send(packages or (), "--with", cluster=bool(address))
    with nothing_on_stdout():
        outcome = carry_out(
            asked.name,
            asked.sweep,
            asked.storage,
            _runner(asked.sweep.workers, address, sent, here=part is not None),
            output.screen,
            download=address is not None if fetch is None else fetch,
            shard=part,
            retry=retry,
            retrain=retrain,
            rerun=rerun,
            rerun_stale=rerun_stale,
            keep_stale=keep_stale,
        )
    output.print_outcome(outcome, asked.storage.root, as_json=as_json, again="--retry repeats them")


def _runner(
    workers: int, address: str | None, packages: "Sequence[Package]", *, here: bool
) -> "AbstractContextManager[Runner]":
    """Return what carries out the runs: Ray or, for a shard that joins no cluster, this process.

    Raises:
        InputError: If that cannot do it.
    """
    from sgbench.cli import output
    from sgbench.core.errors import InputError
    from sgbench.runs.sweep import run_all_here

    if not here or address:
        from sgbench.cluster import on_ray

        return on_ray(address, output.screen, packages)
    if workers > 1:
        raise InputError(
            f"workers is {workers}, but --shard trains a run on one device; set workers=0, or give --address to do the "
            "shard on a cluster."
        )
    return contextlib.nullcontext(run_all_here)
