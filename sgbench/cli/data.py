"""``sgbench data``: list, download, prepare, verify and clean data sets."""

import functools
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sgbench.cli import options
from sgbench.cli.commands import below, command
from sgbench.core.errors import InputError
from sgbench.core.words import plural

if TYPE_CHECKING:
    from sgbench.data import DataSet, Packing, SetStatus

app = typer.Typer(
    help="List, download, prepare, verify and clean data sets.",
    epilog=below("sgbench data list", "sgbench data fetch Set5 Set14"),
    no_args_is_help=True,
)

REFERENCES = f"{options.REFERENCE}..."


@command(app, "sgbench data list", "sgbench data list --json", name="list")
def list_sets(as_json: options.Json = False) -> None:
    """List known data sets: whether they are available locally, their terms, and how to get them."""
    from sgbench.cli import output
    from sgbench.data import inventory

    statuses = inventory()
    if as_json:
        output.print_json([_record(status) for status in statuses])
    else:
        output.print_entries({status.entry.name: _lines(status) for status in statuses})


@command(app, "sgbench data fetch Set5 Set14", "sgbench data fetch DIV2K --lr --scale 4")
def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names that 'sgbench data list' shows.")],
    lr: Annotated[bool, typer.Option("--lr", help="Get the low-resolution files of --scale as well.")] = False,
    scale: options.Scale = 4,
    as_json: options.Json = False,
) -> None:
    """Download data sets to $SGBENCH_DATA or the cache, resume interrupted downloads, and check every archive."""
    from sgbench.cli import output
    from sgbench.data import fetch as fetch_sets

    with output.screen.fetching() as progress:
        fetched = fetch_sets(names, lr_scale=scale if lr else None, progress=progress)
    rows: list[dict[str, Any]] = [
        {"name": each.name, "outcome": each.outcome, "folder": str(each.folder)} for each in fetched
    ]
    if as_json:
        rows = [row | {"remark": each.remark} for row, each in zip(rows, fetched, strict=True)]
    output.print_rows(rows, as_json=as_json)
    for each in fetched:
        if each.remark:
            output.say(each.remark)
    if any(each.outcome == "failed" for each in fetched):
        raise typer.Exit(1)


@command(app, "sgbench data prepare mine=photos", "sgbench data prepare Set5,lr --role test")
def prepare(
    what: Annotated[list[str], typer.Argument(metavar=REFERENCES, help="Data sets or folders of images.")],
    role: Annotated[Literal["train", "test"], typer.Option(help="What the images are for.")] = "train",
    scale: options.Scale = 4,
    as_json: options.Json = False,
) -> None:
    """Decode images, make the low-resolution ones and pack both, once; sweeps do this automatically.

    ',lr' packs the low-resolution files that a set ships instead, ',lr=DIR' those in a folder. NAME=DIR+DIR is a set of
    several folders; ',recursive' searches the folders in them, and ',split=0.05' leaves out every 20th image.
    """
    from sgbench.cli import output
    from sgbench.data import pack_set
    from sgbench.spec import Recipe

    recipe = Recipe.model_validate({"scale": scale})
    with output.screen.packing() as progress:
        packed = [pack_set(each, role, recipe, progress) for each in what]
    rows = [
        {
            "name": each.name,
            "images": len(each),
            "held_out": each.held_out or None,
            "lr": each.lr_folder or "made",
            "sha256": each.sha256[:12],
            "folder": str(each.path),
        }
        for each in packed
    ]
    output.print_rows(rows, as_json=as_json)


@command(app, "sgbench data verify", "sgbench data verify Set5 mine=photos --scale 4")
def verify(
    what: Annotated[
        list[str] | None, typer.Argument(metavar=f"[{REFERENCES}]", help="Prepared sets; all by default.")
    ] = None,
    role: Annotated[Literal["train", "test"] | None, typer.Option(help="Only sets prepared for this.")] = None,
    scale: Annotated[int | None, typer.Option(min=2, max=4, help="Only sets prepared for this factor.")] = None,
    as_json: options.Json = False,
) -> None:
    """Compare all pixels of prepared sets with their hashes; exit code 1 if any has changed."""
    from sgbench.cli import output
    from sgbench.data import default_cache, list_packings

    packings = [
        packing
        for packing in list_packings(default_cache(), what or ())
        if role in (None, packing.role) and scale in (None, packing.scale)
    ]
    with output.screen.verifying() as progress:
        rows = [_verified(packing, progress) for packing in packings]
    if rows or as_json:
        output.print_rows(rows, as_json=as_json)
    else:
        output.say(f"no such sets are prepared in '{default_cache()}'")
    if any(row["result"] != "ok" for row in rows):
        raise typer.Exit(1)


@command(app, "sgbench data clean", "sgbench data clean --older-than 7 --keep 20 --yes")
def clean(
    older_than: Annotated[
        float, typer.Option("--older-than", min=1, metavar="30", help="Days for which a set must not have been used.")
    ] = 30,
    keep: Annotated[
        float | None, typer.Option("--keep", min=0, metavar="GB", help="Delete only until the rest takes no more.")
    ] = None,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Delete prepared sets that nothing has used for a while, oldest first, and what killed processes left.

    Sweeps prepare what they need again. Downloaded data sets and pretrained networks are left alone.
    """
    from sgbench.cli import output
    from sgbench.data import default_cache, discard, unused

    found = unused(default_cache(), older_than, None if keep is None else round(1e9 * keep))
    for each in found:
        output.say(f"{each.path}: {each.size / 1e6:,.1f} MB, last used {each.days:,.0f} days ago")
    if found:
        options.ask(f"Delete {plural(len(found), 'folder')}?", yes)
    for each in found:
        discard(each.path)
    if as_json:
        output.print_json({str(each.path): each.size for each in found})
    else:
        output.say(f"{sum(each.size for each in found) / 1e6:,.1f} MB freed")


def _verified(packing: "Packing", progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    from sgbench.data import PackedImages

    label = f"{packing.name} {packing.role} ×{packing.scale}"
    try:
        PackedImages.open(packing.path).verify(functools.partial(progress, label))
        result = "ok"
    except InputError as error:
        result = str(error)
    return {
        "name": packing.name,
        "role": packing.role,
        "scale": packing.scale,
        "result": result,
        "folder": str(packing.path),
    }


def _lines(status: "SetStatus") -> list[str]:
    """Return the printed lines on a data set: where it is, what it is, its terms, how to get it."""
    entry = status.entry
    here = [
        f"{part.found} of {part.expected} {part.role} images in {part.folder}"
        + "".join(f", LR ×{scale}" for scale in part.lr_scales)
        for part in status.parts
        if part.found
    ]
    packed = sorted({f"{packing.role} ×{packing.scale}" for packing in status.packed})
    kin = [f"Contains {name}." for name in sorted(entry.contains)]
    kin += [f"Lies inside {name}." for name in _containing(entry)]
    return [
        *(here or ["not here"]),
        *([f"prepared: {', '.join(packed)}"] if packed else []),
        " ".join([entry.description, *kin]),
        entry.terms,
        f"{_how(entry)} {entry.homepage}",
    ]


def _how(entry: "DataSet") -> str:
    if not entry.archives:
        return entry.by_hand()
    size = sum(archive.size for archive in entry.archives_of())
    checked = " and ".join(sorted({archive.digest.partition(":")[0].upper() for archive in entry.archives}))
    return f"'sgbench data fetch {entry.name}' downloads {size / 1e6:,.0f} MB, checked by {checked}."


def _containing(entry: "DataSet") -> list[str]:
    from sgbench.data import CATALOG

    return [name for name, other in CATALOG.items() if entry.name in other.contains]


def _record(status: "SetStatus") -> dict[str, Any]:
    entry = status.entry
    return {
        "name": entry.name,
        "description": entry.description,
        "terms": entry.terms,
        "homepage": entry.homepage,
        "by_hand": entry.by_hand(),
        "contains": sorted(entry.contains),
        "inside": _containing(entry),
        "parts": [asdict(part) for part in status.parts],
        "prepared": [asdict(packing) for packing in status.packed],
        "archives": [{"url": each.url, "size": each.size, "digest": each.digest} for each in entry.archives],
    }
