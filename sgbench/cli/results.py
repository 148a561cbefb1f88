"""``sgbench results``: compact, merge, verify and clean stores, show their tunings and the code of their plug-ins."""

import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sgbench.cli import options
from sgbench.cli.commands import below, command
from sgbench.core.words import listed, plural, printable, printable_lines, some

if TYPE_CHECKING:
    from sgbench.runs.maintenance import Merge
    from sgbench.store import Store

app = typer.Typer(
    help="Compact, merge, verify and clean results stores, and show their tunings and the code of their plug-ins.",
    epilog=below("sgbench results verify results/mini", "sgbench results merge results/all results/alice results/bob"),
    no_args_is_help=True,
)

_NAMED = 4
"""Runs that a remark names before it counts the others."""


@command(app, "sgbench results compact", "sgbench results compact --results s3://bucket/paper")
def compact(results: options.Results = None, as_json: options.Json = False) -> None:
    """Gather the many small files of a store in one large file per table, which is much faster to read."""
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
    into: Annotated[str, typer.Argument(metavar="INTO", help="The store to write; it may be new.")],
    sources: Annotated[list[str], typer.Argument(metavar="FROM...", help="The stores to read.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    prefer: Annotated[
        Literal["ours", "theirs"] | None,
        typer.Option(help="Whose results to keep of a run that is done in both: INTO's (ours) or FROM's (theirs)."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Copy runs with all that belongs to them, plans, declarations, tunings and labels of other stores into one.

    If two stores have the same run, a done one wins over a failed one, and a later one over an earlier one; it is
    copied as a whole, and a remark names it. The same run trained on another machine or by another version of torch may
    have slightly different results. A run of a plug-in may also have been trained by different code of the same name:
    if its results differ, and the recorded hashes of the code do not show that it was the same, nothing is merged
    without --prefer. A loss that has a label in INTO keeps it. Of a tuning that is in both, the one with more finished
    trials is kept; of two that share only their name, both are, one with its digest in its name. FROM stores are not
    changed. With --dry-run each one is compared with INTO as it is now.
    """
    from sgbench.cli import output
    from sgbench.core.storage import Storage, absolute
    from sgbench.runs.maintenance import Merge
    from sgbench.store import Store

    target = Store(Storage(absolute(into)))
    target.refuse_other_folders()
    stores = [_open(absolute(source)) for source in sources]
    taken = [Merge.of(target, store, prefer) for store in stores]  # refuses damaged stores before anything is changed
    if not dry_run:
        with target.writing("sgbench results merge"):
            for position, store in enumerate(stores):
                taken[position] = Merge.of(target, store, prefer)
                taken[position].apply()
    if as_json:
        output.print_json([_record(found) for found in taken])
        return
    would = "would be " if dry_run else ""
    for found in taken:
        for remark in found.remarks:
            output.say(remark)
        beside = [f"{len(found.scores)} files of scores", f"{len(found.plans)} plans"]
        beside += [plural(len(found.declarations), "declaration")] if found.declarations else []
        beside += [plural(len(found.tunings), "tuning")] if found.tunings else []
        output.say(
            f"{found.source.storage}: {len(found.added)} runs {would}added, {len(found.replaced)} {would}replaced, "
            f"{len(found.shared)} {'are ' * dry_run}the same; "
            f"{listed([*beside, f'{len(found.labels)} labels'])} {would}taken"
        )


@command(app, "sgbench results verify", "sgbench results verify results/mini --json")
def verify(
    store: Annotated[str | None, typer.Argument(metavar="[DIR]", help="Default: the only one in results/.")] = None,
    as_json: options.Json = False,
) -> None:
    """Check that a store is intact: that every file can be read, and that what its files say of each other agrees.

    Runs must have what their ids and specifications say. Scores, training curves, final weights and saved images must
    belong to runs; the score of a set must be that of its images, and be of all of them. It ends by saying what was
    checked. Exit code 1 if anything is wrong. Missing weights are not an error, nor is a plug-in whose code is another
    now; remarks say which runs these are.
    """
    from sgbench.analysis import View, load_results
    from sgbench.cli import output
    from sgbench.runs.maintenance import without_weights
    from sgbench.runs.verification import UNCHECKED, verify

    root, checked = options.find_store(store), Counter[str]()
    faults = list(verify(_open(root), checked))
    if not faults:  # unknown while files are damaged
        if lacking := without_weights(_open(root)):
            few = some(lacking, _NAMED)
            output.say(f"{plural(len(lacking), 'run')} without weights cannot be scored again: {few}.")
        if stale := [run.run_id for run in View(load_results(root)).runs() if run.stale]:
            few = some(stale, _NAMED)
            output.say(f"{plural(len(stale), 'run')} of plug-ins whose code is another now (stale): {few}.")
    if as_json:
        output.print_json(faults)
    else:
        for fault in faults:
            typer.echo(printable(fault))
        counts = ", ".join(f"{count:,} {what}" for what, count in checked.items() if count)
        output.say(f"checked: {counts or 'nothing'}; not checked: {UNCHECKED}")
        output.say(f"{root}: {plural(len(faults), 'problem') if faults else 'no problems'}")
    if faults:
        raise typer.Exit(1)


@command(app, "sgbench results tunings", "sgbench results tunings mine --format markdown")
def tunings(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One of them. Default: all.")] = None,
    results: options.Results = None,
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="rich, markdown, latex, html or json. Default: rich."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show what chance 'sgbench tune' gave each loss, and what was chosen.

    For each loss: what was searched, how many trials it had and how many were stopped early, the steps of all of them,
    what was chosen, and the values of that and of the default on the validation set. It says so if a value was chosen
    at an end of its range, beyond which there may be a better one.
    """
    from rich.console import Console

    from sgbench.analysis import load_results
    from sgbench.analysis.tunings import chances
    from sgbench.core.errors import InputError, unknown
    from sgbench.report import tables
    from sgbench.report.tunings import FORMATS, shown

    form = options.format_of(form, [tables.RICH, *FORMATS], as_json=as_json)
    root = options.find_store(results)
    known = load_results(root).tunings
    if not known and form != "json":
        raise InputError(f"'{root}' has no tuning; 'sgbench tune' makes one.")
    if name is not None and name not in known:
        raise unknown("tuning", name, known)
    found = chances(known if name is None else {name: known[name]})
    if form == tables.RICH:
        shown(found).print(Console(file=sys.stdout))
    else:
        typer.echo(FORMATS[form](found), nl=False)


@command(app, "sgbench results source 3f2a9c", "sgbench results source 3f2a9c --json")
def source(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, or the beginning of an id.")],
    results: options.Results = None,
    as_json: options.Json = False,
) -> None:
    """Print the code of the plug-ins with which a run was trained.

    For each one, its name, the hash of its code, and whether that is its code on this machine; the packages that it
    imports; and the text of each module that it is in or takes something from. A note says so on standard error if a
    run has no plug-ins, or was trained before this was recorded.
    """
    from sgbench.cli import output
    from sgbench.runs.maintenance import find_runs
    from sgbench.spec.sources import Sources, read_code

    store = _open(options.find_store(results))
    (run_id,) = find_runs(store, [run])
    row = store.run(run_id) or {}
    now, found = Sources().code_of_row(row) if row else {}, []
    for name, digests in read_code(row.get("code")).items():
        for digest in digests.split("+"):
            kept = store.read_source(digest)
            about = {"plugin": name, "code": digest, "now": now.get(name)}
            found.append({**about, "packages": kept.packages, "modules": kept.modules})
    if as_json:
        output.print_json(found)
    elif not found:
        output.say(f"run {run_id} has no code of a plug-in on record.")
    else:
        for each in found:
            typer.echo(_text_of(each))


@command(app, "sgbench results rm 3f2a9c", "sgbench results rm 3f2a9c 77ab01 --yes")
def rm(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids of runs, or the beginnings of ids.")],
    results: options.Results = None,
    yes: options.Yes = False,
) -> None:
    """Delete runs with their history, scores, weights, checkpoints and images.

    Failed and incomplete runs are deleted too. A sweep that includes a deleted run trains it again.
    """
    from sgbench.cli import output
    from sgbench.runs.maintenance import find_runs, remove

    store = _open(options.find_store(results))
    store.refuse_other_folders()
    found = find_runs(store, runs)
    for run_id, told in found.items():
        output.say(f"{run_id}  {told}")
    options.ask(f"Delete {plural(len(found), 'run')} with everything that belongs to them?", yes)
    with store.writing("sgbench results rm"):
        for run_id in found:
            remove(store, run_id)


@command(app, "sgbench results clean", "sgbench results clean --all --yes")
def clean(
    results: options.Results = None,
    everything: Annotated[bool, typer.Option("--all", help="Also checkpoints of runs that are not done.")] = False,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Delete what no run needs: checkpoints of runs that are done, and files left by killed processes.

    With --all no run can be resumed any more: those that are not done start over. Only the checkpoint of a run that is
    being replaced stays, once it is all that there is of that run.
    """
    from sgbench.cli import output
    from sgbench.runs.maintenance import clean

    store = _open(options.find_store(results))
    store.refuse_other_folders()
    if everything:
        options.ask("Delete checkpoints from which runs could be resumed?", yes)
    with store.writing("sgbench results clean"):
        freed = clean(store, everything=everything)
    if as_json:
        output.print_json(freed)
    else:
        for name, size in freed.items():
            output.say(f"{name}: {size / 1e6:,.1f} MB")
        output.say(f"{sum(freed.values()) / 1e6:,.1f} MB freed")


def _open(root: str) -> "Store":
    """Open a store that exists.

    Raises:
        InputError: If there is no store.
    """
    from sgbench.analysis import load_results
    from sgbench.core.storage import Storage
    from sgbench.store import Store

    load_results(root)
    return Store(Storage(root))


def _text_of(source: dict[str, Any]) -> str:
    """Return the code of a plug-in under a comment for each thing that is known of it."""
    here = {None: "not on this machine", source["code"]: "the same now"}.get(source["now"], "another now")
    heads = [f"{source['plugin']}: code {source['code']}, {here}"]
    heads += [f"it imports {package}" for package in source["packages"].values()]
    modules = (f"# {printable(path)}\n{printable_lines(text)}" for path, text in source["modules"].items())
    return "\n".join([*(f"# {printable(head)}" for head in heads), *modules])


def _record(found: "Merge") -> dict[str, object]:
    return {
        "from": found.source.storage.root,
        "added": found.added,
        "replaced": found.replaced,
        "shared": found.shared,
        "scores": found.scores,
        "plans": list(found.plans),
        "declarations": [declaration.digest for declaration in found.declarations],
        "tunings": list(found.tunings),
        "labels": found.labels,
        "remarks": found.remarks,
    }
