"""Showing comparisons of two losses: a table for each metric, a sentence for each cell, and notes."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any

import rich.table
from rich import box
from rich.cells import cell_len
from rich.text import Text

from sgbench.analysis import View
from sgbench.analysis.anytime import G
from sgbench.analysis.compare import ALPHA, Comparison, Verdict, comparisons
from sgbench.analysis.power import POWER
from sgbench.analysis.stats import EXACT, RESAMPLES, Estimate, sign_flip_floor
from sgbench.analysis.view import chosen
from sgbench.core.errors import InputError
from sgbench.core.words import listed, plural
from sgbench.report.sequences import about_sequences, called, design, interval_of
from sgbench.report.shown import Part, Shown, paragraph, wrapped
from sgbench.report.tables.html import plain_table
from sgbench.report.tables.model import number, titled
from sgbench.spec.sources import in_words

STYLES = {Verdict.SIGNIFICANT: "bold", Verdict.INCONCLUSIVE: "yellow"}

Parts = tuple[str, ...]
"""The parts of a cell, side by side or, on a narrow terminal, stacked."""

_TITLES = ("", "", "", "overall", "by image", "by seed", "Holm", "")
_LEFT = (0, len(_TITLES) - 1)
"""Columns of words; the others hold numbers."""

_NARROW = 10
"""Width at which words wrap on a narrow terminal."""


def choose(
    cells: Sequence[Comparison], *, backbones: Sequence[str] | None = None, datasets: Sequence[str] | None = None
) -> list[Comparison]:
    """Return the cells to show; their p values stay corrected for all.

    Args:
        cells: The cells of a comparison.
        backbones: Only these, all by default.
        datasets: Only these test sets, all by default.

    Raises:
        InputError: If a filter names something that no cell has.
    """
    kept_backbones = chosen("backbone", backbones, {cell.backbone for cell in cells})
    kept_datasets = chosen("test set", datasets, {cell.dataset for cell in cells})
    return [
        cell
        for cell in cells
        if (kept_backbones is None or cell.backbone in kept_backbones)
        and (kept_datasets is None or cell.dataset in kept_datasets)
    ]


def sentence(cell: Comparison, *, reason: bool = True) -> str:
    """Return what a comparison found, for a person to read; a second sentence names the runs without a partner.

    Args:
        cell: The comparison.
        reason: Whether to say why it is inconclusive.
    """
    place = f"{cell.metric} on {cell.dataset} with {cell.where}"
    left_out = f" Left out: {'; '.join(cell.left_out)}." if cell.left_out else ""
    if cell.difference is None:
        return f"{cell.label_b} cannot be compared with {cell.label_a} by {place}: {cell.reason}.{left_out}"
    shown = shown_number(cell.metric, abs(cell.difference))
    verb = "changes" if not shown.strip("0.") else "lowers" if cell.difference < 0 else "raises"
    percent = "" if cell.percent is None else f"{abs(cell.percent):.1f}%"
    design = "; ".join(filter(None, (percent, _told_interval(cell), _design(cell))))
    return f"{cell.label_b} {verb} {place} by {shown} ({design}): {_told(cell, reason)}.{left_out}"


def places(cells: Iterable[Comparison]) -> str:
    """Return ``Set5 with edsr-tiny and rdn-tiny; Set14 with edsr-tiny``."""
    backbones: defaultdict[str, list[str]] = defaultdict(list)
    for cell in cells:
        backbones[cell.dataset].append(cell.where)
    datasets: defaultdict[str, list[str]] = defaultdict(list)
    for dataset, names in backbones.items():
        datasets[listed(dict.fromkeys(names))].append(dataset)
    return "; ".join(f"{listed(there)} with {names}" for names, there in datasets.items())


def in_places(what: str, reasons: Iterable[tuple[Comparison, str | None]]) -> list[str]:
    """Return a sentence for each reason, with all places that have it.

    Args:
        what: How the sentence begins.
        reasons: Of comparisons; none is passed over.
    """
    found: defaultdict[str, list[Comparison]] = defaultdict(list)
    for cell, reason in reasons:
        if reason:
            found[reason].append(cell)
    return [
        f"{what} by {listed(dict.fromkeys(cell.metric for cell in cells))} on {places(cells)}: {reason}."
        for reason, cells in found.items()
    ]


def pair(cell: Comparison) -> str:
    """Return ``A is l1, B is ours, which is l1 + 0.5*my_module:MyLoss.``; only a loss with a label is explained."""
    losses = ((cell.a, cell.label_a), (cell.b, cell.label_b))
    a, b = (label if label == loss else f"{label}, which is {loss}" for loss, label in losses)
    return f"A is {a}, B is {b}."


def notes(cells: Sequence[Comparison]) -> list[str]:
    """Return what the columns of the table mean, and how reliable they are, for cells of one comparison."""
    tested = [cell for cell in cells if cell.by_seed]
    stale = dict.fromkeys(plugin for cell in cells for plugin in cell.stale)
    said = [stale_sentence(stale)] if stale else []
    if not tested:
        return said
    said += _about_tests([cell for cell in tested if not cell.sequences])
    said += about_sequences([cell for cell in tested if cell.sequences])
    if sets := sorted({cell.metric for cell in tested if not cell.images}):
        said.append(f"{', '.join(sets)}: one value per test set and none per image, so only seeds can be tested.")
    if together := [cell for cell in tested if cell.sets]:
        which = " or ".join(dict.fromkeys(listed(cell.sets) for cell in together))
        own = " This is another question than those of single sets, and its p values are corrected by themselves."
        declared = any(sequence.declaration for cell in together for sequence in cell.sequences)
        said.append(
            f"All sets: the images of {which} as one sample, each counted once, and drawn within each set."
            + own * (not declared)
        )
    families = dict.fromkeys((cell.metric, bool(cell.sets), cell.family) for cell in tested)
    counts = ", ".join(f"{family} by {metric}{' on all sets' * on_all}" for metric, on_all, family in families)
    said.append(
        f"Significant: the largest p, corrected by Holm for all comparisons ({counts}), shown or not, is at most "
        f"{alphas(tested)}. Not significant does not mean that the losses are equal."
    )
    if any(cell.verdict is Verdict.NOT_SIGNIFICANT and cell.detectable for cell in tested):
        said.append(
            f"Minimum detectable effect: what so many seeds and images find significant in {POWER:.0%} of cases, if "
            "they vary as they do here and α is divided by the number of comparisons. It is an estimate, too."
        )
    if margins := dict.fromkeys(f"{cell.margin:g}" for cell in tested if cell.margin is not None):
        said.append(
            f"Equivalent: two one-sided tests show that the difference is within the margin, {listed(margins)}, each "
            "overall, by image and by seed; their largest p, corrected likewise, is at most α. Not worse by more: only "
            "the harmful side is shown. A margin that was chosen after a look proves nothing."
        )
    return said


def _about_tests(tested: Sequence[Comparison]) -> list[str]:
    """Return what the tests are of a number of seeds that was fixed beforehand; there may be no such comparison."""
    if not tested:
        return []
    said = []
    if images := [cell.images for cell in tested if cell.images]:
        drawn = f", above {EXACT} images {RESAMPLES:,} drawn at random" if max(images) > EXACT else ""
        said += [
            f"Overall: mean of B − A over seeds and images, by a crossed bootstrap with {RESAMPLES:,} resamples, "
            "widened for few seeds and images. In simulations, 95% intervals covered the truth in 93% to 96% of cases "
            "with 3 to 10 seeds, and in as few as 86% with 2, or if seeds or images are far from normal.",
            "By image: every sign flip of the images' differences, which are means over seeds and assumed to be "
            f"symmetric{drawn}; (floor) is the smallest p that the number of images allows.",
        ]
    floors = ", ".join(
        f"{shown_p(sign_flip_floor(n))} with {n} seeds" for n in sorted({len(cell.seeds) for cell in tested})
    )
    said.append(
        "By seed: Student's t-test of the seeds' differences, which are means over images. It assumes normality, which "
        f"so few seeds cannot confirm; sign flips, which do not, could not give a p below {floors}."
    )
    return said


def stale_sentence(plugins: Iterable[str]) -> str:
    """Return that the code of plug-ins, by kind and name, is another now."""
    return f"Stale: the code of {in_words(plugins)} has changed since runs were trained."


def compared(
    view: View,
    a: str,
    b: str,
    *,
    metrics: Sequence[str] | None = None,
    backbones: Sequence[str] | None = None,
    tests: Sequence[str] | None = None,
    alpha: float = ALPHA,
    anytime: bool = False,
    g: float | None = None,
    equivalent: float | None = None,
) -> list[Comparison]:
    """Compare two losses as a person requests it.

    Args:
        view: A store.
        a: The loss to compare against.
        b: The loss to compare.
        metrics: Only these, by default `View.default_metrics`.
        backbones: Only these, all by default; p values stay corrected for all.
        tests: Only these test sets, all by default.
        alpha: See `sgbench.analysis.compare.comparisons`.
        anytime: Whether to judge everything by tests that allow for any number of looks.
        g: The prior variance of the effect for them, where none was declared; `sgbench.analysis.anytime.G` by default.
        equivalent: Whether they are equivalent within this margin, in the unit of the one metric that is given.

    Raises:
        InputError: See there, and if a filter names something that the store does not have, g is given alone, or a
            margin without its metric.
    """
    if equivalent is not None and len(metrics or ()) != 1:
        named = f"there are {len(metrics)}" if metrics else "there is none"
        raise InputError(f"--equivalent is {equivalent:g}, in the unit of one metric, which --metric names; {named}.")
    if g is not None and not anytime:
        raise InputError(f"--g is {g:g}, which only --anytime needs; add that or leave --g out.")
    prior = (G if g is None else g) if anytime else None
    cells = comparisons(view, a, b, metrics=metrics or view.default_metrics, alpha=alpha, g=prior, margin=equivalent)
    return choose(cells, backbones=backbones, datasets=tests)


def shown(cells: Sequence[Comparison]) -> Shown:
    """Return cells of one comparison as terminals, notebooks and pandas show them."""
    return Shown(lambda width: _parts_of(cells, width), lambda: _to_html(cells), _flat(cells))


def to_data(cells: Sequence[Comparison]) -> dict[str, Any]:
    """Return a comparison as plain values for JSON, with full precision.

    Returns:
        ``comparisons``, each with the fields of `Comparison`, ``difference``, ``percent``, ``better``, ``detectable``
        and ``sentence``; and ``notes``.
    """
    derived = ("difference", "percent", "better", "detectable")
    rows = [
        {
            **_finite(dataclasses.asdict(cell)),
            **{name: getattr(cell, name) for name in derived},
            "sentence": sentence(cell),
        }
        for cell in cells
    ]
    return {"comparisons": rows, "notes": notes(cells)}


def _finite(cell: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a comparison without infinite ends of intervals, which JSON does not know."""
    for name in ("overall", "by_seed"):
        if cell[name] and not math.isfinite(cell[name]["interval"]["low"]):
            cell[name] |= {"interval": {"low": None, "high": None}}
    return cell


def _flat(cells: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return `to_data` with a column for each number: ``overall_low``, ``overall_high``, ``overall_p`` and so on."""
    rows = []
    for row in to_data(cells)["comparisons"]:
        for name in ("overall", "by_seed"):
            estimate = row.pop(name) or {"interval": {"low": None, "high": None}, "p": None}
            row |= {f"{name}_{key}": value for key, value in estimate["interval"].items()}
            row[f"{name}_p"] = estimate["p"]
        parts: dict[str, tuple[str, ...]] = {"by_image": ("p", "floor"), "spread": ("seed", "image", "both")}
        for name, keys in (parts | {"equivalence": ("p", "harmful")}).items():
            found = row.pop(name) or dict.fromkeys(keys)
            row |= {f"{name}_{key}": found[key] for key in keys}
        rows.append(row)
    return rows


def _parts_of(cells: Sequence[Comparison], width: int | None) -> Iterator[Part]:
    """Yield the parts of a comparison; on a narrow terminal, the parts of a cell are stacked."""
    if not cells:
        yield Text("There is nothing to show.")
        return
    yield paragraph(pair(cells[0]), width)
    for block in _blocks(cells):
        yield Text()
        yield paragraph(_title(block), width, "bold")
        grid = _grid(block, stacked=False)
        if width and (grid.width or 0) > width:
            grid = _grid(block, stacked=True)
        if any(cell.seeds for cell in block):
            yield grid
            yield Text()
        for cell in block:
            yield paragraph(f"- {sentence(cell)}", width, indent="  ")
    yield Text()
    for note in notes(cells):
        yield paragraph(note, width, "dim")


def _to_html(cells: Sequence[Comparison]) -> str:
    """Return a table for each metric and recipe, its sentences, and the notes."""
    blocks = []
    for block in _blocks(cells):
        titled_parts = zip(_TITLES, _heads(block[0]), strict=True)
        heads = [f"{title} {part}".strip() for title, parts in titled_parts for part in parts]
        rows = [[part for parts in _parts(cell) for part in parts] for cell in block]
        blocks.append(plain_table(heads, rows, _title(block)))
        blocks += [f"<p>{escape(sentence(cell))}</p>\n" for cell in block]
    return "".join([*blocks, *(f"<p><small>{escape(note)}</small></p>\n" for note in notes(cells))])


def _title(block: Sequence[Comparison]) -> str:
    direction = next((cell.direction for cell in block if cell.direction), None)
    anytime = "anytime-valid" if block[0].sequences else ""
    return " ".join(filter(None, (titled(block[0].metric, direction), block[0].recipe, anytime)))


def _blocks(cells: Sequence[Comparison]) -> list[list[Comparison]]:
    """Return the cells of each table: those of one metric and recipe that are judged alike."""
    blocks: defaultdict[tuple[str, str, bool, float], list[Comparison]] = defaultdict(list)
    for cell in cells:
        blocks[cell.metric, cell.recipe, bool(cell.sequences), cell.alpha].append(cell)
    return list(blocks.values())


def _grid(cells: Sequence[Comparison], *, stacked: bool) -> rich.table.Table:
    """Build a table as wide as its text needs, leaving out columns that are empty in every line."""
    texts = {
        at: _below(column) if stacked else _beside(column, left=at in _LEFT)
        for at, column in enumerate(zip(_heads(cells[0]), *map(_parts, cells), strict=True))
        if any(map(any, column[1:]))
    }
    heads = {at: f"{_TITLES[at]}\n{text[0]}" for at, text in texts.items()}
    widths = {at: _width([heads[at], *text]) for at, text in texts.items()}
    grid = rich.table.Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        leading=int(stacked),
        width=sum(widths.values()) + 2 * (len(widths) - 1),
    )
    for at, head in heads.items():
        grid.add_column(Text(head), width=widths[at], justify="left" if at in _LEFT else "right", header_style="bold")
    for line, cell in enumerate(cells, start=1):
        grid.add_row(*(Text(text[line], STYLES.get(cell.verdict, "")) for text in texts.values()))
    return grid


def _heads(cell: Comparison) -> list[Parts]:
    interval = (f"{level(cell)} {'CS' if cell.sequences else 'CI'}", "to", "p")
    return [
        ("test set", "backbone"),
        ("A", "B"),
        ("B − A", "%"),
        interval,
        ("p", "(floor)"),
        interval,
        ("p",),
        ("verdict",),
    ]


def _parts(cell: Comparison) -> list[Parts]:
    """Return the cells below `_heads`."""
    return [
        (cell.dataset, cell.backbone),
        (shown_number(cell.metric, cell.mean_a), shown_number(cell.metric, cell.mean_b)),
        (
            shown_number(cell.metric, cell.difference, "+"),
            shown_percent(cell.percent),
        ),
        _estimated(cell.metric, cell.overall),
        (shown_p(cell.by_image.p), f"({shown_p(cell.by_image.floor)})") if cell.by_image else ("", ""),
        _estimated(cell.metric, cell.by_seed),
        (shown_p(cell.p),),
        (verdict(cell),),
    ]


def _estimated(metric: str, estimate: Estimate | None) -> Parts:
    interval = interval_of(estimate)
    ends = (shown_number(metric, end, "+") for end in (interval.low, interval.high)) if interval else ("", "")
    return (*ends, shown_p(estimate.p if estimate else None))


def _beside(column: Sequence[Parts], *, left: bool) -> list[str]:
    """Return each cell on one line, with its parts aligned across lines."""
    widths = [_width(texts) for texts in zip(*column, strict=True)]
    side = str.ljust if left else str.rjust
    return ["  ".join(side(part, width) for part, width in zip(parts, widths, strict=True)) for parts in column]


def _below(column: Sequence[Parts]) -> list[str]:
    """Return each cell with one or more lines for each part."""
    return ["\n".join(wrapped(part, _NARROW) for part in parts if part) for parts in column]


def _width(texts: Iterable[str]) -> int:
    return max(cell_len(line) for text in texts for line in text.split("\n"))


def _told_interval(cell: Comparison) -> str:
    """Return ``95% confidence interval 0.0890 to 0.1050``, of the amount by which B lowers or raises."""
    interval = interval_of(cell.estimate)
    if interval is None or cell.difference is None:
        return ""
    ends = (-interval.high, -interval.low) if cell.difference < 0 else (interval.low, interval.high)
    over = "" if cell.overall else " over seeds alone"
    return f"{level(cell)} {called([cell])}{over} {' to '.join(shown_number(cell.metric, end) for end in ends)}"


def _told(cell: Comparison, reason: bool) -> str:
    within = _told_within(cell)
    match cell.verdict:
        case Verdict.EQUIVALENT:
            return within
        case Verdict.INCONCLUSIVE:
            found = f"{cell.verdict} ({cell.reason})" if reason else cell.verdict
        case Verdict.NOT_SIGNIFICANT:
            effect = f"; minimum detectable effect {shown_number(cell.metric, cell.detectable)}" * bool(cell.detectable)
            found = f"{cell.verdict} ({_told_p(cell, cell.p)}{effect})"
        case Verdict.SIGNIFICANT:
            found = _sided(cell)
    return "; ".join(filter(None, (found, within)))


def _told_within(cell: Comparison) -> str:
    """Return what was shown about equivalence, or that nothing was; empty where it was not asked for."""
    if cell.equivalence is None or cell.margin is None:
        return ""
    shown = _within(cell)
    p = cell.equivalence.harmful if shown.startswith("not worse") else cell.equivalence.p
    told = shown or f"not shown to be equivalent within {cell.margin:g}"
    return f"{told} ({_told_p(cell, p)})"


def _told_p(cell: Comparison, p: float | None) -> str:
    return f"{'corrected ' if cell.family > 1 else ''}p {shown_p(p)}"


def verdict(cell: Comparison) -> str:
    """Return ``significant, better``, ``equivalent within 0.1``, or what else was found."""
    return "; ".join(filter(None, ("" if cell.verdict is Verdict.EQUIVALENT else _sided(cell), _within(cell))))


def _sided(cell: Comparison) -> str:
    better = cell.better if cell.verdict is Verdict.SIGNIFICANT else None
    return cell.verdict + {True: ", better", False: ", worse", None: ""}[better]


def _within(cell: Comparison) -> str:
    """Return ``equivalent within 0.1`` or, if only harm has been refuted, ``not worse by more than 0.1``."""
    found = cell.equivalence
    if found and found.p <= cell.alpha:
        return f"equivalent within {cell.margin:g}"
    harmless = found and found.harmful is not None and found.harmful <= cell.alpha
    told = harmless and not (cell.verdict is Verdict.SIGNIFICANT and cell.better)
    return f"not worse by more than {cell.margin:g}" if told else ""


def _design(cell: Comparison) -> str:
    return f"{design(cell)} × {plural(cell.images, 'image')}" if cell.images else design(cell)


def levels(cells: Iterable[Comparison]) -> str:
    """Return the level of the confidence intervals, or all that there are: ``95% or 99%``."""
    return " or ".join(dict.fromkeys(map(level, cells)))


def alphas(cells: Iterable[Comparison]) -> str:
    """Return the significance level, or all that there are: ``0.05 or 0.01``."""
    return " or ".join(dict.fromkeys(f"{cell.alpha:g}" for cell in cells))


def level(cell: Comparison) -> str:
    """Return ``95%``, the level of the confidence intervals."""
    return f"{100 * (1 - cell.alpha):g}%"


def shown_p(p: float | None) -> str:
    """Return a p value as it is shown; empty where there is none."""
    return "" if p is None else f"{p:.{3 if p >= 0.001 else 2}g}"


def shown_number(metric: str, value: float | None, sign: str = "") -> str:
    """Return a value with the decimals of its metric and a minus as wide as a plus; empty where there is none.

    With ``+`` for a sign, what is above zero has one too; what rounds to zero has none.
    """
    return "" if value is None else _signed(number(metric, value, sign))


def shown_percent(value: float | None) -> str:
    """Return ``−18.2%``; empty where there is none."""
    return "" if value is None else _signed(f"{value:+z.1f}%")


def _signed(text: str) -> str:
    return text.replace("-", "−") if text.strip("+0.%") else text.removeprefix("+")
