"""The rows of a store: each column's name, type and meaning; `sgbench.store.schema` makes Arrow's schemas from them.

A row that is read is a plain dictionary whose statuses and kinds are plain text: compare them by ``==``.
"""

import datetime
from enum import StrEnum
from typing import Annotated, TypedDict

from sgbench.core.status import ScoreStatus

BITS_32 = "32 bits"
Int32 = Annotated[int, BITS_32]
"""A whole number that is stored with 32 bits; a plain one has 64."""

Json = str


class RunKind(StrEnum):
    """What was scored; the id of all but a trained run is a hash of its content."""

    TRAIN = "train"
    CHECKPOINT = "checkpoint"
    FOLDER = "folder"
    BUILTIN = "builtin"


class RunEnd(StrEnum):
    """How a run ended; only the first two are stored."""

    DONE = "done"
    """With final weights and a row."""
    FAILED = "failed"
    """By a fault of its own, with a row that has the error."""
    STOPPED = "stopped"
    """On request, with a checkpoint and no row."""
    PAUSED = "paused"
    """After the steps that were asked for, fewer than the recipe's, with a checkpoint and no row."""
    EXHAUSTED = "out of budget"
    """By its budget of hours, with a checkpoint and no row."""
    INTERRUPTED = "interrupted"
    """By a fault of storage or machine, without a row; its checkpoints stay."""


RunRow = TypedDict(
    "RunRow",
    {
        "run_id": str,
        "kind": RunKind,
        "name": str,  # what tables call it
        "backbone": str | None,  # family-size
        "size": str | None,
        "loss": str | None,
        "lambda": float | None,  # coefficient of the varied term in the loss
        "varied": str | None,  # that term without its coefficient, such as sg(order=1); null = what is called sg
        "seed": int | None,
        "scale": Int32,
        "train": str | None,
        "init": str | None,  # what the weights are called with which training starts; null = all are drawn
        "init_partial": bool | None,  # whether it may give only some of them
        "train_sha256": str | None,
        "degradation_kernel": str | None,
        "degradation_edges": str | None,
        "degradation_rounding": str | None,
        "optimizer_name": str | None,
        "optimizer_lr": float | None,
        "optimizer_beta1": float | None,
        "optimizer_beta2": float | None,
        "optimizer_eps": float | None,
        "optimizer_weight_decay": float | None,
        "optimizer_momentum": float | None,
        "optimizer_nesterov": bool | None,
        "optimizer_options": Json | None,  # of an optimizer that is not built in
        "schedule_name": str | None,
        "schedule_halve_every": int | None,
        "schedule_milestones": Json | None,
        "schedule_gamma": float | None,
        "schedule_final": float | None,
        "schedule_warmup": int | None,
        "schedule_warmup_from": float | None,
        "steps": int | None,
        "batch": Int32 | None,
        "accumulate": Int32 | None,
        "clip_norm": float | None,
        "ema": float | None,
        "patch": Int32 | None,
        "window": Json | None,  # null = whole images
        "augment": bool | None,
        "precision": str | None,
        "memory_format": str | None,
        "threads": Int32 | None,
        "deterministic": bool | None,
        "compiled": bool | None,
        "init_sha256": str | None,  # of the tensors, by the network's names for them
        "spec": Json | None,  # the whole specification
        "status": RunEnd,  # done or failed
        "error": str | None,
        "step": int | None,  # steps done
        "parameters": int | None,
        "steps_per_second": float | None,
        "wall_seconds": float | None,  # of training, interruptions and validation not counted
        "peak_memory_bytes": int | None,  # of the GPU, or without one of the process
        "workers": Int32 | None,
        "device": str | None,
        "gpu": str | None,  # its type, null without one; older stores have neither this nor the next
        "gpu_memory_bytes": int | None,  # all that the GPU has
        "host": str | None,
        "node": str | None,  # of Ray, null without
        "versions": Json | None,
        "code": Json | None,  # the hash of each plug-in's code, by its kind and name; null without plug-ins, or older
        "git_revision": str | None,
        "files": Json | None,  # by test set and image, which file of a folder was scored, if matched by a stem
        "planned": datetime.datetime | None,  # when it was first asked for in this store; null in older ones
        "started": datetime.datetime | None,
        "finished": datetime.datetime | None,
    },
    total=False,
)
"""A run, or some columns of one; written when it is done or has failed, in ``runs/<run_id>.parquet``."""


class ScoreRow(TypedDict):
    """A score of a run on a test set by a metric and, where the metric has a value for each image, for an image.

    A metric of images also has a row for the whole set: the mean over its images. All rows of one run, test set and
    metric are one file, ``scores/<run_id>-<dataset>@<8 digits of its hash>-<metric>.parquet``.
    """

    run_id: str
    dataset: str
    dataset_sha256: str
    image: str | None  # null = the whole set
    metric: str
    metric_version: str
    metric_code: str | None  # the hash of the code of a metric that is not built in; older stores have none
    protocol: Json
    n_images: Int32
    value: float | None
    standard_error: float | None  # of a value that is estimated from the set
    status: ScoreStatus
    reason: str | None
    seconds: float | None  # that the metric took
    upscaling_seconds: float | None  # that making the images took, whichever metrics were computed of them
    scored: datetime.datetime


class HistoryRow(TypedDict):
    """A point of a training curve: a hundred per run, or one every hundred steps, in ``history/<run_id>.parquet``."""

    run_id: str
    step: int
    loss: float  # mean since the previous row
    terms: dict[str, float]  # each term, unweighted
    lr: float  # of the last step
    steps_per_second: float


class ValidationRow(TypedDict):
    """A score of a network on a validation set while it was being trained, in ``validation/<run_id>.parquet``.

    All of them of one run, at every step, set and metric, are one file. Those of whole sets are kept, not of images.
    """

    run_id: str
    step: int
    dataset: str
    dataset_sha256: str
    metric: str
    metric_version: str
    protocol: Json
    n_images: Int32
    value: float | None
    status: str  # of a score; plain text, as checkpoints hold these rows
    reason: str | None
    seconds: float | None  # that the metric took
    upscaling_seconds: float | None  # that making the images took, whichever metrics were computed of them


Row = RunRow | ScoreRow | HistoryRow | ValidationRow
