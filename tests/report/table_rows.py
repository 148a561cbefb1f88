"""Rows of small stores, and what becomes of them on a terminal."""

import datetime
import io
import json
import re
from typing import Any

from rich.console import Console

from sgbench.analysis import Filters, Results, View
from sgbench.report import tables
from sgbench.report.tables import Table
from sgbench.store import Dataset, Planned
from sgbench.store.schema import to_table

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
LOWER = {"direction": "lower", "network": "AlexNet", "colour_space": "RGB", "border_crop": None}
HIGHER = {"direction": "higher", "colour_space": "Y of BT.601, not rounded", "border_crop": 4}


def run(run_id: str, loss: str = "l1", seed: int = 0, backbone: str = "edsr-tiny", **columns: Any) -> dict[str, Any]:
    row = {"run_id": run_id, "kind": "train", "name": run_id, "backbone": backbone, "loss": loss, "seed": seed}
    row |= {"scale": 4, "train": "demo", "train_sha256": "ab" * 32, "steps": 1200, "status": "done", "step": 1200}
    row |= {"batch": 8, "patch": 32, "lambda": sum(map(float, re.findall(r"([\d.]+)\*sg", loss)))}
    return row | columns


def other(run_id: str, kind: str, name: str) -> dict[str, Any]:
    return {"run_id": run_id, "kind": kind, "name": name, "scale": 4, "status": "done"}


def score(run_id: str, value: float | None, metric: str = "lpips_alex", dataset: str = "Set5", **columns: Any) -> Any:
    protocol = json.dumps(HIGHER if metric.startswith(("psnr", "ssim")) else LOWER)
    row = {"run_id": run_id, "dataset": dataset, "dataset_sha256": f"{dataset:0<64}", "metric": metric}
    row |= {"metric_version": "0.1", "protocol": protocol, "n_images": 5, "value": value, "status": "ok"}
    return {**row, "scored": NOW} | columns


def results(
    runs: list[dict[str, Any]],
    scores: list[dict[str, Any]],
    planned: list[Planned] | None = None,
    labels: dict[str, str] | None = None,
) -> Results:
    tables = (to_table("runs", runs), to_table("scores", scores), to_table("history", []))
    return Results.of(*tables, planned or [], labels=labels)


def plan(run_id: str, loss: str = "l1", seed: int = 0, **fields: Any) -> Planned:
    wanted = {"tests": ("Set5",), "metrics": ("lpips_alex",)} | fields
    wanted["tests"] = tuple(Dataset(name, f"{name:0<64}") for name in wanted["tests"])
    (row,) = to_table("runs", [run(run_id, loss, seed)]).to_pylist()
    return Planned(run=row, **wanted)


def pivot(shown: Results, **asked: Any) -> Table:
    axes = {name: asked.pop(name) for name in ("rows", "columns", "rank") if name in asked}
    return tables.pivot(View(shown), Filters(**asked), **axes)


def printed(table: Table, width: int | None) -> str:
    """Return what a terminal of some width, or a pipe, receives."""
    file = io.StringIO()
    if width is None:
        tables.shown(table).print(Console(file=file, _environ={}))
    else:
        console = Console(file=file, width=width, force_terminal=True, color_system=None, _environ={})
        tables.shown(table).print(console)
    return file.getvalue()
