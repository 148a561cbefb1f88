"""Showing whether metrics agree: a table of every two, one of what each says of a loss, sentences and notes."""

import csv
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sgbench.analysis.agreement import Agreement, Agreements
from sgbench.analysis.compare import Place
from sgbench.analysis.kendall import FEWEST, Tau
from sgbench.core.words import plural, printable_lines
from sgbench.report.compare import stale_sentence
from sgbench.report.grids import Grid, parts, to_html, to_latex, to_markdown
from sgbench.report.sequences import interval_of
from sgbench.report.shown import Shown
from sgbench.report.tables.data import json_text, no_formula
from sgbench.report.tables.model import titled

SAYING = {
    "significantly better": {"better": True, "significant": True},
    "better": {"better": True, "significant": False},
    "worse": {"better": False, "significant": False},
    "significantly worse": {"better": False, "significant": True},
}
"""Arguments of `Witnesses.saying`, by the header of their column."""


def grids(found: Agreements) -> Iterator[Grid]:
    """Yield a table of every two metrics for each place, and one of what each metric says of the losses."""
    for place in found.places:
        if pairs := [each for each in found.pairs if each.place == place]:
            level = f"{100 * (1 - found.alpha):g}% CI"
            heads = ("metric", "and", "τ over losses", level, "τ in an image", level)
            fewest, most = min(counts := [len(each.losses) for each in pairs]), max(counts)
            yield Grid(
                f"{place}: every two metrics, {fewest if fewest == most else f'{fewest} to {most}'} losses",
                (*heads, "opposite", "contradicted"),
                tuple(_row(found, each) for each in pairs),
                _about_pairs(pairs),
            )
    if found.witnesses:
        where = {
            "test set": [each.place.dataset for each in found.witnesses],
            "backbone": [each.place.where for each in found.witnesses],
        }
        differing = {head: names for head, names in where.items() if len({*names}) > 1}
        same = " with ".join(names[0] for head, names in where.items() if head not in differing)
        losses = [
            (found.labels[each.loss], *(", ".join(each.saying(**said)) for said in SAYING.values()))
            for each in found.witnesses
        ]
        yield Grid(
            ": ".join(filter(None, (same, f"each loss against {found.labels[found.baseline]}"))),
            (*differing, "loss", *SAYING),
            tuple((*places, *loss) for *places, loss in zip(*differing.values(), losses, strict=True)),
            _about_witnesses(found),
        )


def notes(found: Agreements) -> list[str]:
    """Return what the columns mean."""
    said = [stale_sentence(found.stale)] if found.stale else []
    said += found.left_out
    if found.pairs:
        level = f"{100 * (1 - found.alpha):g}%"
        said += [
            "τ is Kendall's τ-b, with better values counted as larger: 1 if two metrics order all losses alike, 0 if "
            "they agree on as many pairs as they disagree on, −1 if their orders are opposite. Over losses: of means "
            "over seeds and images. In an image: of means over seeds, averaged over the images.",
            f"{level} CI: for other losses of their kind and, in an image, other images; fewer than {FEWEST} losses "
            "have none.",
            "Opposite: pairs of losses whose means the two metrics order differently. Contradicted: pairs of which one "
            "is significantly better by one metric, and significantly worse by the other (`sgbench compare` of every "
            f"two, p corrected for all pairs of the test set ≤ {found.alpha:g}).",
        ]
    if found.witnesses:
        said.append(
            f"Against {found.labels[found.baseline]}: as `sgbench compare` of each loss says, p ≤ {found.alpha:g}, "
            "corrected for the test sets and backbones. A metric with equal means is in no column."
        )
    return said


def shown(found: Agreements) -> Shown:
    """Return agreements as terminals, notebooks and pandas show them."""
    return Shown(
        lambda width: parts(grids(found), notes(found), width),
        lambda: to_html(grids(found), notes(found)),
        to_rows(found),
    )


def to_data(found: Agreements) -> dict[str, Any]:
    """Return agreements as plain values for JSON, with full precision.

    Returns:
        ``pairs`` of metrics with τ and the pairs of losses on which they differ; ``losses``, each with its difference
        from the baseline by every metric; the ``baseline``, ``directions``, ``labels`` and ``notes``.
    """
    pairs = [
        row
        | {
            "losses": list(each.losses),
            "opposite": [*map(list, each.opposite)],
            "contradicted": [*map(list, each.contradicted)],
        }
        for row, each in zip(to_rows(found), found.pairs, strict=True)
    ]
    losses = [
        {
            **_of_place(each.place),
            "loss": each.loss,
            "by_metric": {
                metric: {
                    "difference": cell.difference,
                    "better": cell.better,
                    "verdict": cell.verdict,
                    "p": cell.p,
                    "interval": [*vars(interval).values()] if (interval := interval_of(cell.estimate)) else None,
                }
                for metric, cell in each.by_metric.items()
            },
        }
        for each in found.witnesses
    ]
    return {
        "pairs": pairs,
        "baseline": found.baseline,
        "losses": losses,
        "directions": dict(found.directions),
        "labels": {loss: label for loss, label in found.labels.items() if label != loss},
        "alpha": found.alpha,
        "notes": notes(found),
    }


def to_rows(found: Agreements) -> list[dict[str, Any]]:
    """Return a row for every two metrics of each place, with numbers only."""
    return [
        {
            **_of_place(each.place),
            "a": each.a,
            "b": each.b,
            "losses": len(each.losses),
            "images": each.images,
            **_of_tau("over_losses", each.over_losses),
            **_of_tau("in_an_image", each.in_an_image),
            "pairs": each.pairs,
            "opposite": len(each.opposite),
            "contradicted": len(each.contradicted),
        }
        for each in found.pairs
    ]


def to_json(found: Agreements) -> str:
    """Return `to_data` as text."""
    return json_text(to_data(found)) + "\n"


def to_csv(found: Agreements) -> str:
    """Return `to_rows` as CSV."""
    rows, file = to_rows(found), io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: no_formula(printable_lines(value)) if isinstance(value, str) else value for key, value in row.items()}
        for row in rows
    )
    return file.getvalue()


FORMATS: dict[str, Callable[[Agreements], str]] = {
    "markdown": lambda found: to_markdown(grids(found), notes(found)),
    "latex": lambda found: to_latex(grids(found)),
    "csv": to_csv,
    "html": lambda found: to_html(grids(found), notes(found)),
    "json": to_json,
}
"""Each ends with a line break."""


def _of_place(place: Place) -> dict[str, Any]:
    return {"dataset": place.dataset, "backbone": place.backbone, "scale": place.scale, "recipe": place.recipe}


def _of_tau(name: str, tau: Tau | None) -> dict[str, float | None]:
    interval = tau.interval if tau else None
    return {
        name: tau.value if tau else None,
        f"{name}_low": interval.low if interval else None,
        f"{name}_high": interval.high if interval else None,
    }


def _row(found: Agreements, each: Agreement) -> tuple[str, ...]:
    return (
        *(titled(metric, found.directions[metric]) for metric in (each.a, each.b)),
        *_shown_tau(each.over_losses),
        *_shown_tau(each.in_an_image),
        f"{len(each.opposite)} of {each.pairs}",
        str(len(each.contradicted)),
    )


def _shown_tau(tau: Tau | None) -> tuple[str, str]:
    if tau is None:
        return "", ""
    ends = [] if tau.interval is None else [tau.interval.low, tau.interval.high]
    return shown_tau(tau.value), " to ".join(map(shown_tau, ends))


def shown_tau(value: float) -> str:
    """Return τ with two decimals and a minus as wide as a plus."""
    return f"{value:z.2f}".replace("-", "−")


def _about_pairs(pairs: Sequence[Agreement]) -> str:
    """Return on how many pairs of losses all metrics agree, and how many two of them contradict."""
    every = {frozenset(pair) for each in pairs for pair in itertools.combinations(each.losses, 2)}
    opposite = {frozenset(pair) for each in pairs for pair in each.opposite}
    contradicted = {frozenset(pair) for each in pairs for pair in each.contradicted}
    metrics = len({name for each in pairs for name in (each.a, each.b)})
    return (
        f"Of {plural(len(every), 'pair')} of losses, {len(every) - len(opposite)} have the same order by all {metrics} "
        f"metrics, and {len(contradicted)} are contradicted: one is significantly better by one metric, and "
        "significantly worse by another."
    )


def _about_witnesses(found: Agreements) -> str:
    """Return how many losses are better, or worse, by some metric, and how many are both."""
    better, worse = (
        {at for at, each in enumerate(found.witnesses) if each.saying(better=way, significant=True)}
        for way in (True, False)
    )
    return (
        f"Of {plural(len(found.witnesses), 'difference')} from {found.labels[found.baseline]}, {len(better)} are "
        f"significantly better by some metric, {len(worse)} significantly worse by some, and "
        f"{len(better & worse)} both."
    )
