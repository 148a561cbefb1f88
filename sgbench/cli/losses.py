"""``sgbench losses``: the registered losses, and their options."""

import inspect
from typing import Any

from sgbench.cli import entries, options
from sgbench.core.plugins import FAULTS
from sgbench.core.registry import DISCRIMINATORS, LOSSES
from sgbench.core.streams import nothing_on_stdout

EXAMPLES = ("sgbench losses", "sgbench losses --json")

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def losses(as_json: options.Json = False) -> None:
    """List registered losses: their options with the defaults, what they are, their sources, and how well they agree.

    'compared with' names the code of others that a loss was compared with on equal images, and by how much the loss and
    its gradient differ from that at most, relative to the loss and to the largest slope, in float32.

    Training minimises a weighted sum of them, such as 'l1 + 0.1*sg(operator=sobel, order=1)'.
    """
    from sgbench.cli import output

    with nothing_on_stdout():
        rows = [_row(name) for name in LOSSES.names()]
    if as_json:
        output.print_json(rows)
        return
    output.print_rows([_readable(row) for row in rows], as_json=False)
    output.say("Also: your own as my_module:MyLoss.")
    output.say(f"Discriminators of gan: {', '.join(DISCRIMINATORS.names())}, or your own as my_module:MyDiscriminator.")


def _row(name: str) -> dict[str, Any]:
    keys = ("options", "summary", "source", "networks", "reference", "difference")
    row: dict[str, Any] = {"name": name, **dict.fromkeys(keys)}
    if declared := LOSSES.declaration(name):
        return {**row, **vars(declared), "error": None}
    try:
        loss = LOSSES.load(name)
        row |= {"options": _defaults(loss), "summary": entries.first_line(loss)}
    except FAULTS as error:
        return {**row, "error": entries.reason(error)}
    return {**row, "source": getattr(loss, "source", None), "networks": getattr(loss, "networks", ()), "error": None}


def _defaults(loss: Any) -> dict[str, Any]:
    """Return the options of a loss's constructor with their defaults; None if there is no default."""
    named = (each for each in inspect.signature(loss).parameters.values() if each.kind not in VARIADIC)
    return {each.name: None if each.default is each.empty else each.default for each in named}


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    from sgbench.spec.expression import Term

    written = Term(row["name"], options=row["options"] or {}).call
    compared = None if row["difference"] is None else f"{row['reference']}: ≤ {row['difference']:g}"
    return {
        "loss": written,
        "what it is": row["error"] or row["summary"],
        "source": row["source"],
        "compared with": compared,
        "networks": ", ".join(row["networks"] or ()),
    }
