"""The learning rate as a function of the step alone, so that a resumed run needs no state for it."""

import math
from bisect import bisect_right
from typing import assert_never

from sgbench.spec import Constant, Cosine, Milestones, Schedule, Step


def rate_factor(schedule: Schedule, step: int, steps: int) -> float:
    """Return the share of its first rate that every optimizer has in a step.

    While it warms up for ``warmup`` = w steps from the share ``warmup_from`` = a, step s of the run has the share
    a + (1 − a)·(s + 1)/w of what the schedule says for it: step 0 has a + (1 − a)/w, and step w − 1 all of it. The
    schedule counts every step, also those.

    Args:
        schedule: Halved in steps (the paper's Section 4.2), multiplied at milestones, half a cosine (Loshchilov and
            Hutter, ICLR 2017) or constant.
        step: Steps done before, from 0.
        steps: Steps of the whole run.

    Returns:
        A number above 0, except at the end of a cosine that ends at 0, and at most 1.
    """
    share = _shape(schedule, step, steps)
    if step < schedule.warmup:
        share *= schedule.warmup_from + (1.0 - schedule.warmup_from) * (step + 1) / schedule.warmup
    return share


def _shape(schedule: Schedule, step: int, steps: int) -> float:
    match schedule:
        case Step():
            return float(0.5 ** (step // schedule.halve_every))
        case Milestones():
            return float(schedule.gamma ** bisect_right(schedule.milestones, step))
        case Cosine():
            return schedule.final + (1.0 - schedule.final) * (0.5 * (1.0 + math.cos(math.pi * step / steps)))
        case Constant():
            return 1.0
    assert_never(schedule)
