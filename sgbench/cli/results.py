"""``sgbench results``: the keeping of stores."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sgbench.cli import options
from sgbench.cli.commands import below, command
from sgbench.core.errors import InputError

if TYPE_CHECKING:
    from sgbench.runs.maintenance import Merge
    from sgbench.store import Store

app = typer.Typer(
    help="Results stores: gather, merge, check, and throw away.",
    epilog=below("sgbench results verify results/mini", "sgbench results merge results/all results/alice results/bob"),
    no_args_is_help=True,
)

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

_NAMED = 4
"""Runs that a remark names before it counts the others."""


@command(app, "sgbench results compact", "sgbench results compact --results s3://bucket/paper")
def compact(results: options.Results = None, as_json: options.Json = False) -> None:
    """Gather the many small files of a store in one large file a table, which is read much faster."""
    from sgbench.cli import output

    store = _open(options.find_store(results))
    with store.writing("sgbench results compact"):
        gathered = store.compact()
    if as_json:
        output.print_json(gathered)
    else:
        output.say("; ".join(f"{table}: {count:,} files gathered" for table, count in gathered.items()))


@command(app, "sgbench results merge results/all results/alice results/bob --dry-run")
def merge(
    into: Annotated[str, typer.Argument(metavar="INTO", help="The store that is written; it may be new.")],
    sources: Annotated[list[str], typer.Argument(metavar="FROM...", help="The stores that are read.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: options.Json = False,
) -> None:
    """Take the runs, scores, history, weights, images and plans of other stores into one.

    Of a run that was trained for two stores a done one is better than a failed one, and a later than an earlier; the
    better comes whole. Nothing of FROM is changed. With --dry-run each FROM is held against INTO as it is now.
    """
    from sgbench.cli import output
    from sgbench.core.storage import Storage, absolute
    from sgbench.runs.maintenance import Merge
    from sgbench.store import Store

    target = Store(Storage(absolute(into)))
    target.refuse_other_folders()
    stores = [_open(absolute(source)) for source in sources]
    taken = [Merge.of(target, store) for store in stores]  # all that is damaged is refused before anything is changed
    if not dry_run:
        with target.writing("sgbench results merge"):
            for position, store in enumerate(stores):
                taken[position] = Merge.of(target, store)
                taken[position].apply()
    if as_json:
        output.print_json([_record(found) for found in taken])
        return
    would = "would be " if dry_run else ""
    for found in taken:
        for remark in found.remarks:
            output.say(remark)
        output.say(
            f"{found.source.storage}: {len(found.added)} runs {would}added, {len(found.replaced)} {would}replaced, "
            f"{len(found.shared)} {'are ' * dry_run}the same; {len(found.scores)} files of scores and "
            f"{len(found.plans)} plans {would}taken"
        )


@command(app, "sgbench results verify", "sgbench results verify results/mini --json")
def verify(
    store: Annotated[str | None, typer.Argument(metavar="[DIR]", help="Default: the only one in results/.")] = None,
    as_json: options.Json = False,
) -> None:
    """Check every file of a store, that runs are what their ids say, and that weights are undamaged.

    Ends with 1 if anything is wrong. A store without weights is sound; a remark says of which runs they are missing.
    """
    from sgbench.cli import output
    from sgbench.runs.maintenance import verify, without_weights

    root = options.find_store(store)
    faults = list(verify(_open(root)))
    if not faults and (lacking := without_weights(_open(root))):  # of files that are damaged nobody can say
        few, rest = lacking[:_NAMED], len(lacking) - _NAMED
        who = f"{', '.join(few)}{f' and {rest} more' if rest > 0 else ''}"
        runs = f"{len(lacking)} run{'s' * (len(lacking) != 1)}"
        output.say(f"There are no weights of {runs}, so that there can be no other scores of {who}.")
    if as_json:
        output.print_json(faults)
    else:
        for fault in faults:
            typer.echo(fault)
        output.say(f"{root}: {len(faults) or 'nothing'} wrong")
    if faults:
        raise typer.Exit(1)


@command(app, "sgbench results rm 3f2a9c", "sgbench results rm 3f2a9c 77ab01 --yes")
def rm(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids of runs, or the beginnings of ids.")],
    results: options.Results = None,
    yes: Yes = False,
) -> None:
    """Delete runs with their history, scores, weights, checkpoints and images.

    A run that is not done, or of which only parts are left, is deleted too. A sweep that asks for it does it again.
    """
    from sgbench.cli import output
    from sgbench.runs.maintenance import find_runs, remove

    store = _open(options.find_store(results))
    with store.writing("sgbench results rm"):
        found = find_runs(store, runs)
        for run_id, told in found.items():
            output.say(f"{run_id}  {told}")
        _ask(f"Delete {len(found)} run{'s' * (len(found) != 1)} and all that belongs to them?", yes)
        for run_id in found:
            remove(store, run_id)


@command(app, "sgbench results clean", "sgbench results clean --all --yes")
def clean(
    results: options.Results = None,
    everything: Annotated[bool, typer.Option("--all", help="Also checkpoints of runs that are not done.")] = False,
    yes: Yes = False,
    as_json: options.Json = False,
) -> None:
    """Delete what no run needs: checkpoints of runs that are done, and what killed processes left.

    With --all no run can be continued any more: those that are not done start over.
    """
    from sgbench.cli import output
    from sgbench.runs.maintenance import clean

    store = _open(options.find_store(results))
    with store.writing("sgbench results clean"):
        if everything:
            _ask("Delete checkpoints from which runs could be continued?", yes)
        freed = clean(store, everything=everything)
    if as_json:
        output.print_json(freed)
    else:
        for name, size in freed.items():
            output.say(f"{name}: {size / 1e6:,.1f} MB")
        output.say(f"{sum(freed.values()) / 1e6:,.1f} MB freed")


def _open(root: str) -> "Store":
    """Return a store that is there.

    Raises:
        InputError: If it is none.
    """
    from sgbench.analysis import load_results
    from sgbench.core.storage import Storage
    from sgbench.store import Store

    load_results(root)
    return Store(Storage(root))


def _ask(question: str, yes: bool) -> None:
    if not yes and not sys.stdin.isatty():
        raise InputError("there is nobody to ask; --yes says that it is meant.")
    if not yes:
        typer.confirm(question, abort=True, err=True)


def _record(found: "Merge") -> dict[str, object]:
    return {
        "from": found.source.storage.root,
        "added": found.added,
        "replaced": found.replaced,
        "shared": found.shared,
        "scores": found.scores,
        "plans": list(found.plans),
        "remarks": found.remarks,
    }
