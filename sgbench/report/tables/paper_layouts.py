"""How the paper lays out its tables: rows and columns in its order and under its names."""

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sgbench.core.words import listed
from sgbench.report.tables.model import titled
from sgbench.spec import split_backbone

DATASETS = ("Set5", "Set14", "Urban100", "B100", "Manga109")
FAMILIES = {"edsr": "EDSR", "rdn": "RDN", "rcan": "RCAN", "swinir": "SwinIR"}
METRICS = {"lpips_alex": "LPIPS", "fid": "FID"}

SG = "l1 + 1.0*sg"
LAMBDAS = {
    "l1": "λ = 0",
    "l1 + 0.01*sg": "λ = 0.01",
    "l1 + 0.1*sg": "λ = 0.1",
    SG: "λ = 1",
    "l1 + 10.0*sg": "λ = 10",
}
LOSSES = {"l1": "L1 loss", "l2": "L2 loss", "ssim": "SSIM loss", "charbonnier": "Charbonnier loss", SG: "L1 + SG loss"}
TRIALS = {seed: str(seed + 1) for seed in range(5)}

OF = {"1": ("l1", SG), "2": (SG,), "3": tuple(LAMBDAS), "5": tuple(LOSSES)}
"""The losses of each table that has numbers; Table 4 is a list of symbols."""


class Slot(NamedTuple):
    """A place on an axis: what a person reads, and the coordinates of its cells."""

    label: str
    place: Mapping[str, Any]
    group: str = ""
    """As in `sgbench.report.tables.model.Column`."""


class Axis(NamedTuple):
    """A head and the slots under it; one that is not shown still says where its cells are."""

    head: str
    title: str
    slots: Sequence[Slot]
    shown: bool = True


@dataclass(frozen=True)
class Layout:
    """A table of the paper without its numbers: rows and columns from the outermost axis to the innermost."""

    title: str
    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]


@dataclass(frozen=True)
class Subject:
    """What is laid out.

    Attributes:
        backbones: The name under which each one stands, in order; one, unless it is Table 1.
        datasets: In order.
        metrics: In order, each with its direction.
        sources: ``ours``, ``paper`` or both, in order.
    """

    backbones: Mapping[str, str]
    datasets: Sequence[str]
    metrics: Mapping[str, str | None]
    sources: tuple[str, ...]


@functools.cache
def family(backbone: str) -> str:
    """Return the family of a backbone; asking for it goes through all entry points."""
    return split_backbone(backbone)[0]


def layout(number: str, subject: Subject) -> Layout:
    """Lay out a table of the paper, whose number is a key of `OF`."""
    sources = Axis("source", "", [Slot(name, {"source": name}) for name in subject.sources], len(subject.sources) > 1)
    metrics = Axis(
        "metric", "Metric", [Slot(paper_name(*each), {"metric": each[0]}) for each in subject.metrics.items()]
    )
    sets = Axis("dataset", "DataSet", [Slot(name, {"dataset": name}) for name in subject.datasets])
    one_set = sets._replace(shown=len(sets.slots) > 1)
    backbones = Axis("backbone", "", [Slot("", {"backbone": name}) for name in subject.backbones], shown=False)
    where = f" on {subject.datasets[0]}" if len(subject.datasets) == 1 else ""
    name = f"Table {number} of the paper: {listed(subject.backbones.values())}"
    if number == "1":
        pairs = Axis("loss", "", list(_pairs(subject.backbones)))
        return Layout(f"{name} with L1 and with L1 + SG", (sets, metrics, sources), (pairs,))
    if number == "2":
        trials = [Slot(label, {"seed": seed, "loss": SG}) for seed, label in TRIALS.items()]
        trials.append(Slot("mean", {"loss": SG}))
        return Layout(
            f"{name} trained five times with L1 + SG", (sets, metrics, sources), (backbones, Axis("seed", "", trials))
        )
    if number == "3":
        weights = Axis("loss", "", [Slot(label, {"loss": loss}) for loss, label in LAMBDAS.items()])
        return Layout(f"{name} with L1 + λ·SG{where}", (one_set, metrics, sources), (backbones, weights))
    losses = Axis("loss", "Loss", [Slot(label, {"loss": loss}) for loss, label in LOSSES.items()])
    return Layout(f"{name} with five losses{where}", (one_set, losses, sources), (backbones, metrics))


def in_order(place: Mapping[str, Any]) -> dict[str, Any]:
    """Return coordinates in the order in which programs read them."""
    return {name: place[name] for name in ("source", "dataset", "backbone", "loss", "seed", "metric") if name in place}


def paper_name(metric: str, direction: str | None) -> str:
    """Return what the paper calls a metric, with an arrow."""
    return titled(METRICS.get(metric, metric), direction)


def _pairs(backbones: Mapping[str, str]) -> Iterable[Slot]:
    for backbone, title in backbones.items():
        yield Slot(title, {"backbone": backbone, "loss": "l1"}, backbone)
        yield Slot(f"{title}+SG", {"backbone": backbone, "loss": SG}, backbone)


def crossed(axes: Sequence[Axis]) -> list[tuple[tuple[str, ...], dict[str, Any], str]]:
    """Return labels, coordinates and group of every combination of slots, the last axis varying fastest."""
    return [
        (
            tuple(slot.label for axis, slot in zip(axes, slots, strict=True) if axis.shown),
            {name: value for slot in slots for name, value in slot.place.items()},
            next(filter(None, (slot.group for slot in slots)), ""),
        )
        for slots in itertools.product(*(axis.slots for axis in axes))
    ]
