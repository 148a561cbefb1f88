"""``sgbench eval``: scores of a run, a checkpoint, a folder of images or a built-in method."""

from typing import Annotated

import typer

from sgbench.cli import options
from sgbench.core.streams import nothing_on_stdout

EXAMPLES = (
    "sgbench eval bicubic --test Set5=data/Set5/HR",
    "sgbench eval 3f2a9c --results results/quick --test Set14=data/Set14/HR",
    "sgbench eval results/SwinIR HAT=results/HAT/Set5 --test Set5=data/Set5/HR --metric lpips_alex",
    "sgbench eval EDSR_x4.pth --backbone edsr-paper --test Set5 --self-ensemble",
)


def evaluate(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="WHAT...", help="A run id, a checkpoint file, a folder of SR images, or 'bicubic'; also NAME=WHAT."
        ),
    ],
    test: Annotated[
        list[str],
        typer.Option(
            "--test", metavar=options.REFERENCE, help="A test set (repeatable); NAME=none,lr=DIR has no HR images."
        ),
    ],
    results: Annotated[
        str, typer.Option("--results", metavar="DIR", help="Results store, a folder or URI.")
    ] = "results/eval",
    metric: options.Metrics = None,
    backbone: Annotated[
        str | None,
        typer.Option("--backbone", metavar="NAME", help="Backbone of a checkpoint that names none, or a plug-in."),
    ] = None,
    scale: options.Scale = 4,
    self_ensemble: Annotated[
        bool, typer.Option("--self-ensemble", help="Average a network's output over 8 rotations and reflections.")
    ] = False,
    tile: Annotated[
        int | None, typer.Option("--tile", metavar="N", help="Tile images by N×N LR pixels, to save memory.")
    ] = None,
    overlap: Annotated[int, typer.Option("--overlap", help="Margin around each tile, in LR pixels.")] = 32,
    save_images: Annotated[
        bool, typer.Option("--save-images", help="Keep the super-resolved images in the store, as PNG.")
    ] = False,
    rerun: Annotated[bool, typer.Option("--rerun", help="Recompute existing scores.")] = False,
    as_json: options.Json = False,
) -> None:
    """Score runs, checkpoints, image folders or built-in methods on test sets, and keep the scores in a store.

    A run must be in the store; its final weights are scored with the scale and degradation of its training. With
    --self-ensemble or --tile, the scores have their own row and do not count as the run's. Files of a folder are
    matched with the images by their names (baby.png, babyx4.png, baby_SwinIR.png). What cannot be used of several
    things is reported, and the rest is scored.
    """
    from sgbench.analysis import Filters, View, load_results
    from sgbench.cli import output
    from sgbench.core.storage import Storage, absolute
    from sgbench.runs.evaluate import METRICS
    from sgbench.runs.evaluate import evaluate as carry_out
    from sgbench.scoring.upscaling import Inference

    storage = Storage(absolute(results))
    with nothing_on_stdout():
        done = carry_out(
            what,
            test,
            storage,
            output.screen,
            metrics=metric or METRICS,
            backbone=backbone,
            scale=scale,
            inference=Inference(self_ensemble, tile, overlap),
            save_images=save_images,
            rerun=rerun,
        )
    shown = Filters(runs=done.run_ids, datasets=done.tests, metrics=done.metrics)
    output.print_results(View(load_results(storage.root)), shown, as_json=as_json, notes=done.remarks)
    for fault in done.faults:
        output.say(fault)
    if done.faults:
        raise typer.Exit(1)
