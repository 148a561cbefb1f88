"""Random histories of a store against a model: whatever happens in whatever order, each run says what was last written.

Writers train runs again, alone or side by side with others, fall asleep with a lock in their hands and wake later;
others compact, merge, remove and clean. Any may be killed at any change, or be refused it, and is repeated. There
are 200 histories in CI; ``make histories`` runs 10,000. Of a failure, hypothesis shows the shortest history that it
finds, and how to repeat it.
"""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from crash_points import CUTS, Frail, Killed, decoded_once, in_one_thread
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from made_up_runs import ID, history, scores, trained, values
from virtual_time import VirtualClock, World

from sgbench.core.errors import InputError, InterruptionError
from sgbench.core.storage import Storage
from sgbench.runs.maintenance import Merge, clean, find_runs, remove
from sgbench.runs.verification import verify
from sgbench.store import Store

NUMBER = int(os.environ.get("SGBENCH_HISTORIES", "200"))
"""How many histories are tried."""

STEPS = 8
"""The longest history."""

SEED = st.integers(0, 2)
CUT = st.one_of(st.none(), st.tuples(st.integers(0, 12), st.sampled_from(CUTS)))
"""Where a command is cut off, if it is, and how."""


def training(store: Store, seed: int, value: float, hour: int) -> Iterator[None]:
    """Train a run again, with a pause before each thing that it writes."""
    yield
    store.tables["runs"].forget(ID[seed])
    yield
    store.forget(ID[seed])
    yield
    store.write_history(history(ID[seed], value))
    yield
    store.write_run(trained(seed, hour=hour, wall_seconds=value))
    yield
    store.write_scores(scores(ID[seed], value, hour))


def book(storage: Storage, seed: int) -> None:
    """Book a run, once whoever had booked it is known to be dead."""
    while taken := storage.book([ID[seed]]):
        storage.end(taken.values())


class Histories(RuleBasedStateMachine):
    """A store, its processes and the model of what it says: the value of each run."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.storage = Frail({"sgbench.json": b'{"format": 1}'}, clock=self.world.clock())
        self.model: dict[str, float] = {}
        self.number = 0
        self.dead: list[contextlib.ExitStack] = []
        self.pending: tuple[Callable[[Store], object], dict[str, float], int | None] | None = None
        """What was cut off, what the store says once it is done, and the run if it is of one alone."""
        self.asleep: tuple[VirtualClock, Iterator[None], contextlib.ExitStack, Frail] | None = None
        self.taken_over = False

    def next(self) -> int:
        """Return a number that no training had before: its value, and its hour."""
        self.number += 1
        return self.number

    def command(
        self, act: Callable[[Store], object], after: dict[str, float], of: int | None, cut: Any, *, beside: bool = False
    ) -> None:
        """Run a command in a process of its own, which may be cut off.

        Args:
            act: What it does.
            after: What the store says then.
            of: The run, if it changes no other.
            cut: Where it is cut off.
            beside: Whether it only books that run, instead of locking the store.
        """
        clock = self.world.clock(ahead=60.0)
        storage = self.storage.process(clock)
        store, lock = Store(storage), contextlib.ExitStack()
        if beside and of is not None:
            lock.enter_context(store.writing_runs(f"run {of} of quick"))
            book(storage, of)
        else:
            lock.enter_context(store.writing("a command"))
        self.taken_over = self.asleep is not None
        if cut:
            storage.switch.cut_off(*cut)
        try:
            act(store)
        except Killed:
            clock.asleep = True
            self.dead.append(lock.pop_all())  # nobody gives its lock back
        except PermissionError:
            assert cut
        lock.close()
        if storage.switch.mend():
            self.pending = act, after, of
        else:
            self.model = after
            self.pending = None if self.pending is None or self.pending[0] is act else self.pending

    @precondition(lambda self: not self.pending)
    @rule(seed=SEED, cut=CUT, beside=st.booleans())
    def train(self, seed: int, cut: Any, beside: bool) -> None:
        value = self.next()
        after = self.model | {ID[seed]: float(value)}
        self.command(lambda store: list(training(store, seed, float(value), value)), after, seed, cut, beside=beside)

    @precondition(lambda self: not self.pending)
    @rule(seed=SEED, cut=CUT)
    def remove(self, seed: int, cut: Any) -> None:
        def removed(store: Store) -> None:
            with contextlib.suppress(InputError):  # that there is no such run any more
                for run_id in find_runs(store, [ID[seed]]):
                    remove(store, run_id)

        self.command(removed, {run_id: value for run_id, value in self.model.items() if run_id != ID[seed]}, None, cut)

    @precondition(lambda self: not self.pending)
    @rule(seeds=st.sets(SEED, min_size=1), newer=st.booleans(), compacted=st.booleans(), cut=CUT)
    def merge(self, seeds: set[int], newer: bool, compacted: bool, cut: Any) -> None:
        source = Store(Frail(root="memory://source"))
        value = self.next()
        for seed in seeds:
            list(training(source, seed, float(value), value if newer else 0))
        if compacted:
            source.compact()
        taken = {ID[seed]: float(value) for seed in seeds if newer or ID[seed] not in self.model}
        self.command(lambda store: Merge.of(store, source).apply(), self.model | taken, None, cut)

    @rule(cut=CUT)
    def compact(self, cut: Any) -> None:
        self.harmless(Store.compact, cut)

    @rule(everything=st.booleans(), cut=CUT)
    def clean(self, everything: bool, cut: Any) -> None:
        self.harmless(lambda store: clean(store, everything=everything), cut)

    def harmless(self, act: Callable[[Store], object], cut: Any) -> None:
        """Run a command that changes nothing that the store says, whatever was cut off before and is not repeated."""
        pending = self.pending
        self.command(act, self.model, None, cut)
        self.pending = pending

    @precondition(lambda self: self.pending)
    @rule(cut=CUT, beside=st.booleans())
    def again(self, cut: Any, beside: bool) -> None:
        assert self.pending
        self.command(*self.pending, cut, beside=beside)

    @precondition(lambda self: not self.asleep and not self.pending)
    @rule(seed=SEED, steps=st.integers(1, 5), beside=st.booleans())
    def fall_asleep(self, seed: int, steps: int, beside: bool) -> None:
        value, clock = self.next(), self.world.clock(ahead=-60.0)
        storage = self.storage.process(clock)
        stack = contextlib.ExitStack()
        if beside:
            stack.enter_context(Store(storage).writing_runs(f"run {seed} of quick"))
            book(storage, seed)
        else:
            stack.enter_context(Store(storage).writing("a sleeper"))
        sleeper = training(Store(storage), seed, float(value), value)
        for _ in range(steps):
            next(sleeper)
        clock.asleep = True
        self.asleep, self.taken_over = (clock, sleeper, stack, storage), False
        self.pending = (
            lambda store: list(training(store, seed, float(value), value)),
            self.model | {ID[seed]: float(value)},
            seed,
        )

    @precondition(lambda self: self.asleep)
    @rule()
    def wake(self) -> None:
        assert self.asleep
        (clock, sleeper, stack, storage), self.asleep = self.asleep, None
        clock.asleep = False
        files = storage.files()
        if self.taken_over:
            with pytest.raises(InterruptionError), stack:
                list(sleeper)
            assert storage.files() == files
        else:
            with stack:
                list(sleeper)
            assert self.pending
            self.model, self.pending = self.pending[1], None

    @invariant()
    def says_what_was_written(self) -> None:
        found = values(Store(self.storage), orphans=True)
        expected = {run_id: {value} for run_id, value in self.model.items()}
        after = {run_id: {value} for run_id, value in self.pending[1].items()} if self.pending else expected
        for run_id in expected.keys() | after.keys() | found.keys():
            assert found.get(run_id) in (expected.get(run_id), after.get(run_id), *([None] if self.pending else []))

    def teardown(self) -> None:
        try:
            self.end()
        finally:
            for lock in (*self.dead, *([self.asleep[2]] if self.asleep else [])):
                with contextlib.suppress(InterruptionError):
                    lock.close()

    def end(self) -> None:
        """End what was cut off, and check all that there is."""
        if self.pending:
            self.command(*self.pending, cut=None)
        assert values(Store(self.storage)) == {run_id: {value} for run_id, value in self.model.items()}
        left = list(verify(Store(self.storage)))
        note(f"verify: {left}")
        assert [fault for fault in left if "left over from a killed compaction" not in fault] == []


@in_one_thread
@decoded_once()
def test_whatever_happens_in_whatever_order_a_store_says_what_was_last_written() -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    wanted = settings(max_examples=NUMBER, stateful_step_count=STEPS, print_blob=True, suppress_health_check=checks)
    with warnings.catch_warnings(action="ignore"):  # that a process which holds the lock seems dead
        run_state_machine_as_test(Histories, settings=wanted)
