"""Times that ``sgbench plan --measure`` has measured, kept in a store beside what its runs tell."""

import json
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.spec import RunSpec
from sgbench.spec.text import read_json
from sgbench.store.layout import MEASURED

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Time(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    """As in the column ``device`` of ``runs``."""
    spec: RunSpec
    """A run whose steps, or whose network, took the time."""


class StepTime(_Time):
    """What a step of training takes."""

    kind: Literal["step"] = "step"
    workers: int = Field(default=1, ge=1)
    """The workers that shared a step."""
    seconds: Seconds


class ScoringTime(_Time):
    """What scoring one test set takes."""

    kind: Literal["scoring"] = "scoring"
    dataset_sha256: str
    metric: str | None
    """None stands for making the images, whatever the metrics."""
    seconds: Seconds


Time = StepTime | ScoringTime

_LIST = TypeAdapter(list[Annotated[Time, Field(discriminator="kind")]])


def read_times(storage: Storage) -> list[Time]:
    """Return what was measured.

    Raises:
        InputError: If the file was not written by sgbench.
    """
    try:
        text = storage.read(MEASURED)
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        return list(_LIST.validate_python(read_json(text)))
    except (ValidationError, ValueError) as error:
        raise InputError(f"'{storage.address(MEASURED)}' has no times that can be read; delete it.") from error


def keep_times(storage: Storage, times: Iterable[Time]) -> None:
    """Add measurements to a store that the caller has locked; each replaces an earlier one of the same."""
    known = {_what(time): time for time in [*read_times(storage), *times]}
    content = [time.model_dump(mode="json") for time in known.values()]
    storage.write(MEASURED, json.dumps(content, indent=1, ensure_ascii=False).encode())


def _what(time: Time) -> str:
    return time.model_dump_json(exclude={"seconds"})
