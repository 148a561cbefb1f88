"""``sgbench tune``: search the settings of each loss, then train and compare what was chosen."""

import contextlib
import dataclasses
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from sgbench.cli import options
from sgbench.core.streams import nothing_on_stdout

if TYPE_CHECKING:
    from sgbench.runs.tuning import Ask, Tunable

EXAMPLES = (
    "sgbench tune mine.yaml --loss l1 --loss 'ours=l1 + 0.01:10*mine:Loss' --rate 1e-4:1e-2",
    "sgbench tune mine.yaml --loss 'charbonnier(eps=1e-4:0.1)' --trials 8 --scheduler asha --seeds 1-5",
    "sgbench tune mine.yaml --search optuna --trials 30 --address auto",
)


def tune(
    asked: options.Asked,
    trials: Annotated[
        int | None, typer.Option("--trials", metavar="20", help="Trials of each loss with each backbone.")
    ] = None,
    search: Annotated[
        str | None, typer.Option("--search", metavar="random|grid|optuna", help="What suggests settings.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="none|asha", help="asha stops the worse of the trials early."),
    ] = None,
    rate: Annotated[
        str | None, typer.Option("--rate", metavar="1e-4:1e-2", help="Search the learning rate of each loss too.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="METRIC", help="Choose by this metric. Default: the first of the validation."),
    ] = None,
    address: options.Address = None,
    packages: options.With = None,
    fetch: options.Fetch = None,
    local: Annotated[
        bool, typer.Option("--local", help="Do one run after another in this process, without Ray.")
    ] = False,
    retry: options.Retry = False,
    rerun_stale: options.RerunStale = False,
    keep_stale: options.KeepStale = False,
    as_json: options.Json = False,
) -> None:
    """Search the settings of each loss on a validation set, then train and compare what was chosen with fresh seeds.

    A range such as 0.01:10 stands in place of a coefficient or of an option: 'l1 + 0.01:10*ssim',
    'charbonnier(eps=1e-4:0.1)'; values to choose from stand in place of an option: 'sg(operator=central|sobel)'. A loss
    with λ has those of the sweep to choose from.

    Each loss is given the same trials, the same steps, and the same rule by which trials are stopped early; its first
    trial is its default. A loss with fewer different settings than trials is given each of them once. Trials have a
    seed of their own, tune.seed; --seeds are those with which what was chosen is trained and scored on the test sets.
    Trials see the validation set only, 'validate' of a sweep file; docs/sweeps.md says how --set gives one.

    The same command resumes; it repeats no trial, and ends with the same. What was tried and chosen is kept in the
    store.

    The exit code is 1 if a run with what was chosen failed, or no trial of a loss came to a value.
    """
    from sgbench.cli import output
    from sgbench.cluster import on_ray
    from sgbench.core.packages import to_send
    from sgbench.runs.sweep import Runner, run_all_here
    from sgbench.runs.tuning import tune as carry_out

    given = {"trials": trials, "search": search, "scheduler": scheduler, "rate": rate, "by": by}
    with options.reading(asked.what):
        tunable = _tunable(asked, {f"tune.{key}": value for key, value in given.items() if value is not None})
    sent = to_send(packages or (), "--with", cluster=bool(address))
    storage = options.store_of(asked.results, tunable.name)
    here: AbstractContextManager[Runner] = contextlib.nullcontext(run_all_here)
    with nothing_on_stdout():
        tuned = carry_out(
            tunable,
            storage,
            here if local else on_ray(address, output.screen, sent),
            output.screen,
            ask=_ask(tunable),
            download=address is not None if fetch is None else fetch,
            retry=retry,
            rerun_stale=rerun_stale,
            keep_stale=keep_stale,
        )
    output.print_tuned(tuned, storage.root, as_json=as_json)


def _tunable(asked: options.Asked, settings: dict[str, object]) -> "Tunable":
    from sgbench.runs.tuning import read_tunable

    choices = dataclasses.replace(asked.choices, settings={**asked.choices.settings, **settings})
    return read_tunable(asked.what, choices, options.FLAGS)


def _ask(tunable: "Tunable") -> "Ask | None":
    if not tunable.sweep.tune or tunable.sweep.tune.search != "optuna":
        return None
    from sgbench.cluster import ask_optuna

    return ask_optuna
