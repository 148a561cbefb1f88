"""Notebooks without Jupyter: cells run in order in one namespace, and what each shows is kept as Jupyter keeps it.

``python tests/notebook_cells.py examples/own_loss.ipynb`` runs a notebook and writes what it shows into it.
"""

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot
from matplotlib.figure import Figure

Output = dict[str, Any]


def sources(path: Path) -> list[str]:
    """Return the code of a notebook, a text for each cell."""
    return ["".join(cell["source"]) for cell in _load(path)["cells"] if cell["cell_type"] == "code"]


def run(codes: list[str]) -> list[list[Output]]:
    """Run the code of cells and return the outputs of each."""
    matplotlib.use("Agg")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    return [_run_cell(code, number, namespace) for number, code in enumerate(codes, start=1)]


def _run_cell(code: str, number: int, namespace: dict[str, Any]) -> list[Output]:
    tree = ast.parse(code)
    last = ast.Expression(tree.body.pop().value) if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"<cell {number}>", "exec"), namespace)
        value = eval(compile(last, f"<cell {number}>", "eval"), namespace) if last else None
    outputs: list[Output] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": _lines(printed.getvalue())})
    figures = [pyplot.figure(at) for at in pyplot.get_fignums()]
    pyplot.close("all")
    if value is not None:
        data: dict[str, Any] = {"text/plain": _lines(repr(value))}
        if html := getattr(value, "_repr_html_", lambda: None)():  # a figure has the method and returns None
            data["text/html"] = _lines(html)
        if isinstance(value, Figure):
            data["image/png"] = _png(value)
        outputs.append({"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data})
    shown = (_png(figure) for figure in figures if figure is not value)
    return outputs + [{"output_type": "display_data", "metadata": {}, "data": {"image/png": png}} for png in shown]


def _png(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100, bbox_inches="tight", metadata={"Software": None})
    return base64.b64encode(file.getvalue()).decode()


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _load(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def main() -> None:
    """Run a notebook in its folder and write its outputs into it."""
    path = Path(sys.argv[1]).absolute()
    notebook = _load(path)
    with contextlib.chdir(path.parent):
        outputs = run(sources(path))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, (cell, shown) in enumerate(zip(code, outputs, strict=True), start=1):
        cell |= {"execution_count": number, "outputs": shown}
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
