"""How often the tests of `sgbench compare` err, and how many seeds they need: simulations, and the tables of the docs.

    python benchmarks/significance.py                     # every table
    python benchmarks/significance.py anytime g --quick   # some, with a twentieth of the draws
    python benchmarks/significance.py --docs              # write the tables of results/ into docs/statistics.md

Differences are d = mean + seed + image + both; each part has a standard deviation and is normal or exponential. Draws
depend only on the table and the row, so that each can be repeated. Many matrices are tested at once, by the functions
of `sgbench.analysis`.
"""

import argparse
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import harness
import numpy as np
from scipy import special

from sgbench.analysis import stats
from sgbench.analysis.sequential import t_e_process, t_e_process_above
from sgbench.analysis.stats import Array, crossed_moments, student_quantile
from sgbench.core.seeding import derive
from sgbench.spec.decisions import looks_until

ALPHA = 0.05
G = 4.0
MOST = 20
LOOKS = looks_until(MOST)
FIXED = (5, 10)
"""Numbers of seeds for comparison with tests at a fixed number."""
ALIKE = 10
"""Number of seeds at which the mean over seeds and the mean over images vary alike, where seeds are added."""

DOCS = Path(__file__).parent.parent / "docs" / "statistics.md"
CHUNK = 500
"""Matrices that are tested at once."""


@dataclass(frozen=True)
class Design:
    """How differences vary.

    Attributes:
        name: What it is called in the tables.
        seed: Standard deviation over seeds; None if it is such that seeds and images vary the mean alike.
        image: Standard deviation over images.
        both: Standard deviation of what is left.
        exponential: Which part is not normal: ``seeds``, ``images``, or ``pairs`` if each loss's seeds are exponential,
            so that their difference is symmetric.
    """

    name: str
    seed: float | None
    image: float
    both: float
    exponential: str = ""

    def draw(self, random: np.random.Generator, count: int, seeds: int, images: int, alike: int) -> Array:
        """Return ``count`` matrices of mean 0, [count, seeds, images]."""
        by_seed, by_image = random.standard_normal((count, seeds, 1)), random.standard_normal((count, 1, images))
        if self.exponential == "seeds":
            by_seed = random.exponential(size=by_seed.shape) - 1
        elif self.exponential == "pairs":
            by_seed = np.subtract(*random.exponential(size=(2, *by_seed.shape))) / math.sqrt(2)
        elif self.exponential == "images":
            by_image = random.exponential(size=by_image.shape) - 1
        seed = math.sqrt(alike / images) if self.seed is None else self.seed
        return seed * by_seed + self.image * by_image + self.both * random.standard_normal((count, seeds, images))


SEEDS = Design("seeds vary", 1, 0, 0.3)
IMAGES = Design("images vary", 0.05, 1, 0.3)
SOME = Design("images, some seed", 0.2, 1, 0.1)
BOTH = Design("alike", None, 1, 0.5)
NOISE = Design("noise", 0, 0, 1)
LONG_IMAGES = Design("images exponential", 0.05, 1, 0.3, "images")
LONG_SEEDS = Design("seeds exponential", 1, 0, 0.3, "seeds")
LONG_PAIRS = Design("each loss's seeds exponential", 1, 0, 0.3, "pairs")
TESTED = (SEEDS, IMAGES, SOME, BOTH, NOISE, LONG_PAIRS, LONG_SEEDS, LONG_IMAGES)

Row = dict[str, str]
Runs = Callable[[int], int]
"""From a number of matrices to that which is drawn."""


def matrices(
    table: str, design: Design, runs: int, seeds: int, images: int, *, alike: int = 0, mean: float = 0.0
) -> Iterator[Array]:
    """Yield matrices of a design, some at a time."""
    random = np.random.default_rng(derive(0, f"{table} {design.name}", seeds, images))
    for start in range(0, runs, CHUNK):
        yield mean + design.draw(random, min(CHUNK, runs - start), seeds, images, alike or seeds)


def student_p(mean: Array, error: Array, df: Array | float) -> Array:
    """Return two-sided p values."""
    p: Array = 2 * special.stdtr(df, -np.abs(mean) / error)
    return p


def p_by_seed(differences: Array) -> Array:
    """Return the p values of `stats.paired_t` for many matrices."""
    means = differences.mean(axis=-1)
    seeds = means.shape[-1]
    return student_p(means.mean(axis=-1), means.std(axis=-1, ddof=1) / math.sqrt(seeds), seeds - 1)


def p_by_image(differences: Array, wanted: Array, *, above: bool = False) -> Array:
    """Return the p values of `stats.sign_flip` or `stats.sign_flip_above` for the wanted matrices; for others, 1."""
    p = np.ones(len(differences))
    if wanted.any():
        values = differences[wanted].mean(axis=-2)
        sums = stats._flips(values.shape[-1]) @ values.T
        observed, rounding = values.sum(axis=-1), 1e-12 * np.abs(values).sum(axis=-1)
        if above:
            extreme = np.mean(sums >= observed - rounding, axis=0) + np.mean(-sums >= observed - rounding, axis=0)
            p[wanted] = extreme / 2
        else:
            p[wanted] = np.mean(np.abs(sums) >= np.abs(observed) - rounding, axis=0)
    return p


def p_overall(differences: Array, sizes: Sequence[int] = ()) -> Array:
    """Return the p values of `stats.crossed_mean` for many matrices."""
    return student_p(*crossed_moments(differences, sizes))


def p_fixed(differences: Array, sizes: Sequence[int] = ()) -> tuple[Array, Array]:
    """Return the largest p by image and by seed, and with the overall test; 1 where one is above α anyway."""
    by_seed = p_by_seed(differences)
    if differences.shape[-1] == 1:
        return by_seed, by_seed
    two = np.maximum(by_seed, p_by_image(differences, by_seed <= ALPHA))
    return two, np.maximum(two, p_overall(differences, sizes))


def p_peeking(differences: Array) -> Array:
    """Return the smallest p, over looks after each seed, of the tests for a number of seeds that is fixed."""
    smallest = np.ones(len(differences))
    for n in range(2, differences.shape[1] + 1):
        p = p_by_seed(differences[:, :n])
        if differences.shape[-1] > 1:
            p = np.maximum(p, p_overall(differences[:, :n]))
            p = np.maximum(p, p_by_image(differences[:, :n], p <= ALPHA))
        smallest = np.minimum(smallest, p)
    return smallest


def p_after_each(evidence: Array) -> Array:
    """Return `sgbench.analysis.sequential.anytime_p` after each seed."""
    return np.minimum(1, 1 / np.maximum.accumulate(evidence, axis=-1))


def p_at_looks(test: Callable[[Array], Array], differences: Array) -> Array:
    """Return `sgbench.analysis.sequential.at_looks` after each seed, for many matrices."""
    p = np.ones(differences.shape[:2])
    for n in LOOKS:
        p[:, n - 1] = np.minimum(1, len(LOOKS) * test(differences[:, :n]))
    return np.minimum.accumulate(p, axis=-1)


def p_anytime(differences: Array, g: float = G, sizes: Sequence[int] = ()) -> Array:
    """Return p after each of `MOST` seeds, [R, S], by the tests that are valid at any stopping."""
    p = p_after_each(t_e_process(differences.mean(axis=-1), g))
    if differences.shape[-1] == 1:
        return p
    p = np.maximum(p, p_at_looks(lambda seen: p_overall(seen, sizes), differences))
    wanted = p[:, -1] <= ALPHA
    return np.maximum(p, p_at_looks(lambda seen: p_by_image(seen, wanted), differences))


def p_beyond(differences: Array, bound: float) -> tuple[Array, Array]:
    """Return the one-sided p after each of `MOST` seeds that the mean is above a bound: fixed n, and anytime-valid.

    Where one test alone has a p above α at the end, the images are not tested.
    """
    shifted = differences - bound
    means = shifted.mean(axis=-1)

    def overall(seen: Array) -> Array:
        value, error, df = crossed_moments(seen)
        p: Array = special.stdtr(df, -value / error)
        return p

    valid = np.maximum(p_after_each(t_e_process_above(means, G, 0.0)), p_at_looks(overall, shifted))
    wanted = valid[:, -1] <= ALPHA
    valid = np.maximum(valid, p_at_looks(lambda seen: p_by_image(seen, wanted, above=True), shifted))
    at_once = np.ones_like(means)
    for n in FIXED:
        seen, by_seed = shifted[:, :n], means[:, :n]
        error = by_seed.std(axis=1, ddof=1) / math.sqrt(n)
        p = np.maximum(special.stdtr(n - 1, -by_seed.mean(axis=1) / error), overall(seen))
        at_once[:, n - 1] = np.maximum(p, p_by_image(seen, p <= ALPHA, above=True))
    return at_once, valid


def together(parts: Sequence[Array], cells: int) -> str:
    """Return in how many families of cells one is significant, in percent, if p is that of each cell alone."""
    hits = np.concatenate(parts) <= ALPHA / cells
    return f"{100 * float(hits.reshape(-1, cells).any(axis=1).mean()):.1f}"


def coverage(runs: Runs) -> list[Row]:
    """How often the interval holds the truth: plain percentiles → as printed."""
    designs = (SEEDS, Design("images vary", 0.05, 1, 0.3), BOTH, NOISE, LONG_IMAGES, LONG_SEEDS)
    rows = []
    for seeds in (2, 3, 5, 10):
        for images in (5, 14, 100):
            row = {"seeds × images": f"{seeds} × {images}"}
            for design in designs:
                drawn = matrices("coverage", design, runs(1000 if images == 100 else 2000), seeds, images)
                held = np.concatenate([_held(each) for each in drawn])
                row[design.name] = " → ".join(f"{100 * share:.0f}" for share in held.mean(axis=0))
            rows.append(row)
    return rows


def _held(differences: Array) -> Array:
    """Return whether percentiles, and the interval of `stats.crossed_bootstrap`, hold 0, [R, 2].

    A fifth of the resamples is enough for that.
    """
    seeds, images = differences.shape[1:]
    by_seed, by_image = (shares[: stats.RESAMPLES // 5] for shares in stats._resampled(seeds, images))
    both = (by_seed[:, :, None] * by_image[:, None, :]).reshape(len(by_seed), -1).astype(np.float32)
    value, _, df = crossed_moments(differences)
    stretch = np.array([student_quantile(each, ALPHA) for each in df.tolist()]) / -special.ndtri(ALPHA / 2)
    printed = stats._inflated(stats._inflated(differences, axis=1), axis=2)
    held = []
    for values, factor in ((differences, 1.0), (printed, stretch)):
        means = both @ values.reshape(len(values), -1).T.astype(np.float32)
        ends = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2], axis=0, method="linear")
        low, high = value + factor * (ends - value)
        held.append((low <= 0) & (high >= 0))
    return np.stack(held, axis=1)


def fixed(runs: Runs) -> list[Row]:
    """Families with a false positive, at a fixed number of seeds: tests by image and by seed → with the overall one."""
    rows = []
    for cells in (1, 8):
        for seeds, images in ((3, 14), (5, 14), (10, 14), (20, 14), (5, 100)):
            row = {"cells": f"{cells}", "seeds × images": f"{seeds} × {images}"}
            for design in TESTED:
                drawn = matrices("fixed", design, runs(8000), seeds, images)
                two, three = zip(*map(p_fixed, drawn), strict=True)
                row[design.name] = f"{together(two, cells)} → {together(three, cells)}"
            rows.append(row)
    return rows


def anytime(runs: Runs) -> list[Row]:
    """Families with a false positive, looking after every seed up to 20: fixed-n tests → anytime-valid ones."""
    rows = []
    for images in (1, 5, 14, 100):
        found: dict[str, tuple[list[Array], list[Array]]] = {}
        for design in TESTED if images > 1 else (SEEDS, LONG_PAIRS, LONG_SEEDS):
            drawn = matrices("anytime", design, runs(8000), MOST, images, alike=ALIKE)
            pairs = [(p_peeking(each), p_anytime(each)[:, -1]) for each in drawn]
            found[design.name] = ([peeking for peeking, _ in pairs], [valid for _, valid in pairs])
        for cells in (1, 8):
            row = {"cells": f"{cells}", "images": f"{images}" if images > 1 else "none"}
            for design in TESTED:
                both = found.get(design.name)
                row[design.name] = " → ".join(together(parts, cells) for parts in both) if both else ""
            rows.append(row)
    return sorted(rows, key=lambda row: int(row["cells"]))


def power(runs: Runs) -> list[Row]:
    """Cells that are significant by a number of seeds, with 100 images, and the mean number of seeds until they are."""
    design, images = Design("seeds, some image", 1, 0.5, 0.3), 100
    sd = math.sqrt(1 + 0.3**2 / images)
    rows = []
    for effect in (1, 2, 3, 5):
        drawn = list(matrices(f"power {effect}", design, runs(4000), MOST, images, mean=effect * sd))
        p = np.concatenate([p_anytime(each) for each in drawn])
        fixed_n = {n: np.concatenate([p_fixed(each[:, :n])[1] for each in drawn]) for n in (5, 10)}
        for cells in (1, 8):
            hit = p <= ALPHA / cells
            seeds = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, MOST)
            row = {"effect, sd": f"{effect}", "cells": f"{cells}"}
            row |= {f"by {n}": f"{100 * hit[:, n - 1].mean():.0f}" for n in (4, 5, 7, 10, 14, 20)}
            row["mean number of seeds"] = f"{seeds.mean():.1f}"
            row |= {f"fixed {n}": f"{100 * (each <= ALPHA / cells).mean():.0f}" for n, each in fixed_n.items()}
            rows.append(row)
    return rows


def g(runs: Runs) -> list[Row]:
    """What g does by seed: false positives; the mean number of seeds, and how often 10 are enough."""
    rows = []
    for prior in (0.25, 1.0, 4.0, 16.0, 100.0):
        row = {"g": f"{prior:g}", "smallest number of seeds": f"{_fewest(prior)}"}
        for effect in (0, 1, 2, 3, 5):
            drawn = matrices(f"g {effect}", Design("seeds", 1, 0, 0), runs(20_000), MOST, 1, mean=effect)
            hit = np.concatenate([p_anytime(each, prior) for each in drawn]) <= ALPHA
            seeds = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, MOST)
            by_ten = f"{seeds.mean():.1f}, {100 * hit[:, 9].mean():.0f}%"
            row[f"{effect} sd" if effect else "false positives, %"] = (
                by_ten if effect else f"{100 * hit.any(1).mean():.1f}"
            )
        rows.append(row)
    return rows


def _fewest(prior: float) -> int:
    """Return the smallest number of seeds that can be significant: those of which all differences are equal."""
    return next(n for n in range(2, 100) if t_e_process(np.ones(n), prior).max() >= 1 / ALPHA)


def sequences(runs: Runs) -> list[Row]:
    """How often all intervals, after every seed up to 20, hold the truth.

    An interval lacks the truth if, and only if, the p value of the truth has been at most α.
    """
    row_by_seed, rows = {"interval": "by seed"}, []
    for images in (14, 100):
        row = {"interval": f"overall, {images} images"}
        for design in TESTED:
            drawn = list(matrices("sequences", design, runs(4000), MOST, images, alike=ALIKE))
            p = np.concatenate([p_at_looks(p_overall, each)[:, -1] for each in drawn])
            row[design.name] = f"{100 * (p > ALPHA).mean():.0f}"
            without = replace(design, image=0)  # by seed, the truth is that of the given images
            drawn = list(matrices("sequences by seed", without, runs(4000), MOST, images, alike=ALIKE))
            p = np.concatenate([p_after_each(t_e_process(each.mean(axis=-1), G))[:, -1] for each in drawn])
            row_by_seed[design.name] = f"{100 * (p > ALPHA).mean():.0f}"
        rows.append(row)
    return [row_by_seed, *rows]


def equivalence(runs: Runs) -> list[Row]:
    """How often two losses are called equivalent, with 100 images: if they are, and if they differ by the margin."""
    design, images = Design("seeds, some image", 1, 0.5, 0.3), 100
    sd = math.sqrt(1 + 0.3**2 / images)
    rows = []
    for margin in (1, 2, 3, 5):
        for truth in (0, margin):
            drawn = list(matrices(f"equivalence {margin}", design, runs(2000), MOST, images, mean=truth * sd))
            found = [
                [
                    np.maximum(above, below)
                    for above, below in zip(p_beyond(each, -margin * sd), p_beyond(-each, -margin * sd), strict=True)
                ]
                for each in drawn
            ]
            at_once, valid = (np.concatenate(parts) <= ALPHA for parts in zip(*found, strict=True))
            row = {"margin, sd": f"{margin}", "true difference, sd": f"{truth}"}
            row |= {f"fixed {n}": f"{100 * at_once[:, n - 1].mean():.1f}" for n in FIXED}
            rows.append(row | {f"by {n}": f"{100 * valid[:, n - 1].mean():.1f}" for n in (5, 7, 10, 20)})
    return rows


def sets(runs: Runs) -> list[Row]:
    """All test sets together, of 5, 14 and 100 images: false positives, at 5 and 10 seeds, and at any stopping."""
    sizes, rows = (5, 14, 100), []
    images = sum(sizes)
    which = np.repeat(np.arange(len(sizes)), sizes)
    for name, of_set, of_both in (
        ("sets alike", 0.0, 0.0),
        ("sets differ", 1.0, 0.0),
        ("and seeds do in each", 1.0, 0.3),
    ):
        row = {"test sets": name}
        for design in (SEEDS, IMAGES, SOME, BOTH):
            random = np.random.default_rng(derive(0, f"sets {name} {design.name}"))
            five, ten, any_time = [], [], []
            for each in matrices("sets", design, runs(4000), MOST, images, alike=ALIKE):
                between = of_set * random.standard_normal((len(each), 1, len(sizes)))
                between = between - between @ np.array(sizes)[:, None] / images  # the mean over images stays 0
                between = between + of_both * random.standard_normal((len(each), MOST, len(sizes)))
                differences = each + between[:, :, which]
                five.append(p_fixed(differences[:, :5], sizes)[1])
                ten.append(p_fixed(differences[:, :10], sizes)[1])
                any_time.append(p_anytime(differences, sizes=sizes)[:, -1])
            row[design.name] = ", ".join(together(parts, 1) for parts in (five, ten, any_time))
        rows.append(row)
    return rows


TABLES = (coverage, fixed, anytime, power, g, sequences, equivalence, sets)


def markdown(rows: Sequence[Row]) -> str:
    """Return rows as a table in Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def documented(page: str, results: Path) -> str:
    """Return a page with the tables of ``results`` after its marks, ``<!-- significance-NAME -->``."""

    def table(found: re.Match[str]) -> str:
        rows = json.loads((results / f"{found['name']}-cpu.json").read_text())["rows"]
        return f"{found['mark']}\n{markdown(rows)}\n<!-- end -->"

    pattern = r"(?P<mark><!-- (?P<name>significance-\w+) -->)\n.*?<!-- end -->"
    return re.sub(pattern, table, page, flags=re.DOTALL)


def main() -> None:
    """Simulate the tables that were asked for, or write them into the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(table.__name__ for table in TABLES))
    parser.add_argument("--quick", action="store_true", help="a twentieth of the draws")
    parser.add_argument("--docs", action="store_true", help="only write the tables of results/ into docs/statistics.md")
    given = parser.parse_args()
    if given.docs:
        DOCS.write_text(documented(DOCS.read_text(encoding="utf-8"), harness.RESULTS), encoding="utf-8")
        return
    share = 200 if harness.DRY_RUN else 20 if given.quick else 1

    def runs(count: int) -> int:
        return max(16, count // share // 8 * 8)

    for table in TABLES:
        if not given.tables or table.__name__ in given.tables:
            note = (table.__doc__ or "").split("\n")[0]
            harness.publish(f"significance-{table.__name__}", table(runs), notes=[f"In percent. {note}"])


if __name__ == "__main__":
    main()
