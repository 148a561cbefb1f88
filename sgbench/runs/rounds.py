"""Sweeps that add seeds until their questions are decided: what they declare, and which seeds come next.

A round is finished before anybody looks at its results, and the next one follows from these alone. So a sweep that is
killed and repeated, and shards that know nothing of each other, ask for the same runs.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from sgbench.analysis import View, load_results
from sgbench.analysis.decisions import Decision, State, decisions, fewest_seeds, undecidable
from sgbench.core.errors import InputError
from sgbench.core.words import listed, quoted
from sgbench.metrics import METRICS
from sgbench.metrics.base import ImageMetric
from sgbench.runs.plan import Data, Recorded
from sgbench.spec import ALL_SETS, RunSpec, SweepSpec
from sgbench.spec.decisions import Asked, looks_until
from sgbench.store import Declaration, Store, now
from sgbench.store.layout import SIGNS
from sgbench.store.rows import RunEnd

_SCORE = ["run_id", "dataset_sha256", "metric"]


class Rounds:
    """The rounds of a sweep.

    Args:
        name: Name of the sweep.
        sweep: The sweep, which has questions; the weights with which its runs start are hashed.
        data: Its images.
        store: The results store.

    Raises:
        InputError: If the store has results that nobody may have seen before a question is declared, something else is
            declared of the same runs, or no number of seeds can decide a question.
    """

    def __init__(self, name: str, sweep: SweepSpec, data: Data | Recorded, store: Store) -> None:
        assert sweep.decide
        self._name, self._store, self._decide = name, store, sweep.decide
        self._named = sweep.runs(data.training)
        self._runs = {(run.backbone, str(run.loss)): run for run in reversed(self._named)}
        sets = {test.name: test.sha256 for test in data.tests}
        images = {test.name: len(test) for test in data.tests} if isinstance(data, Data) else {}
        self._asked = sweep.asked()
        self._new = [self._declaration(asked, sets) for asked in self._asked]
        for declaration in self._new:
            _refuse_undecidable(declaration, images)
        self.declarations = self._checked()

    def _declaration(self, asked: Asked, sets: dict[str, str]) -> Declaration:
        question = asked.question
        if ALL_SETS in question.sets and not isinstance(METRICS.load(question.metric), ImageMetric):
            raise InputError(
                f"question {quoted(str(question))} takes {ALL_SETS} together, and {question.metric} has no value per "
                "image; name the sets."
            )
        conditions = self._runs[asked.backbones[0], question.a].conditions
        return Declaration(
            question,
            self._decide.alpha,
            self._decide.g,
            asked.seeds,
            looks_until(len(asked.seeds)),
            asked.backbones,
            tuple((name, sha256) for name, sha256 in sets.items() if {name, ALL_SETS} & {*question.sets}),
            str(conditions),
            self._name,
            now(),
        )

    def declare(self) -> None:
        """Keep in the store what is declared, before the first look."""
        with self._store.storage.alone():
            self.declarations = self._checked()
            for declaration in self.declarations:
                self._store.declare(declaration)

    def begun(self) -> list[RunSpec]:
        """Return the runs beyond those of the grids that the first round has, or that earlier commands asked for."""
        planned = {run.run_id for run in self._store.plans().get(self._name, [])}
        first = [
            run
            for asked, declaration in self._questions()
            for backbone in asked.backbones
            for seed in asked.seeds[: max(asked.named, fewest_seeds(declaration))]
            for run in self._pair(asked, backbone, seed)
        ]
        later = [run for run in self._every() if run.run_id in planned]
        return self._beyond(self._named, [*first, *later])

    def decisions(self) -> list[Decision]:
        """Return where the questions stand that are declared, by what the store has."""
        storage = self._store.storage
        view = View(load_results(storage.root)) if any(map(storage.exists, SIGNS)) else None
        waiting = self.undeclared()
        return [found for each in self.declarations if each not in waiting for found in decisions(view, each)]

    def undeclared(self) -> list[Declaration]:
        """Return what is still to be declared."""
        there = {each.digest for each in self._store.declarations()}
        return [each for each in self.declarations if each.digest not in there]

    def after(self, whole: Sequence[RunSpec]) -> list[RunSpec]:
        """Return the runs of the next round: more seeds wherever something is undecided and there are some left.

        None if a run has not ended, as one that is out of its budget of hours.

        Args:
            whole: The runs of all rounds so far.
        """
        if not self._have_ended(whole):
            return []
        ids = {run.run_id for run in whole}
        undecided = {
            (each.declaration.digest, each.backbone)
            for each in self.decisions()
            if each.state is State.UNDECIDED and each.used
        }
        more: list[RunSpec] = []
        for asked, declaration in self._questions():
            for backbone in asked.backbones:
                if (declaration.digest, backbone) in undecided:
                    pairs = (self._pair(asked, backbone, seed) for seed in asked.seeds)
                    left = (pair for pair in pairs if not ids.issuperset(run.run_id for run in pair))
                    more += itertools.chain(*itertools.islice(left, self._decide.per_round))
        return self._beyond(whole, [*self.begun(), *more])

    def _have_ended(self, whole: Sequence[RunSpec]) -> bool:
        """Return whether the runs on which the questions depend have failed, or have been trained and scored."""
        rows = self._store.rows()
        scored = {tuple(each.values()) for each in self._store.totals().select(_SCORE).to_pylist()}
        every = {run.run_id for run in self._every()}
        for run in (run for run in whole if run.run_id in every):
            row = rows.get(str(run.run_id))
            wanted = [
                (run.run_id, sha256, each.question.metric)
                for each in self.declarations
                for _, sha256 in each.tests
                if str(run.loss) in (each.question.a, each.question.b) and run.backbone in each.backbones
            ]
            if row is None or (row["status"] == RunEnd.DONE and not scored.issuperset(wanted)):
                return False
        return True

    def _questions(self) -> Iterable[tuple[Asked, Declaration]]:
        return zip(self._asked, self.declarations, strict=True)

    def _pair(self, asked: Asked, backbone: str, seed: int) -> list[RunSpec]:
        losses = (asked.question.a, asked.question.b)
        return [self._runs[backbone, loss].model_copy(update={"seed": seed}) for loss in losses]

    def _every(self) -> Iterable[RunSpec]:
        for asked in self._asked:
            for backbone in asked.backbones:
                for seed in asked.seeds:
                    yield from self._pair(asked, backbone, seed)

    @staticmethod
    def _beyond(whole: Iterable[RunSpec], runs: Iterable[RunSpec]) -> list[RunSpec]:
        """Return runs that are not among others, each once."""
        ids = {run.run_id for run in whole}
        return list({run.run_id: run for run in runs if run.run_id not in ids}.values())

    def _checked(self) -> list[Declaration]:
        """Return what is declared, as the store has it if that is the same, after checking that it may be declared."""
        there = self._store.declarations()
        found = []
        for asked, new in zip(self._asked, self._new, strict=True):
            same = next((each for each in there if _fixed(each) == _fixed(new)), None)
            if same is None:
                _refuse_other(new, there)
                self._refuse_seen(asked, new, there)
            found.append(same or new)
        return found

    def _refuse_seen(self, asked: Asked, new: Declaration, there: Sequence[Declaration]) -> None:
        """Refuse a declaration if there are results that somebody may have looked at before."""
        tests = {sha256 for _, sha256 in new.tests}
        metric = new.question.metric
        rows = self._store.totals().select([*_SCORE, "value"]).to_pylist()
        scored = {
            row["run_id"]: row["dataset_sha256"]
            for row in rows
            if row["metric"] == metric and row["dataset_sha256"] in tests and row["value"] is not None
        }
        for backbone in asked.backbones:
            for seed in asked.seeds:
                pair = self._pair(asked, backbone, seed)
                seen = [run for run in pair if run.run_id in scored]
                if len(seen) == len(pair) or any(not _covered(run, new, there) for run in seen):
                    raise InputError(
                        f"{quoted(str(new.question))} has to be declared before the first look, and {seen[0]} has a "
                        "score already; choose fresh seeds with --seeds, or use 'sgbench compare --anytime'."
                    )


def _fixed(declaration: Declaration) -> tuple[object, ...]:
    """Return what two declarations of the same have in common; the order of backbones and sets makes no difference."""
    asked = declaration.question
    return (
        dataclasses.replace(asked, sets=tuple(sorted(asked.sets))),
        *(declaration.alpha, declaration.g, declaration.seeds, declaration.looks, declaration.conditions),
        *({*declaration.backbones}, {*declaration.tests}),
    )


def _covered(run: RunSpec, new: Declaration, there: Iterable[Declaration]) -> bool:
    """Return whether a run is one of another question by the same metric on the same sets, which was declared."""
    return any(
        str(run.loss) in (each.question.a, each.question.b)
        and each.question.metric == new.question.metric
        and each.conditions == new.conditions
        and run.backbone in each.backbones
        and run.seed in each.seeds
        and {*each.tests} >= {*new.tests}
        for each in there
    )


def _refuse_other(new: Declaration, there: Iterable[Declaration]) -> None:
    """Refuse a declaration if another one exists of the same comparisons with some of its seeds."""
    for other in there:
        a, b = new.question, other.question
        if (
            {a.a, a.b} == {b.a, b.b}
            and (a.metric, new.conditions) == (b.metric, other.conditions)
            and {*new.cells} & {*other.cells}
            and {*new.seeds} & {*other.seeds}
        ):
            before, now = _differing(other, new)
            raise InputError(
                f"{quoted(f'{a.a} vs {a.b} on {a.metric}')} was declared on {other.declared:%Y-%m-%d at %H:%M} UTC "
                f"with {before}, and is asked with {now}; ask as declared, or choose fresh seeds with --seeds."
            )


def _differing(one: Declaration, other: Declaration) -> tuple[str, str]:
    """Return in what two declarations differ, in words, as the one and as the other has it."""
    said: tuple[list[str], list[str]] = ([], [])
    for each in zip(_said(one), _said(other), strict=True):
        if each[0] != each[1]:
            for words, text in zip(said, each, strict=True):
                words.append(text)
    return listed(said[0]), listed(said[1])


def _said(each: Declaration) -> list[str]:
    """Return what is declared, in words."""
    margin = each.question.margin
    seeds = each.seeds
    runs_on = seeds == tuple(range(seeds[0], seeds[-1] + 1))
    return [
        f"decide.alpha={each.alpha:g}",
        f"decide.g={each.g:g}",
        f"seeds {seeds[0]}-{seeds[-1]}" if runs_on else f"seeds {', '.join(map(str, seeds))}",
        f"backbones {', '.join(sorted(each.backbones))}",
        f"sets {', '.join(sorted(each.question.sets))}",
        "no margin" if margin is None else f"a margin of {margin:g}",
        f"{each.question.a} first",
        f"the images {', '.join(sorted(f'{name}@{sha256[:8]}' for name, sha256 in each.tests))}",
    ]


def _refuse_undecidable(declaration: Declaration, images: dict[str, int]) -> None:
    """Refuse a question that no number of seeds can decide."""
    asked = declaration.question
    if not images or not isinstance(METRICS.load(asked.metric), ImageMetric):
        return
    counts = [sum(images.values()) if name == ALL_SETS else images[name] for name in asked.sets]
    if all(undecidable(counts * len(declaration.backbones), declaration)):
        raise InputError(
            f"no number of seeds can decide {quoted(str(asked))}: its test sets have only "
            f"{listed(map(str, counts))} images; name sets with more, or 'all sets' together."
        )
