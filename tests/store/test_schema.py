"""The columns are a promise to whoever reads the files; changing one means a new schema version."""

import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import annotated_types
import pyarrow as pa
import pytest
from pydantic import BaseModel

from sgbench.spec import Adam, Cosine, Degradation, Init, Recipe, RunSpec, Step, TrainingData, Window
from sgbench.spec.expression import parse
from sgbench.spec.stored import read_spec
from sgbench.store.schema import HISTORY, RUNS, SCHEMA_VERSION, SCORES, identity_columns, recipe_columns, to_table

RUNS_SNAPSHOT = """
schema_version: int32 not null
run_id: string not null
kind: string not null
name: string not null
backbone: string
size: string
loss: string
lambda: double
varied: string
seed: int64
scale: int32 not null
train: string
init: string
init_partial: bool
train_sha256: string
degradation_kernel: string
degradation_edges: string
degradation_rounding: string
optimizer_name: string
optimizer_lr: double
optimizer_beta1: double
optimizer_beta2: double
optimizer_eps: double
optimizer_weight_decay: double
optimizer_momentum: double
optimizer_nesterov: bool
optimizer_options: string
schedule_name: string
schedule_halve_every: int64
schedule_milestones: string
schedule_gamma: double
schedule_final: double
schedule_warmup: int64
schedule_warmup_from: double
steps: int64
batch: int32
accumulate: int32
clip_norm: double
ema: double
patch: int32
window: string
augment: bool
precision: string
memory_format: string
threads: int32
deterministic: bool
compiled: bool
init_sha256: string
spec: string
status: string not null
error: string
step: int64
parameters: int64
steps_per_second: double
wall_seconds: double
peak_memory_bytes: int64
workers: int32
device: string
gpu: string
gpu_memory_bytes: int64
host: string
node: string
versions: string
code: string
git_revision: string
files: string
planned: timestamp[ms, tz=UTC]
started: timestamp[ms, tz=UTC]
finished: timestamp[ms, tz=UTC]
"""

SCORES_SNAPSHOT = """
schema_version: int32 not null
run_id: string not null
dataset: string not null
dataset_sha256: string not null
image: string
metric: string not null
metric_version: string not null
metric_code: string
protocol: string not null
n_images: int32 not null
value: double
standard_error: double
status: string not null
reason: string
seconds: double
upscaling_seconds: double
scored: timestamp[ms, tz=UTC] not null
"""

HISTORY_SNAPSHOT = """
schema_version: int32 not null
run_id: string not null
step: int64 not null
loss: double not null
terms: map<string, double> not null
lr: double not null
steps_per_second: double not null
"""

UNUSUAL = RunSpec(
    backbone="edsr-tiny",
    loss="l1 + 0.5*sg",
    seed=0,
    train=TrainingData(name="mine", sha256="ab" * 32),
    recipe=Recipe(
        scale=2,
        degradation=Degradation(edges="mirror", rounding="once"),
        optimizer=Adam(lr=1e-3, beta1=0.8, beta2=0.9, eps=1e-6),
        schedule=Cosine(name="cosine", final=0.1),
        steps=7,
        batch=3,
        accumulate=2,
        clip_norm=0.5,
        ema=0.99,
        patch=9,
        window=Window(size=96, step=48),
        augment=False,
        precision="bf16",
        memory_format="contiguous",
        threads=2,
        deterministic=False,
        compiled=True,
        init=Init(name="x2.pt", sha256="cd" * 32, drawn=("upsample.0.weight",)),
        init_partial=True,
    ),
)


def describe(schema: pa.Schema) -> list[str]:
    return [f"{f.name}: {f.type}{'' if f.nullable else ' not null'}".replace("<item:", "<element:") for f in schema]


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the column of each field: nested models are flattened, all of a union; optional ones are JSON in one."""
    for name, field in model.model_fields.items():
        is_union = typing.get_origin(field.annotation) in (typing.Union, types.UnionType)
        kinds = [
            typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind
            for kind in (typing.get_args(field.annotation) if is_union else [field.annotation])
        ]
        if all(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds):
            for kind in kinds:
                yield from leaves(kind, f"{prefix}{name}_")
        else:
            yield f"{prefix}{name}"


@pytest.mark.parametrize(
    ("schema", "snapshot"), [(RUNS, RUNS_SNAPSHOT), (SCORES, SCORES_SNAPSHOT), (HISTORY, HISTORY_SNAPSHOT)]
)
def test_the_schema_is_frozen(schema: pa.Schema, snapshot: str) -> None:
    assert SCHEMA_VERSION == 1
    assert describe(schema) == snapshot.split("\n")[1:-1]


def test_every_field_of_a_recipe_has_a_column_and_fills_it() -> None:
    columns = set(leaves(Recipe)) - {"max_hours"}  # which changes no weights
    assert {"optimizer_beta2", "window", "scale"} <= columns
    assert columns <= set(RUNS.names)
    assert columns <= identity_columns(UNUSUAL).keys()


def test_a_row_has_the_fields_of_every_schedule_as_rows_had_before_each_had_its_own() -> None:
    for each in json.loads((Path(__file__).parent.parent / "spec" / "identities.json").read_text()):
        columns = recipe_columns(read_spec(each["stored"], "a run").recipe)
        fields = each["stored"]["recipe"]["schedule"]
        assert {key: columns[f"schedule_{key}"] for key in ("name", "halve_every", "final")} == fields


def test_the_columns_hold_the_largest_number_that_a_recipe_may_have() -> None:
    checked = set()
    for name, field in Recipe.model_fields.items():
        for limit in (each.lt for each in field.metadata if isinstance(each, annotated_types.Lt) and each.lt > 1):
            checked.add(name)
            pa.scalar(limit - 1, RUNS.field(name).type)
            with pytest.raises((OverflowError, pa.ArrowInvalid)):
                pa.scalar(limit, RUNS.field(name).type)
    assert checked == {"steps", "batch", "accumulate", "patch", "threads"}
    row = recipe_columns(Recipe(schedule=Step(halve_every=2**63 - 1)))
    assert pa.scalar(row["schedule_halve_every"], RUNS.field("schedule_halve_every").type).as_py() == 2**63 - 1


def test_the_search_for_columns_would_see_a_new_field() -> None:
    class Richer(Recipe):
        later: int = 0
        other: Window = Window()

    assert set(leaves(Richer)) - set(leaves(Recipe)) == {"later", "other_size", "other_step"}


def test_identity_survives_the_table() -> None:
    row = {**identity_columns(UNUSUAL), "status": "done"}
    (stored,) = to_table("runs", [row]).to_pylist()
    assert {key: stored[key] for key in row} == row
    assert (stored["lambda"], stored["seed"], stored["window"]) == (0.5, 0, '{"size":96,"step":48}')
    assert RunSpec.model_validate_json(stored["spec"]) == UNUSUAL


def test_lambda_is_the_coefficient_of_the_varied_term() -> None:
    spec = UNUSUAL.model_copy(update={"loss": parse("l1 + 0.5*sg + 2*sg(order=1)")})
    varied = spec.model_copy(update={"varied": "sg(order=1)"})
    lambdas = [(row["lambda"], row["varied"]) for row in map(identity_columns, (spec, varied))]
    assert lambdas == [(2.5, None), (2.0, "sg(order=1)")]
    assert spec.run_id == varied.run_id


@pytest.mark.parametrize(
    ("recipe", "columns"),
    [
        (
            {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}},
            {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0},
        ),
        (
            {"optimizer": {"name": "m:Lion", "lr": 0.1, "betas": (0.9, 0.99), "maximize": True}},
            {"name": "m:Lion", "lr": 0.1, "options": '{"betas":[0.9,0.99],"maximize":true}'},
        ),
        (
            {},
            {"name": "adam", "lr": 1e-4, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0},
        ),
    ],
)
def test_what_an_optimizer_has_not_is_null(recipe: dict[str, Any], columns: dict[str, Any]) -> None:
    row = recipe_columns(Recipe.model_validate(recipe))
    found = {key: value for key, value in row.items() if key.startswith("optimizer_") and value is not None}
    assert found == {f"optimizer_{key}": value for key, value in columns.items()}
    assert {key for key in row if key.startswith("optimizer_")} == {
        name for name in RUNS.names if name.startswith("optimizer_")
    }


def test_milestones_are_a_list_in_their_column() -> None:
    row = recipe_columns(Recipe.model_validate({"schedule": {"name": "milestones", "milestones": [5, 7], "warmup": 2}}))
    assert (row["schedule_milestones"], row["schedule_gamma"], row["schedule_warmup"]) == ("[5,7]", 0.1, 2)
    assert (row["schedule_halve_every"], row["schedule_final"]) == (200_000, 0.0)


def test_a_column_that_the_schema_lacks_is_refused() -> None:
    with pytest.raises(KeyError, match="warmup"):
        to_table("runs", [{"run_id": "a", "warmup": 1}])
