"""What chance each loss was given: the searches for settings that a store records, for people and for queries."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypeVar, cast

import pyarrow as pa

from sgbench.core.words import printable
from sgbench.spec.expression import Single
from sgbench.spec.space import RATE, Searched
from sgbench.store import Candidate, Search, Trial, Tuning
from sgbench.store.rows import RunEnd

T = TypeVar("T")

TRIALS = pa.schema(
    [
        pa.field("tuning", pa.string(), nullable=False),
        pa.field("backbone", pa.string(), nullable=False),
        pa.field("searched", pa.string(), nullable=False),
        pa.field("trial", pa.int64(), nullable=False),
        pa.field("settings", pa.string(), nullable=False),
        pa.field("learning_rate", pa.float64()),
        pa.field("loss", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("status", pa.string()),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("steps", pa.int64(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("chosen", pa.bool_(), nullable=False),
    ]
)
"""The view of trials, one row each: ``searched`` is the loss as it was written, ``settings`` are the values that were
tried, as a JSON object, and ``status`` is null as long as the trial has not ended."""


@dataclass(frozen=True)
class Edge:
    """A setting that was chosen at an end of its range, beyond which there may be a better value.

    Attributes:
        searched: The setting.
        value: What was chosen.
        end: Which end it is.
    """

    searched: Searched
    value: Single
    end: Literal["lower", "upper"]


@dataclass(frozen=True)
class Chance:
    """What a loss was given on a backbone, and what was chosen; all texts are printable.

    Attributes:
        tuning: The name of the search.
        search: What was fixed.
        candidate: The loss.
        due: The trials that it is to have.
        trials: Those that were suggested, in order.
        chosen: The best; None if not all have ended, or none came to a value.
        default: The trial of the loss as it is if nobody searches; None if there is none.
    """

    tuning: str
    search: Search
    candidate: Candidate
    due: int
    trials: tuple[Trial, ...]
    chosen: Trial | None
    default: Trial | None

    def ended(self, *how: RunEnd) -> int:
        """Return how many trials have ended, or have ended in some way."""
        return sum(trial.end is not None and (not how or trial.end in how) for trial in self.trials)

    @property
    def steps(self) -> int:
        """The steps of all its trials together."""
        return sum(trial.step for trial in self.trials)

    @property
    def edges(self) -> list[Edge]:
        """The settings that were chosen at an end of their range."""
        values = self.chosen.values if self.chosen else {}
        at_edge = [each for each in self.candidate.searched if values and each.is_at_edge(values[each.name])]
        return [Edge(each, values[each.name], _end(each, float(values[each.name]))) for each in at_edge]


def _end(searched: Searched, value: float) -> Literal["lower", "upper"]:
    return "lower" if value - (searched.low or 0.0) < (searched.high or 0.0) - value else "upper"


def chances(tunings: Mapping[str, Tuning]) -> list[Chance]:
    """Return what each loss was given by each search, in the order of the searches and of what they name.

    Args:
        tunings: The searches, by name.
    """
    found = []
    for name, tuning in tunings.items():
        shown = _shown(tuning)
        for number, candidate in enumerate(shown.search.candidates):
            trials, default = shown.of_candidate(number), {each.name: each.default for each in candidate.searched}
            found.append(
                Chance(
                    printable(name),
                    shown.search,
                    candidate,
                    shown.search.given(number),
                    trials,
                    shown.chosen(number),
                    next((trial for trial in trials if trial.values == default), None),
                )
            )
    return found


def trials_table(tunings: Mapping[str, Tuning]) -> pa.Table:
    """Return all trials of some searches, by name, as `TRIALS`."""
    rows = []
    for name, tuning in tunings.items():
        search = tuning.search
        chosen = [tuning.chosen(number) for number in range(len(search.candidates))]
        for number, trial in enumerate(tuning.trials):
            candidate = search.candidates[trial.candidate]
            rows.append(
                {
                    **{field: getattr(trial, field) for field in ("loss", "seed", "run_id", "step", "value")},
                    **{field: getattr(search, field) for field in ("dataset", "metric", "steps")},
                    "tuning": name,
                    "backbone": candidate.backbone,
                    "searched": candidate.loss,
                    "trial": number,
                    "settings": json.dumps(dict(trial.values), ensure_ascii=False),
                    "learning_rate": float(rate) if isinstance(rate := trial.values.get(RATE), int | float) else None,
                    "status": trial.end,
                    "chosen": trial is chosen[trial.candidate],
                }
            )
    return pa.Table.from_pylist(rows, schema=TRIALS)


def _shown(value: T) -> T:
    """Return a value with all text in it printable, whoever wrote the store."""
    changed: Any = value
    if isinstance(value, str) and not isinstance(value, Enum):
        changed = printable(value)
    elif isinstance(value, tuple):
        changed = tuple(map(_shown, value))
    elif isinstance(value, Mapping):
        changed = {_shown(key): _shown(each) for key, each in value.items()}
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        changed = dataclasses.replace(value, **{field.name: _shown(getattr(value, field.name)) for field in fields})
    return cast(T, changed)
