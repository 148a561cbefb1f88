"""``sgbench check``: whether losses, backbones and metrics keep the rules that training and scoring rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sgbench.cli import options
from sgbench.core.streams import nothing_on_stdout
from sgbench.core.words import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sgbench.testing import Outcome

EXAMPLES = (
    "sgbench check my_module:MyLoss",
    "sgbench check 'my_module:MyLoss(sigma=2)' my_module:MyNet --scale 2 --patch 16",
    "sgbench check l1 edsr-tiny psnr_y --json",
)

WIDTH = 12
"""Characters of the names of checks, with spaces."""


def check(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="TARGET...", help="A loss, backbone or metric, as a sweep names it."),
    ],
    scale: options.Scale = 4,
    patch: Annotated[
        int,
        typer.Option("--patch", min=8, metavar="N", help="Side of the LR patches, in pixels."),
    ] = 48,
    backbone: Annotated[
        str,
        typer.Option("--backbone", metavar="NAME", help="The network beside which a loss is timed."),
    ] = "edsr-tiny",
    as_json: options.Json = False,
) -> None:
    """Try losses, backbones and metrics on small images, and say which rules they break and what to fix.

    So a mistake shows in seconds and not after a night of training: a NaN where SR equals HR, a sum that grows with the
    batch, a tensor that stays on the CPU, a state that no checkpoint has. Of a sum of losses, each term is checked.
    Every plug-in of a sweep is tried by some of these checks before anything starts, and the module sgbench.testing has
    all of them for tests of your own.

    Exit code 1 if a check fails.
    """
    from sgbench.cli import output
    from sgbench.testing import outcomes, trials

    with nothing_on_stdout():
        found = [trial for target in targets for trial in trials(target, scale=scale, patch=patch, backbone=backbone)]
    done: list[Outcome] = []
    for trial in found:
        if not as_json:
            typer.echo(printable(trial.what))
        tried = outcomes(trial.checks())
        while outcome := _next(tried):
            done.append(outcome)
            if not as_json and outcome.passed is not None:
                _print(outcome)
        left = [outcome.check.name for outcome in done if outcome.check.trial is trial and outcome.passed is None]
        if left and not as_json:
            typer.echo(f"– {'not tried':{WIDTH}}{', '.join(left)}")
    if as_json:
        output.print_json([_row(outcome) for outcome in done])
    failed = sum(outcome.passed is False for outcome in done)
    output.say(f"{failed} of {len(done)} checks failed." if failed else f"All {len(done)} checks passed.")
    if failed:
        raise typer.Exit(1)


def _next(tried: Iterator[Outcome]) -> Outcome | None:
    with nothing_on_stdout():
        return next(tried, None)


def _print(outcome: Outcome) -> None:
    check, said = outcome.check, outcome.said
    if outcome.passed is False:
        typer.echo(printable(f"✗ {check.name:{WIDTH}}{said}"))
        typer.echo(f"{'':{2 + WIDTH}}fix: {check.rule.fix}")
    else:
        typer.echo(printable(f"✓ {check.name:{WIDTH}}{check.rule.text}{f' ({said})' if said else ''}"))


def _row(outcome: Outcome) -> dict[str, Any]:
    check, failed = outcome.check, outcome.passed is False
    return {
        "kind": check.trial.kind,
        "name": check.trial.name,
        "check": check.name,
        "rule": check.rule.text,
        "passed": outcome.passed,
        "said": outcome.said,
        "fix": check.rule.fix if failed else None,
    }
