"""The three tables of a results store: what each column means, and the one schema that every file has."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sgbench.core.storage import PART, PART_IN_WORDS
from sgbench.spec import SCHEDULES, Recipe, RunSpec, canonical_json, split_backbone
from sgbench.store.layout import RUN_ID

SCHEMA_VERSION = 1
"""Raised when a column changes its name, type or meaning; written into every row."""

TEXT = pa.dictionary(pa.int32(), pa.string())
"""Text as it is in memory where there is much of it; in files it is plain."""

_TIME = pa.timestamp("ms", tz="UTC")

RUNS = pa.schema(
    [
        pa.field("schema_version", pa.int32(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # train, checkpoint, folder, builtin
        pa.field("name", pa.string(), nullable=False),  # what tables call it
        pa.field("backbone", pa.string()),  # family-size
        pa.field("size", pa.string()),
        pa.field("loss", pa.string()),
        pa.field("lambda", pa.float64()),  # weight of sg in the loss
        pa.field("seed", pa.int64()),
        pa.field("scale", pa.int32(), nullable=False),
        pa.field("train", pa.string()),
        pa.field("train_sha256", pa.string()),
        pa.field("degradation_kernel", pa.string()),
        pa.field("degradation_edges", pa.string()),
        pa.field("degradation_rounding", pa.string()),
        pa.field("optimizer_name", pa.string()),
        pa.field("optimizer_lr", pa.float64()),
        pa.field("optimizer_beta1", pa.float64()),
        pa.field("optimizer_beta2", pa.float64()),
        pa.field("optimizer_eps", pa.float64()),
        pa.field("schedule_name", pa.string()),
        pa.field("schedule_halve_every", pa.int64()),
        pa.field("schedule_final", pa.float64()),
        pa.field("steps", pa.int64()),
        pa.field("batch", pa.int32()),
        pa.field("patch", pa.int32()),
        pa.field("window", pa.string()),  # JSON, null = whole images
        pa.field("augment", pa.bool_()),
        pa.field("precision", pa.string()),
        pa.field("memory_format", pa.string()),
        pa.field("threads", pa.int32()),
        pa.field("deterministic", pa.bool_()),
        pa.field("compiled", pa.bool_()),
        pa.field("spec", pa.string()),  # the whole specification, JSON
        pa.field("status", pa.string(), nullable=False),  # done, failed
        pa.field("error", pa.string()),
        pa.field("step", pa.int64()),  # steps done
        pa.field("parameters", pa.int64()),
        pa.field("steps_per_second", pa.float64()),
        pa.field("wall_seconds", pa.float64()),  # of training, interruptions not counted
        pa.field("peak_memory_bytes", pa.int64()),
        pa.field("workers", pa.int32()),
        pa.field("device", pa.string()),
        pa.field("host", pa.string()),
        pa.field("node", pa.string()),  # of Ray, null without
        pa.field("versions", pa.string()),  # JSON
        pa.field("git_revision", pa.string()),
        pa.field("started", _TIME),
        pa.field("finished", _TIME),
    ]
)
"""One row a run; written when it is done or has failed, in ``runs/<run_id>.parquet``."""

SCORES = pa.schema(
    [
        pa.field("schema_version", pa.int32(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("dataset_sha256", pa.string(), nullable=False),
        pa.field("image", pa.string()),  # null = the whole set
        pa.field("metric", pa.string(), nullable=False),
        pa.field("metric_version", pa.string(), nullable=False),
        pa.field("protocol", pa.string(), nullable=False),  # JSON
        pa.field("n_images", pa.int32(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("standard_error", pa.float64()),  # of a value that is estimated from the set
        pa.field("status", pa.string(), nullable=False),  # ok, no weights, undefined, failed
        pa.field("reason", pa.string()),
        pa.field("scored", _TIME, nullable=False),
    ]
)
"""One row a run, test set, metric and, where the metric has a value for each image, image.

A metric of images also has a row for the whole set: the mean over its images. All rows of one run, test set and
metric are one file, ``scores/<run_id>-<dataset>@<8 digits of its hash>-<metric>.parquet``.
"""

HISTORY = pa.schema(
    [
        pa.field("schema_version", pa.int32(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("loss", pa.float64(), nullable=False),  # mean since the row before
        pa.field("terms", pa.map_(pa.string(), pa.float64()), nullable=False),  # each term, unweighted
        pa.field("lr", pa.float64(), nullable=False),  # of the last step
        pa.field("steps_per_second", pa.float64(), nullable=False),
    ]
)
"""The course of training, a hundred rows a run or one each hundred steps, in ``history/<run_id>.parquet``."""

TABLES = {"runs": RUNS, "scores": SCORES, "history": HISTORY}

_NAME = (PART, f"{PART_IN_WORDS} is")

_NAMES = {
    "run_id": (RUN_ID, "12 of 0-9 and a-f are"),
    "dataset": _NAME,
    "dataset_sha256": ("[0-9a-f]{64}", "64 of 0-9 and a-f are"),
    "image": _NAME,
    "metric": _NAME,
}
"""Columns that become parts of paths: the pattern of their values, and what it is in words."""


def identity_columns(spec: RunSpec) -> dict[str, Any]:
    """Return the columns of `RUNS` that describe what was to be run."""
    _, size = split_backbone(spec.backbone)
    return recipe_columns(spec.recipe) | {
        "run_id": spec.run_id,
        "kind": "train",
        "name": str(spec),
        "backbone": spec.backbone,
        "size": size,
        "loss": str(spec.loss),
        "lambda": spec.lam,
        "seed": spec.seed,
        "train": spec.train.name,
        "train_sha256": spec.train.sha256,
        "spec": json.dumps(spec.model_dump(mode="json"), sort_keys=True),
    }


def recipe_columns(recipe: Recipe) -> dict[str, Any]:
    """Return the columns of `RUNS` that describe how a network was trained."""
    fields = recipe.model_dump(mode="json")
    window = fields.pop("window")
    of_schedules = (field for schedule in SCHEDULES.values() for field in schedule.model_fields.items())
    columns = {f"schedule_{key}": field.default for key, field in of_schedules}  # also of those that the recipe has not
    columns["window"] = None if window is None else canonical_json(window)
    for key, value in fields.items():
        if isinstance(value, dict):
            columns |= {f"{key}_{inner}": inner_value for inner, inner_value in value.items()}
        else:
            columns[key] = value
    return columns


def of_today(name: str, part: pa.Table) -> pa.Table:
    """Return a table with the columns of today's schema, though it was written when there were fewer.

    A column that a row of ``runs`` lacks has the default of the recipe, which is what its run was trained with; any
    other is null.

    Args:
        name: ``runs``, ``scores`` or ``history``.
        part: As it was read; text may be a dictionary and stays one.

    Raises:
        ValueError: If it has a column that is not known, lacks one that must not be null, or has a name that is none.
    """
    part = _completed(name, part)
    check_names({column: part.column(column) for column in _NAMES.keys() & set(part.column_names)})
    return part


def check_names(columns: Mapping[str, pa.ChunkedArray]) -> None:
    """Check values that become parts of paths, wherever they are read from a file.

    Args:
        columns: By the column of `SCORES` whose kind they are of; text may be a dictionary. Only an image may be null.

    Raises:
        ValueError: With the first value that is none of its kind, and what would be.
    """
    for column, values in columns.items():
        pattern, valid = _NAMES[column]
        if values.null_count and column != "image":
            raise ValueError(f"it lacks a {column}")
        for chunk in values.chunks:
            names = chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else chunk.unique()
            good = pc.match_substring_regex(names, f"^(?:{pattern})$")
            if pc.all(good).as_py() is False:
                (stray, *_) = names.filter(pc.invert(good)).to_pylist()
                raise ValueError(f"its {column} is {stray[:80]!r}; {valid} needed")


def _completed(name: str, part: pa.Table) -> pa.Table:
    schema = TABLES[name]
    if part.schema.equals(schema):
        return part
    if strange := set(part.column_names) - set(schema.names):
        raise ValueError(f"its column {sorted(strange)[0]} is not known; a newer sgbench may have written it")
    defaults = recipe_columns(Recipe()) if name == "runs" else {}
    for field in schema:
        if field.name not in part.column_names and field.nullable:
            values = pa.repeat(pa.scalar(defaults.get(field.name), field.type), part.num_rows)
            part = part.append_column(field, values)
    part = part.select(schema.names)
    encoded = {field.name: field.type for field in part.schema if field.type == TEXT}
    return part.cast(pa.schema([field.with_type(encoded.get(field.name, field.type)) for field in schema]))


def to_table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Build a table of the store from rows; columns that a row lacks are null.

    Args:
        name: ``runs``, ``scores`` or ``history``.
        rows: Values by column name.

    Raises:
        KeyError: If a row has a column that the schema lacks.
    """
    schema = TABLES[name]
    for row in rows:
        if stray := row.keys() - set(schema.names):
            raise KeyError(f"no column {sorted(stray)} in table '{name}'")
    return pa.Table.from_pylist([{**row, "schema_version": SCHEMA_VERSION} for row in rows], schema=schema)
