"""``sgbench submit``: a sweep as a job of a running cluster."""

import importlib.metadata
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sgbench.cli import options

if TYPE_CHECKING:
    from sgbench.core.modules import Code
    from sgbench.core.packages import Package
    from sgbench.runs.supply import Supply

EXAMPLES = (
    "sgbench submit paper-mini --results s3://bucket/results",
    "sgbench submit mine.yaml --results s3://bucket/results --train photos=photos --upload-data",
    "sgbench submit mine.yaml --results /shared/results --set recipe.steps=5000 --address http://127.0.0.1:8265",
)


def submit(
    asked: options.Asked,
    address: options.Dashboard = None,
    packages: options.With = None,
    upload: Annotated[
        bool, typer.Option("--upload-data", help="Send the images and networks of this machine to the store first.")
    ] = False,
    retry: options.Retry = False,
    retrain: options.Retrain = False,
    rerun: options.Rerun = False,
    rerun_stale: options.RerunStale = False,
    keep_stale: options.KeepStale = False,
) -> None:
    """Submit a sweep to a running cluster, print the id of the job, and return at once.

    The sweep is checked here and sent in full, flags included, and so are the modules of plug-ins that no package
    installs, and the packages of --with, which those import and nodes lack. Every node of the cluster must have
    sgbench, and must reach the store in --results.

    A table says where data sets and pretrained networks come from, and how large they are; what the cluster cannot get
    is refused. The cluster downloads known sets once, and NAME=DIR is a folder on the cluster. With --upload-data, it
    is a folder of this machine: images are packed here and sent to the store, and so are the networks that are
    available here, and the checkpoint in recipe.init. What is there already is not sent again, and the job uses exactly
    these.
    """
    import yaml

    from sgbench.cli import output
    from sgbench.cluster.jobs import Jobs
    from sgbench.core.packages import to_send
    from sgbench.core.streams import nothing_on_stdout
    from sgbench.runs.code import code_of, names_of_command
    from sgbench.runs.supply import as_sent, initial_supplies, supplies

    results = _seen_by_all(asked.results)
    brought = to_send(packages or (), "--with")
    code = code_of(names_of_command(asked.sweep))
    with nothing_on_stdout(), output.screen.packing() as progress:
        found = supplies(asked.sweep, upload=upload, progress=progress)
        found += initial_supplies(asked.sweep, asked.storage if upload else None)
    _check_store(asked, upload=upload)
    jobs = Jobs(address)
    if upload:
        _send(found, asked)
    else:
        _say_supplies(found)
    _say_code(code, brought)
    sent = as_sent(asked.sweep, found).model_dump(mode="json")
    sweep = yaml.safe_dump(sent, sort_keys=False, allow_unicode=True)
    repeated = {"--retry": retry, "--retrain": retrain, "--rerun": rerun}
    repeated |= {"--rerun-stale": rerun_stale, "--keep-stale": keep_stale}
    flags = [flag for flag, given in repeated.items() if given]
    job = jobs.submit(asked.name, sweep, results, flags, flags=asked.flags, modules=code.modules, packages=brought)
    typer.echo(job)
    typer.echo(f"'sgbench logs {job} --follow' shows its output, 'sgbench stop {job}' stops it.", err=True)


def _say_code(code: "Code", packages: "Sequence[Package]") -> None:
    """Say which modules and packages are sent, and which packages the cluster must have."""
    from sgbench.core.packages import obstacle

    for module in code.modules:
        typer.echo(f"sent along: {module.file} ({len(module.content):,} bytes)", err=True)
    for each in packages:
        typer.echo(f"sent along: {each} ({each.size:,} bytes)", err=True)
    for package in sorted({*code.packages} - {each.name for each in packages}):
        needed = f"{package} {importlib.metadata.version(package)}"
        hint = "" if obstacle(package) else f"; --with {package} sends it"
        typer.echo(f"every node must have {needed}, which the job checks before its runs start{hint}", err=True)


def _seen_by_all(results: str | None) -> str:
    """Return the store of a job.

    Raises:
        InputError: If none is given, it is a folder that only this machine has, or a URI with credentials, which Ray
            would keep with the job.
    """
    from sgbench.core.errors import InputError
    from sgbench.core.storage import absolute

    if results is None or not re.match("/|[a-z0-9]+://", results, re.IGNORECASE):
        given = "not given" if results is None else f"'{results}'"
        raise InputError(
            f"--results is {given}; a job needs a store that all nodes can reach, such as s3://bucket/results or "
            "/shared/results."
        )
    return absolute(results)


def _check_store(asked: options.Asked, *, upload: bool) -> None:
    """Refuse a store that this machine cannot send to, and sets that are to be in it and are not.

    Raises:
        InputError: If it is such a store, or lacks such a set.
    """
    from sgbench.core.errors import InputError
    from sgbench.runs.delivery import refuse_absent
    from sgbench.spec import packed_digest

    there = [reference for reference, _ in asked.sweep.sets() if packed_digest(reference)]
    if not there and not upload:
        return
    storage = asked.storage
    if storage.is_local and not Path(storage.root).parent.is_dir():
        if upload:
            raise InputError(
                f"--upload-data: '{Path(storage.root).parent}' does not exist on this machine; give --results a store "
                "that it shares with the cluster, such as s3://bucket/results."
            )
        return  # a folder that only the cluster has
    refuse_absent(there, storage)


def _send(found: "Sequence[Supply]", asked: options.Asked) -> None:
    """Say where everything comes from, and put into the store what is on this machine and not there."""
    from sgbench.cli import output
    from sgbench.core.errors import resumable
    from sgbench.core.storage import Storage
    from sgbench.core.words import in_bytes
    from sgbench.runs.delivery import parcels, send
    from sgbench.runs.supply import SENT, with_sizes
    from sgbench.store import Store

    sent = [each for each in found if each.how == SENT]
    images = [each.images for each in sent if each.images]
    storage = asked.storage
    with tempfile.TemporaryDirectory(prefix="sgbench-") as folder:
        starts = [each.start for each in sent if each.start]
        files = {name: Path(folder, name) for name in (start.write(Storage(folder)) for start in starts)}
        networks = [each.name for each in sent if each.kind == "network"]
        lacking = parcels(images, networks, storage, files)
        _say_supplies(with_sizes(found, lacking))
        if size := sum(parcel.size for parcel in lacking):
            output.say(f"sending {in_bytes(size)} to '{storage}'")
            with (
                resumable("sending"),
                Store(storage).writing(f"sgbench submit {asked.name}"),
                output.screen.sending() as moved,
            ):
                send(lacking, storage, moved)


def _say_supplies(found: "Sequence[Supply]") -> None:
    """Print a table of where everything comes from on standard error."""
    from sgbench.cli import output
    from sgbench.core.words import in_bytes

    output.say_rows(
        [
            {
                "needed": each.name,
                "as": each.kind,
                "how": each.how,
                "size": each.size and in_bytes(each.size),
                "from": each.source,
            }
            for each in found
        ]
    )
