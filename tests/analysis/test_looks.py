"""In how many looks seeds came, by random histories of a store that are followed event by event."""

import datetime
import random

import pytest

from sgbench.analysis.looks import looks
from sgbench.analysis.view import Run, Status


def at(minute: float | None) -> datetime.datetime | None:
    return None if minute is None else datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + minute * MINUTE


MINUTE = datetime.timedelta(minutes=1)


def run(planned: float | None, finished: float | None) -> Run:
    what = ("edsr-tiny", "l1", None, None, 0, 4, None, None, None, 0, Status.DONE, None)
    return Run("0" * 12, "train", *what, planned=at(planned), finished=at(finished))


def pair(planned: float | None, finished: float | None) -> tuple[Run, Run]:
    return run(planned, finished), run(planned, finished)


def test_seeds_that_were_asked_for_together_came_in_one_look_whenever_they_ended() -> None:
    assert looks({seed: pair(0, 10 * seed + 1) for seed in (3, 1, 2)}) == ((1, 2, 3), (3,))


def test_seeds_that_were_asked_for_when_two_pairs_had_ended_came_in_another() -> None:
    first = {seed: pair(0, seed) for seed in (10, 11, 12)}
    assert looks(first | {4: pair(11, 20)}).counts == (4,)
    assert looks(first | {4: pair(11.5, 20), 3: pair(11.5, 21)}) == ((10, 11, 12, 3, 4), (2, 5))
    assert looks(first | {4: pair(11.5, 30), 3: pair(25, 40), 2: pair(26, 40)}).counts == (2, 3, 6)


def test_a_pair_has_been_asked_for_when_both_of_its_runs_have_and_has_ended_when_both_have() -> None:
    assert looks({seed: (run(0, 1), run(5, 6)) for seed in range(3)}).counts == (3,)
    late = {0: (run(0, 1), run(0, 9)), 1: (run(0, 2), run(0, 3)), 2: (run(0, 2), run(5, 9))}
    assert looks(late).counts == (3,)
    assert looks(late | {0: (run(0, 1), run(0, 4))}).counts == (2, 3)


def test_runs_of_older_stores_came_together_and_before_all_others() -> None:
    assert looks({seed: pair(None, seed) for seed in range(3)}) == ((0, 1, 2), (3,))
    assert looks({seed: pair(None, None) for seed in range(3)}).counts == (3,)
    assert looks({5: pair(None, 1), 6: pair(None, 2), 0: pair(3, 4)}) == ((5, 6, 0), (2, 3))
    assert looks({5: pair(0, None), 6: pair(0, None), 0: pair(3, None)}).counts == (2, 3)


@pytest.mark.parametrize("draw", range(50))
def test_whoever_follows_a_store_counts_the_same_looks(draw: int) -> None:
    """Seeds are asked for in batches, end in any order, and all that has ended is seen when the next batch comes."""
    drawn = random.Random(draw)
    events: list[tuple[float, int | None]] = []  # the end of a seed, or None for a new batch
    pairs, order, seeds = {}, list[int](), drawn.sample(range(40), 12)
    clock = 0.0
    while seeds:
        clock += drawn.expovariate(1.0)
        size = drawn.randint(1, 4)
        batch, seeds = seeds[:size], seeds[size:]
        events.append((clock, None))
        for seed in batch:
            end = clock + drawn.expovariate(0.7)
            pairs[seed] = pair(clock, end)
            events.append((end, seed))
        order += sorted(batch)
    ended, seen = 0, list[int]()
    for _, seed in sorted(events, key=lambda event: event[0]):
        if seed is not None:
            ended += 1
        elif ended > max(seen, default=1):
            seen.append(ended)
    assert looks(pairs) == (tuple(order), (*seen, len(pairs)))
