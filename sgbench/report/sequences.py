"""What is said of comparisons whose seeds may have been added after a look."""

import math
from collections.abc import Iterable, Sequence

from sgbench.analysis.anytime import SeedSequence
from sgbench.analysis.compare import Comparison
from sgbench.analysis.stats import Estimate, Interval
from sgbench.core.words import listed, plural

SEQUENCE = "A confidence sequence is a confidence interval that covers the truth after every seed at once."


def interval_of(estimate: Estimate | None) -> Interval | None:
    """Return an interval that can be shown; there is none while a confidence sequence is still infinite."""
    return estimate.interval if estimate and math.isfinite(estimate.interval.low) else None


def called(cells: Iterable[Comparison]) -> str:
    """Return ``confidence interval``, ``confidence sequence`` or, if cells have either, both."""
    kinds = {bool(cell.sequences) for cell in cells}
    names = ["interval"] * (False in kinds) + ["sequence"] * (True in kinds)
    return f"confidence {' or '.join(names)}"


def design(cell: Comparison) -> str:
    """Return ``5 seeds``, or ``5 of at most 20 seeds`` if that was declared."""
    most = sum(each.most or 0 for each in cell.sequences)
    return f"{len(cell.seeds)} of at most {plural(most, 'seed')}" if most else plural(len(cell.seeds), "seed")


def about_sequences(cells: Sequence[Comparison]) -> list[str]:
    """Return what the tests are that are valid at any stopping, and what was declared of them.

    Args:
        cells: Comparisons with sequences; there may be none.
    """
    if not cells:
        return []
    said = [
        "Anytime-valid: p values and confidence sequences (CS) hold however often somebody has looked, and whenever "
        f"seeds stopped being added. {SEQUENCE}",
        *_declared(cells),
    ]
    if any(cell.images for cell in cells):
        looks = listed(dict.fromkeys(_after(each) for cell in cells for each in cell.sequences))
        said.append(
            "Overall and by image: Student's t of the mean of B − A with its variances over seeds and over images, and "
            "sign flips of the images' means over seeds. The images stay the same while seeds are added, so both are "
            f"tested only after {looks} seeds, each time with an equal share of α, which (floor) includes."
        )
    said.append(
        "By seed: evidence of the t e-process, which expects an effect of √g standard deviations of the seeds' "
        "differences. p is one over the most evidence after any seed. It assumes normality, as Student's t-test does."
    )
    if any(len(cell.sequences) > 1 for cell in cells):
        said.append(
            "Declared several times, with different seeds: by seed, the evidence of each is multiplied; the images, "
            "which they share, are tested by each with its share of α."
        )
    return said


def _declared(cells: Sequence[Comparison]) -> list[str]:
    """Return a sentence for each declaration, and one on what nothing was declared of."""
    found = {each.declaration: (each, cell) for cell in cells for each in cell.sequences if each.declaration}
    said = [
        f"Declared on {(each.declared or '')[:10]}, before the first look (declared/{each.declaration}.json): "
        f"{cell.metric}, at most {plural(each.most or 0, 'seed')}, α = {each.alpha:g}, g = {each.g:g}."
        for each, cell in found.values()
    ]
    if without := [cell for cell in cells if not cell.sequences[0].declaration]:
        on_single_sets = {cell.metric for cell in without if not cell.sets}
        metrics = dict.fromkeys(cell.metric + " on all sets" * (cell.metric not in on_single_sets) for cell in without)
        g, rounds = without[0].sequences[0].g, max(len(cell.sequences[0].rounds) for cell in without)
        said.append(
            f"Nothing was declared for {listed(metrics)}, so that g = {g:g} may have been chosen after a look. Seeds "
            f"count in the order in which they were asked for{_in(rounds)}."
        )
    return said


def _in(rounds: int) -> str:
    return f", here in {rounds} rounds" if rounds > 1 else ""


def _after(sequence: SeedSequence) -> str:
    return listed(map(str, sequence.looks))
