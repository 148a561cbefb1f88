"""``sgbench metrics calibrate`` and ``variants``: how far metrics are from the code of others, and from their kin."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgbench.cli import options
from sgbench.core.errors import InputError, unknown
from sgbench.core.registry import metric_named
from sgbench.core.streams import nothing_on_stdout
from sgbench.core.words import plural

if TYPE_CHECKING:
    from sgbench.calibration.comparison import Row
    from sgbench.calibration.pictures import Pictures

VARIANTS_EXAMPLES = ("sgbench metrics variants", "sgbench metrics variants PSNR SSIM --test Set5=DIR --format markdown")
EXAMPLES = (
    "sgbench metrics calibrate",
    "sgbench metrics calibrate --metric lpips_alex --test Set5=DIR --json",
    "sgbench metrics calibrate --format markdown",
)

DEFAULT = ("demo", "made")
"""The images that are compared by default: what comes with scikit-image, and made ones."""


FORMATS = ("rich", "markdown", "json")

Format = Annotated[str, typer.Option("--format", metavar="NAME", help=f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}.")]


def calibrate(
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME", help="Default: all that have a reference (repeatable)."),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(
            "--test",
            metavar=options.REFERENCE,
            help="A test set (repeatable); 'made' are difficult made images. Default: demo and made.",
        ),
    ] = None,
    scale: options.Scale = 4,
    form: Format = "rich",
    as_json: options.Json = False,
) -> None:
    """Compute metrics and the code of others on the same images, and show by how much their values differ.

    SR is MATLAB's bicubic of LR. 'ours' and 'theirs' are means over the images for which both sides have a value, and
    'difference' is the largest. Both sides get the same networks; one that is not available locally has random
    weights, the same on both sides. A reference that is not installed says how to install it.

    Exit code 1 if a difference is larger than the metric declares.
    """
    from sgbench.calibration.comparison import compare
    from sgbench.calibration.networks import SharedNetworks
    from sgbench.calibration.references import RECORDED, REFERENCES
    from sgbench.cli import output

    form = _checked("json" if as_json else form)
    valid_metrics = [*REFERENCES, *RECORDED]
    asked = [metric_named(name, valid_metrics) for name in metric or valid_metrics]
    for name in asked:
        if name not in valid_metrics:
            raise unknown("metric with a reference", name, valid_metrics)
    with nothing_on_stdout():
        pictures = list(_pictures(test or DEFAULT, scale))
        rows = []
        for row in compare(asked, pictures, SharedNetworks()):
            output.say(f"{row.metric} on {row.images}: {_outcome(row)}")
            rows.append(row)
    _print(form, [_record(row) for row in rows], [_readable(row) for row in rows])
    exceeding = [f"{row.metric} on {row.images}" for row in rows if row.exceeds]
    if exceeding:
        output.say(f"{plural(len(exceeding), 'difference')} larger than declared: {', '.join(exceeding)}.")
        raise typer.Exit(1)


def variants(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="PSNR, …; all by default.")] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(
            "--test",
            metavar=options.REFERENCE,
            help="A test set (repeatable). Default: one photograph of the demo set.",
        ),
    ] = None,
    scale: options.Scale = 4,
    form: Format = "rich",
    as_json: options.Json = False,
) -> None:
    """Show what one name stands for in public tables: each way to compute it, on the same images.

    SR is MATLAB's bicubic of LR, and values are means over the images. 'metric' is the one of sgbench that is computed
    so, if there is one; 'the same' refers to the first line of a name.
    """
    from sgbench.assets.locator import Locator
    from sgbench.calibration import pictures
    from sgbench.calibration.variants import VARIANTS, values

    form = _checked("json" if as_json else form)
    called = list(dict.fromkeys(each.called for each in VARIANTS))
    for name in names or ():
        if name not in called:
            raise unknown("name of variants", name, called)
    with nothing_on_stdout():
        shown = list(_pictures(test, scale)) if test else [pictures.photograph()]
        chosen = [each for each in VARIANTS if each.called in (names or called)]
        rows = [(each, value) for each in shown for value in values(each, Locator(), chosen)]
    records = [
        {
            "images": each.name,
            "name": value.variant.called,
            "variant": value.variant.text,
            "metric": value.metric,
            "value": value.value,
            "reason": value.reason,
        }
        for each, value in rows
    ]
    readable = [
        {
            "images": each.name if len(shown) > 1 else None,
            "name": value.variant.called,
            "variant": value.variant.text,
            "metric": value.metric,
            "value": value.reason if value.value is None else f"{value.value:.{value.variant.digits}f}",
        }
        for each, value in rows
    ]
    _print(form, records, readable)


def _checked(form: str) -> str:
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    return form


def _print(form: str, records: Sequence[dict[str, Any]], readable: Sequence[dict[str, Any]]) -> None:
    from sgbench.cli import output

    if form == "markdown":
        typer.echo(_markdown(readable))
    else:
        output.print_rows(records if form == "json" else readable, as_json=form == "json")


def _pictures(tests: Sequence[str], scale: int) -> "Iterator[Pictures]":
    from sgbench.calibration import pictures
    from sgbench.cli import output
    from sgbench.data import pack_set
    from sgbench.spec import Recipe

    for test in dict.fromkeys(tests):
        if test == pictures.MADE:
            yield pictures.made()
            continue
        with output.screen.packing() as progress:
            packed = pack_set(test, "test", Recipe.model_validate({"scale": scale}), progress)
        if not packed.has_hr:
            raise InputError(f"--test '{test}' has no HR images, and references compare with them.")
        yield pictures.of_test_set(packed)


def _outcome(row: "Row") -> str:
    return row.problem or (f"{row.difference:.1e}" if row.difference is not None else "no value")


def _readable(row: "Row") -> dict[str, Any]:
    from sgbench.metrics import display_of

    display = display_of(row.metric)
    ours, theirs = (None if value is None else display.number(value) for value in (row.ours, row.theirs))
    missing = [f"{each.image or 'the set'}: {each.reason}" for each in row.compared if each.reason]
    random = [f"random weights for {', '.join(row.random)}"] if row.random else []
    return {
        "images": row.images,
        "metric": row.metric,
        "ours": ours,
        "theirs": theirs,
        "difference": None if row.difference is None else f"{row.difference:.1e}",
        "declared": None if row.allowed is None else f"≤ {row.allowed:g}",
        "reference": row.reference,
        "remarks": "; ".join([*([row.problem] if row.problem else []), *missing, *random]),
    }


def _record(row: "Row") -> dict[str, Any]:
    return {
        **{name: getattr(row, name) for name in ("images", "metric", "version", "reference", "ours", "theirs")},
        **{name: getattr(row, name) for name in ("difference", "allowed", "exceeds", "problem", "random")},
        "compared": [
            {name: getattr(each, name) for name in ("image", "ours", "theirs", "difference", "reason")}
            for each in row.compared
        ],
    }


def _markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as a table in Markdown, without columns that are empty in every row."""
    from sgbench.report.tables.markdown import escaped, row

    heads = [key for key in rows[0] if any(each[key] for each in rows)]
    body = (row(escaped(str(each[key] or "")) for key in heads) for each in rows)
    return "\n".join([row(heads), row(["---"] * len(heads)), *body])
