"""``sgbench metrics calibrate``: how far metrics are from the code of others."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgbench.cli import options
from sgbench.core.errors import InputError, unknown
from sgbench.core.streams import nothing_on_stdout
from sgbench.core.words import plural

if TYPE_CHECKING:
    from sgbench.calibration.comparison import Row
    from sgbench.calibration.pictures import Pictures

EXAMPLES = (
    "sgbench metrics calibrate",
    "sgbench metrics calibrate --metric lpips_alex --test Set5=DIR --json",
    "sgbench metrics calibrate --format markdown",
)

DEFAULT = ("demo", "made")
"""The images that are compared by default: what comes with scikit-image, and made ones."""


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
    form: Annotated[str, typer.Option("--format", metavar="NAME", help="rich, markdown or json.")] = "rich",
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
    from sgbench.calibration.references import REFERENCES
    from sgbench.cli import output

    form = "json" if as_json else form
    if form not in (valid := ("rich", "markdown", "json")):
        raise unknown("format", form, valid)
    for name in metric or ():
        if name not in REFERENCES:
            raise unknown("metric with a reference", name, REFERENCES)
    with nothing_on_stdout():
        pictures = list(_pictures(test or DEFAULT, scale))
        rows = []
        for row in compare(metric or list(REFERENCES), pictures, SharedNetworks()):
            output.say(f"{row.metric} on {row.images}: {_outcome(row)}")
            rows.append(row)
    if form == "json":
        output.print_json([_record(row) for row in rows])
    elif form == "markdown":
        typer.echo(_markdown([_readable(row) for row in rows]))
    else:
        output.print_rows([_readable(row) for row in rows], as_json=False)
    exceeding = [f"{row.metric} on {row.images}" for row in rows if row.exceeds]
    if exceeding:
        output.say(f"{plural(len(exceeding), 'difference')} larger than declared: {', '.join(exceeding)}.")
        raise typer.Exit(1)


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
        "declared": None if row.allowed is None else f"≤ {row.allowed:.0e}",
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
    from sgbench.report.tables.markdown import escaped, row

    body = (row(escaped(str(value or "")) for value in each.values()) for each in rows)
    return "\n".join([row(rows[0]), row(["---"] * len(rows[0])), *body])
