"""The four tables of a results store: the one schema that every file has, and files that were written before it."""

import datetime
import json
from collections.abc import Mapping, Sequence
from enum import EnumType
from typing import Any, cast, get_args, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc

from sgbench.core.status import ScoreStatus
from sgbench.core.storage import PART, PART_IN_WORDS
from sgbench.spec import (
    OPTIMIZER_KINDS,
    SCHEDULES,
    Cosine,
    PluginOptimizer,
    Recipe,
    RunSpec,
    Step,
    canonical_json,
    split_backbone,
)
from sgbench.store.layout import RUN_ID
from sgbench.store.rows import HistoryRow, Int32, Row, RunEnd, RunKind, RunRow, ScoreRow, ValidationRow

SCHEMA_VERSION = 1
"""Raised when the name, type or meaning of a column changes; written into every row."""

TEXT = pa.dictionary(pa.int32(), pa.string())
"""Text as it is in memory where there is much of it; in files it is plain."""

_TYPES = {
    str: pa.string(),
    bool: pa.bool_(),
    int: pa.int64(),
    Int32: pa.int32(),
    float: pa.float64(),
    datetime.datetime: pa.timestamp("ms", tz="UTC"),
    dict[str, float]: pa.map_(pa.string(), pa.float64()),
}


def _field(name: str, hint: Any) -> pa.Field:
    nullable = type(None) in get_args(hint)
    kind = get_args(hint)[0] if nullable else hint
    return pa.field(name, _TYPES[str if isinstance(kind, EnumType) else kind], nullable=nullable)


def _schema(row: type) -> pa.Schema:
    columns = {"schema_version": Int32, **get_type_hints(row, include_extras=True)}
    return pa.schema([_field(name, hint) for name, hint in columns.items()])


RUNS, SCORES, HISTORY, VALIDATION = map(_schema, (RunRow, ScoreRow, HistoryRow, ValidationRow))
"""The schemas of all files of a table, from its rows; a column is nullable if its type is ``| None``."""

TABLES = {"runs": RUNS, "scores": SCORES, "history": HISTORY, "validation": VALIDATION}

BESIDE_RUNS = tuple(name for name in TABLES if name != "runs")
"""The tables whose rows belong to a run that has, or will have, its row in ``runs``."""

KEYS = {
    "runs": ["run_id"],
    "history": ["run_id", "step"],
    "scores": ["run_id", "dataset", "dataset_sha256", "metric", "image"],
    "validation": ["run_id", "step", "dataset", "dataset_sha256", "metric"],
}
"""Columns that are unique for each row of a table."""

_NAME = (PART, f"{PART_IN_WORDS} is")

_NAMES = {
    "run_id": (RUN_ID, "12 of 0-9 and a-f are"),
    "dataset": _NAME,
    "dataset_sha256": ("[0-9a-f]{64}", "64 of 0-9 and a-f are"),
    "image": _NAME,
    "metric": _NAME,
}
"""Columns that become parts of paths: the pattern of their values, and its description."""

_WORDS = {
    "runs": {"kind": [*RunKind], "status": [RunEnd.DONE, RunEnd.FAILED]},
    "scores": {"status": [*ScoreStatus]},
    "history": {},
    "validation": {"status": [*ScoreStatus]},
}
"""Columns with a closed list of values."""

_OBJECTS = {"versions", "code", "window", "protocol", "files", "optimizer_options"}
"""Columns with a JSON object."""

_OF_TRAINED = ("backbone", "loss", "seed")
"""Columns that every trained run has."""

_LATEST = int(datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC).timestamp() * 1000)
_EARLIEST = -int(datetime.timedelta(days=719_162).total_seconds() * 1000)
"""Times that a `datetime.datetime` can hold in any time zone, in milliseconds since 1970."""


def identity_columns(spec: RunSpec) -> RunRow:
    """Return the columns of a row that describe what was to be run."""
    _, size = split_backbone(spec.backbone)
    columns: RunRow = {
        "run_id": str(spec.run_id),
        "kind": RunKind.TRAIN,
        "name": str(spec),
        "backbone": spec.backbone,
        "size": size,
        "loss": str(spec.loss),
        "lambda": spec.lam,
        "varied": spec.varied,
        "seed": spec.seed,
        "train": spec.train.name,
        "train_sha256": spec.train.sha256,
        "spec": json.dumps(spec.model_dump(mode="json"), sort_keys=True),
    }
    return recipe_columns(spec.recipe) | columns


def recipe_columns(recipe: Recipe) -> RunRow:
    """Return the columns of a row that describe how a network was trained; null is what its optimizer has not."""
    fields = recipe.model_dump(mode="json", exclude={"max_hours"})
    init = fields.pop("init")
    columns = dict.fromkeys(_OF_KINDS) | _IN_EVERY_ROW
    columns |= {"init": init and init["name"], "init_sha256": init and init["sha256"]}
    if isinstance(recipe.optimizer, PluginOptimizer):
        options = {key: fields["optimizer"].pop(key) for key in recipe.optimizer.options}
        columns["optimizer_options"] = canonical_json(options)
    for key, value in fields.items():
        inner = {key: value} if key == "window" or not isinstance(value, dict) else _prefixed(key, value)
        columns |= {
            name: canonical_json(each) if isinstance(each, dict | list) else each for name, each in inner.items()
        }
    return cast(RunRow, columns)


def _prefixed(key: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{key}_{inner}": value for inner, value in fields.items()}


_OF_KINDS = [
    *(f"optimizer_{key}" for kind in OPTIMIZER_KINDS.values() for key in kind.model_fields),
    "optimizer_options",
    *(f"schedule_{key}" for kind in SCHEDULES.values() for key in kind.model_fields),
]
"""Columns that some optimizers and schedules have."""

_IN_EVERY_ROW = {
    f"schedule_{key}": kind.model_fields[key].default for kind, key in ((Step, "halve_every"), (Cosine, "final"))
}
"""Columns of the first schedules, which rows of others have always had too, with their defaults."""


def of_today(name: str, part: pa.Table) -> pa.Table:
    """Return a table with the columns of the current schema, even if it was written with fewer.

    A missing column of ``runs`` gets the recipe's default, with which the run was trained; any other is null.

    Args:
        name: A name in `TABLES`.
        part: The table as read; dictionary-encoded text stays so.

    Raises:
        ValueError: If it has an unknown column, or lacks a required one.
    """
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
    for field in schema:
        if not field.nullable and part.column(field.name).null_count:
            raise ValueError(f"a row lacks its {field.name}")
    encoded = {field.name: field.type for field in part.schema if field.type == TEXT}
    return part.cast(pa.schema([field.with_type(encoded.get(field.name, field.type)) for field in schema]))


def check_rows(name: str, rows: pa.Table) -> None:
    """Check rows from a file: their values, and that no two have the same key.

    Args:
        name: A name in `TABLES`.
        rows: Rows of the table; text may be dictionary-encoded.

    Raises:
        ValueError: Naming the first thing that is wrong.
    """
    check_values(name, rows)
    plain = rows.select(KEYS[name]).cast(pa.schema([TABLES[name].field(key) for key in KEYS[name]]))
    counts = plain.group_by(KEYS[name], use_threads=False).aggregate([([], "count_all")])
    if counts.num_rows < rows.num_rows:
        first = counts.filter(pc.greater(counts.column("count_all"), 1)).slice(0, 1).to_pylist()[0]
        raise ValueError(f"there are {first.pop('count_all')} rows of {', '.join(map(str, first.values()))}")


def check_values(name: str, rows: pa.Table) -> None:
    """Check values from a file that have the type of their column, but may have none of its meanings.

    Args:
        name: A name in `TABLES`.
        rows: Rows of the table; text may be dictionary-encoded.

    Raises:
        ValueError: Naming the first such value and its column, and what would be valid.
    """
    check_names({column: rows.column(column) for column in _NAMES.keys() & set(rows.column_names)})
    for field in rows.schema:
        _check_column(name, field, rows.column(field.name))
    if name == "runs":
        trained = rows.filter(pc.equal(rows.column("kind").cast(pa.string()), RunKind.TRAIN))
        for column in _OF_TRAINED:
            if trained.column(column).null_count:
                raise ValueError(f"a trained run lacks its {column}")


def check_names(columns: Mapping[str, pa.ChunkedArray]) -> None:
    """Check values from a file that become parts of paths.

    Args:
        columns: Values by their column of `SCORES`; text may be dictionary-encoded. Only an image may be null.

    Raises:
        ValueError: Naming the first invalid value, and what would be valid.
    """
    for column, values in columns.items():
        pattern, valid = _NAMES[column]
        if values.null_count and column != "image":
            raise ValueError(f"it lacks a {column}")
        encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
        for names in [chunk.dictionary for chunk in encoded.unify_dictionaries().chunks[:1]]:
            good = pc.match_substring_regex(names, f"^(?:{pattern})$")
            if pc.all(good).as_py() is False:
                (stray, *_) = names.filter(pc.invert(good)).to_pylist()
                raise ValueError(f"its {column} is {stray[:80]!r}; {valid} needed")


def _check_column(name: str, field: pa.Field, values: pa.ChunkedArray) -> None:
    column = field.name
    if pa.types.is_integer(field.type):
        if (least := pc.min(values).as_py() or 0) < 0:
            raise ValueError(f"its {column} is {least}; 0 or more is needed")
    elif pa.types.is_floating(field.type):
        if pc.all(pc.is_finite(values)).as_py() is False:
            stray = values.filter(pc.invert(pc.is_finite(values)))[0]
            raise ValueError(f"its {column} is {stray}; a finite number is needed")
    elif pa.types.is_map(field.type):
        terms = pa.chunked_array([chunk.items for chunk in values.chunks], field.type.item_type)
        _check_column(name, pa.field(column, field.type.item_type), terms)
    elif pa.types.is_timestamp(field.type):
        for extreme in pc.min_max(values.cast(pa.int64())).as_py().values():
            if extreme is not None and not _EARLIEST <= extreme <= _LATEST:
                raise ValueError(f"its {column} is {extreme} ms after 1970; a year from 1 to 9999 is needed")
    elif column in _WORDS[name]:
        valid = _WORDS[name][column]
        for word in values.unique().to_pylist():
            if word not in valid:
                raise ValueError(f"its {column} is {word[:80]!r}; {' or '.join(map(repr, map(str, valid)))} is needed")
    elif column in _OBJECTS:
        for text in values.unique().to_pylist():
            if text is not None and not _is_object(text):
                raise ValueError(f"its {column} is {text[:80]!r}; a JSON object is needed")


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def to_table(name: str, rows: Sequence[Row]) -> pa.Table:
    """Build a table of the store from rows; columns that a row lacks are null.

    Args:
        name: A name in `TABLES`.
        rows: Values by column name.

    Raises:
        KeyError: If a row has a column that the schema lacks.
    """
    schema = TABLES[name]
    for row in rows:
        if stray := row.keys() - set(schema.names):
            raise KeyError(f"no column {sorted(stray)} in table '{name}'")
    return pa.Table.from_pylist([{**row, "schema_version": SCHEMA_VERSION} for row in rows], schema=schema)
