"""A search for the best settings of losses: what was fixed before it, and what each of its trials came to."""

import dataclasses
import datetime
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sgbench.spec.expression import Single
from sgbench.spec.models import canonical_json, path_of
from sgbench.spec.space import Searched
from sgbench.store.rows import RunEnd


@dataclass(frozen=True)
class Candidate:
    """A loss whose settings are searched on one backbone.

    Attributes:
        backbone: The backbone.
        loss: The loss as a person wrote it, with what is searched, such as ``l1 + 0.01:10*ssim``.
        searched: What is searched; nothing of a loss that has no settings.
    """

    backbone: str
    loss: str
    searched: tuple[Searched, ...]


@dataclass(frozen=True)
class Search:
    """What is fixed before the first trial, and so the same for each candidate.

    Attributes:
        candidates: What is tuned.
        trials: The trials that each candidate is given; see `given`.
        steps: The steps that a trial is given.
        method: How values are suggested: ``random``, ``grid`` or ``optuna``.
        scheduler: What stops trials early: ``none`` or ``asha``.
        metric: By which the best trial is chosen.
        higher: Whether higher values of the metric are better.
        dataset: The validation set.
        dataset_sha256: The hash of its pixels.
        seed: Of the suggestions.
        trial_seeds: With which trials are trained, each with all of them; not with one of the next.
        final_seeds: With which what was chosen is trained; empty if seeds are added until a question is decided.
        conditions: What all runs share unless it is searched, `sgbench.spec.RunSpec.conditions`.
        options: Options of the method and the scheduler, by name.
    """

    candidates: tuple[Candidate, ...]
    trials: int
    steps: int
    method: str
    scheduler: str
    metric: str
    higher: bool
    dataset: str
    dataset_sha256: str
    seed: int
    trial_seeds: tuple[int, ...]
    final_seeds: tuple[int, ...]
    conditions: str
    options: Mapping[str, Single] = dataclasses.field(default_factory=dict)

    def given(self, candidate: int) -> int:
        """Return how many trials a candidate is given: as many as all, or fewer if it has fewer different settings.

        All trials have the same seed, so that a loss without settings has one; more would choose nothing.
        """
        return int(min(self.trials, math.prod(each.count for each in self.candidates[candidate].searched)))

    @property
    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of what is fixed."""
        as_read = TypeAdapter(Search).validate_python(dataclasses.asdict(self))  # 1 becomes 1.0 in a float
        return hashlib.sha256(canonical_json(dataclasses.asdict(as_read)).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Trial:
    """A run that tries one value of each setting of a candidate.

    Attributes:
        candidate: The number of the candidate in the search, from 0.
        values: The values that were suggested, by `Searched.name`.
        loss: The loss with these values, in its canonical form.
        seed: The run's seed.
        run_id: The run.
        end: How it ended: done, stopped early, or failed; None as long as it has not ended.
        step: The steps that it was trained for.
        value: The last value of the metric on the validation set; None if there is none.
    """

    candidate: int
    values: Mapping[str, Single]
    loss: str
    seed: int
    run_id: str
    end: RunEnd | None = None
    step: int = 0
    value: float | None = None


@dataclass(frozen=True)
class Tuning:
    """A search with the trials that were suggested so far.

    Attributes:
        search: What is fixed.
        trials: In the order in which they were suggested.
        begun: When.
    """

    search: Search
    trials: tuple[Trial, ...]
    begun: datetime.datetime

    @property
    def digest(self) -> str:
        """That of the search; trials are added to it."""
        return self.search.digest

    def of_candidate(self, candidate: int) -> tuple[Trial, ...]:
        """Return the trials of a candidate, in order."""
        return tuple(trial for trial in self.trials if trial.candidate == candidate)

    def is_complete(self, candidate: int) -> bool:
        """Return whether a candidate has had all its trials, and each has ended."""
        given = self.of_candidate(candidate)
        return len(given) == self.search.given(candidate) and all(trial.end is not None for trial in given)

    def chosen(self, candidate: int) -> Trial | None:
        """Return the best trial of a candidate that is complete: of those trained to the end, the first of the best.

        A trial that was stopped early or failed is never chosen; without any other, there is none.
        """
        return self.best(self.of_candidate(candidate)) if self.is_complete(candidate) else None

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """Return the first of the best of some trials that were trained to the end, if one has a value."""
        found = [each for each in trials if each.end == RunEnd.DONE and each.value is not None]
        sign = -1 if self.search.higher else 1
        return min(found, key=lambda each: sign * (each.value or 0.0), default=None)

    def to_data(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {"digest": self.digest, **dataclasses.asdict(self), "begun": self.begun.isoformat()}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Tuning":
        """Read what `to_data` returns, after JSON.

        Raises:
            ValueError: If it is something else, or does not agree with itself.
        """
        try:
            tuning = TypeAdapter(cls).validate_python(data)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{path_of(first['loc'])}: {first['msg']}") from error
        if tuning.digest != data.get("digest"):
            raise ValueError(f"the search has been changed, and its digest is {tuning.digest} now")
        for number, candidate in enumerate(tuning.search.candidates):
            for each in candidate.searched:
                if not (each.choices or _is_range(each)):
                    raise ValueError(f"{each.name} of {candidate.loss} has neither a range nor values to choose from")
            given = tuning.of_candidate(number)
            if len(given) > (most := tuning.search.given(number)):
                raise ValueError(f"{candidate.loss} has {len(given)} trials and was given {most}")
            names = {each.name for each in candidate.searched}
            if any(trial.values.keys() != names for trial in given):
                raise ValueError(f"a trial of {candidate.loss} has values of something else than is searched")
            for each in candidate.searched:
                if any(not _is_among(trial.values[each.name], each) for trial in given):
                    raise ValueError(f"a trial of {candidate.loss} has a value of {each.name} that is not searched")
        if any(not 0 <= trial.candidate < len(tuning.search.candidates) for trial in tuning.trials):
            raise ValueError("a trial is of no candidate")
        numbers = [number for trial in tuning.trials for number in (trial.seed, trial.step)]
        if any(not 0 <= number < 2**63 for number in (tuning.search.steps, tuning.search.trials, *numbers)):
            raise ValueError("a number of trials or steps, or a seed, is not from 0 to 2⁶³ − 1")
        if any(trial.value is not None and not math.isfinite(trial.value) for trial in tuning.trials):
            raise ValueError("the value of a trial is no finite number")
        return tuning


def _is_range(searched: Searched) -> bool:
    low, high = searched.low, searched.high
    return low is not None and high is not None and low < high and (low > 0 or not searched.log)


def _is_among(value: Single, searched: Searched) -> bool:
    if searched.choices:
        return value in searched.choices
    return not isinstance(value, str) and (searched.low or 0.0) <= value <= (searched.high or 0.0)
