"""``sgbench backbones``: the registered backbones, and what each costs."""

import importlib.util
from typing import Any

from sgbench.cli import entries, options
from sgbench.core.errors import InputError
from sgbench.core.plugins import FAULTS
from sgbench.core.registry import BACKBONES
from sgbench.core.streams import nothing_on_stdout

EXAMPLES = ("sgbench backbones", "sgbench backbones --scale 2", "sgbench backbones --json")

SIDE = 48
"""Side of the input for which MACs are counted, in LR pixels: that of the paper's patches."""


def backbones(scale: options.Scale = 4, as_json: options.Json = False) -> None:
    """List registered backbones: their sizes, and their sources.

    GMACs are 10⁹ multiply-accumulates of convolutions, matrix products and attention for an input of 48×48 pixels.

    A mean shift is fixed and adds neither parameters nor MACs.
    """
    from sgbench.cli import output

    with nothing_on_stdout():
        rows = [_row(name, scale) for family in BACKBONES.names() for name in _names(family)]
    if as_json:
        output.print_json({"scale": scale, "input": [SIDE, SIDE], "backbones": rows, "spandrel": _of_spandrel()})
        return
    output.print_rows(_readable(rows), as_json=False)
    installed = importlib.util.find_spec("spandrel") is not None
    how = "installed; --json lists them" if installed else "not installed: pip install 'sgbench[spandrel]'"
    output.say(f"Parameters and GMACs are for ×{scale}, GMACs for an input of {SIDE}×{SIDE} pixels.")
    output.say(
        f"Also: spandrel:ARCH, an architecture of the library spandrel ({how}), and your own as my_module:MyNet."
    )


def _names(family: str) -> list[str]:
    """Return the name of each size of a family, or the family's own if it has no sizes or cannot be imported."""
    from sgbench.spec import backbone_sizes

    try:
        return [f"{family}-{size}" for size in backbone_sizes(family)] or [family]
    except InputError:
        return [family]


def _row(name: str, scale: int) -> dict[str, Any]:
    from sgbench.backbones.cost import measure
    from sgbench.spec import split_backbone

    row: dict[str, Any] = {"name": name, "parameters": None, "macs": None, "mean_shift": None}
    try:
        row |= vars(measure(name, scale, SIDE))
    except FAULTS as error:
        return {**row, "source": None, "error": entries.reason(error)}
    backbone = BACKBONES.load(split_backbone(name)[0])
    return {**row, "source": getattr(backbone, "source", entries.first_line(backbone)), "error": None}


def _readable(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the rows as they are printed; the sizes of a family share one source, which is printed once."""
    printed = []
    for row, above in zip(rows, [{}, *rows], strict=False):
        cells = {"name": row["name"], "parameters": "", "GMACs": "", "mean shift": "", "source": row["error"] or ""}
        if not row["error"]:
            cells["parameters"] = f"{row['parameters']:,}"
            cells["GMACs"] = f"{row['macs'] / 1e9:.2f}"
            cells["mean shift"] = "yes" if row["mean_shift"] else "no"
            cells["source"] = "" if row["source"] == above.get("source") else row["source"]
        printed.append(cells)
    return printed


def _of_spandrel() -> list[str] | None:
    """Return the names of spandrel's architectures; None if it is not installed."""
    from sgbench.backbones.from_spandrel import usable

    try:
        return [f"spandrel:{architecture}" for architecture in usable()]
    except InputError:
        return None
