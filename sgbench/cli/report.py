"""``sgbench report``: a store as a single HTML page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sgbench.cli import options
from sgbench.core.errors import InputError

if TYPE_CHECKING:
    from sgbench.core.storage import Storage
    from sgbench.data import PackedImages
    from sgbench.spec import Recipe

EXAMPLES = (
    "sgbench report",
    "sgbench report --test Set5=data/Set5/HR --images 3",
    "sgbench report --results s3://bucket/mine --backbone edsr-tiny --title 'What SG is worth' --out mine.html",
)


def report(
    results: options.Results = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="File to write (overwritten). Default: report.html in the store."),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(
            "--test",
            metavar=options.REFERENCE,
            help="Only this test set; with =DIR, its HR images are shown too (repeatable).",
        ),
    ] = None,
    backbone: options.Backbones = None,
    loss: options.Losses = None,
    lam: Annotated[str | None, typer.Option("--lambda", metavar="0,0.1,1", help="Only these λ.")] = None,
    seeds: options.OnlySeeds = None,
    metric: options.Metrics = None,
    images: Annotated[
        int | None, typer.Option("--images", min=0, metavar="5", help="Saved images to show per test set. Default: 5.")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="Title of the page.")] = None,
) -> None:
    """Write a self-contained HTML page: significant differences, tables, figures, images, every run.

    It can be read offline and without sgbench. It shows the images that sgbench eval --save-images has kept.
    """
    from sgbench.analysis import Filters, View, load_results
    from sgbench.cli import output
    from sgbench.core.storage import Storage
    from sgbench.report import page
    from sgbench.spec import set_name

    root = options.find_store(results)
    view, storage = View(load_results(root)), Storage(root)
    out = out or _in_store(storage)
    filters = Filters(
        backbones=backbone,
        losses=loss,
        lambdas=options.numbers("--lambda", lam, float) or None,
        seeds=options.read_seeds(seeds) or None,
        datasets=[set_name(each) for each in test] if test else None,
        metrics=metric,
    )
    filters = view.resolved(filters)
    hr = _packed(test or [], page.degradations(view, filters, storage))
    content = page.gather(
        view,
        filters,
        storage,
        title or f"sgbench report: {Path(root).name}",
        hr,
        page.IMAGES if images is None else images,
    )
    output.write(out, page.render(content).encode())
    typer.echo(f"written to {out}", err=True)


def _in_store(storage: "Storage") -> Path:
    if not storage.is_local:
        raise InputError(f"'{storage}' is not a local folder; say with --out where to write the page.")
    return Path(storage.path("report.html"))


def _packed(tests: list[str], recipes: "list[Recipe]") -> "list[tuple[str, PackedImages]]":
    """Pack the test sets whose folders are given for each recipe, or find them packed."""
    from sgbench.cli import output
    from sgbench.data import pack_set

    with output.screen.packing() as progress:
        return [(each, pack_set(each, "test", recipe, progress)) for each in tests if "=" in each for recipe in recipes]
