"""Made-up runs: of what a run has, everything says the same number, so that results of two trainings are told apart."""

import datetime
import functools
from collections import defaultdict
from dataclasses import replace
from typing import Any

import torch
from crash_points import NOW

from sgbench.spec import Recipe, RunSpec, TrainingData
from sgbench.spec.decisions import Question
from sgbench.spec.space import Searched
from sgbench.store import (
    Candidate,
    Dataset,
    Declaration,
    Planned,
    Search,
    Store,
    Trial,
    Tuning,
    identity_columns,
)
from sgbench.store.rows import RunEnd
from sgbench.training import Checkpoints


def hours(number: int) -> datetime.datetime:
    return NOW + datetime.timedelta(hours=number)


@functools.cache
def spec_of(seed: int, loss: str = "l1") -> RunSpec:
    return RunSpec(
        backbone="edsr-tiny",
        loss=loss,
        seed=seed,
        train=TrainingData(name="mine", sha256="ab" * 32),
        recipe=Recipe(steps=7),
    )


IDENTITY = functools.cache(lambda seed: identity_columns(spec_of(seed)))

ID = [str(spec_of(seed).run_id) for seed in range(4)]


def trained(seed: int, status: str = "done", hour: int = 0, **columns: Any) -> dict[str, Any]:
    return {**IDENTITY(seed), "status": status, "step": 7, "finished": hours(hour)} | columns


def scores(
    run_id: str, value: float | None, hour: int = 0, metric: str = "psnr_y", **columns: Any
) -> list[dict[str, Any]]:
    row = {"run_id": run_id, "dataset": "Set5", "dataset_sha256": "ab" * 32, "metric": metric, "metric_version": "1"}
    row |= {"protocol": "{}", "n_images": 1, "value": value, "status": "ok", "scored": hours(hour)} | columns
    return [row | {"image": image} for image in (None, "baby")]


def history(run_id: str, loss: float, step: int = 7) -> list[dict[str, Any]]:
    return [{"run_id": run_id, "step": step, "loss": loss, "terms": {"l1": loss}, "lr": 1e-3, "steps_per_second": 9.0}]


def validation(run_id: str, value: float, step: int = 7, **columns: Any) -> list[dict[str, Any]]:
    row = {"run_id": run_id, "step": step, "dataset": "Mine", "dataset_sha256": "cd" * 32, "metric": "psnr_y"}
    row |= {"metric_version": "1", "protocol": "{}", "n_images": 2, "value": value, "status": "ok"}
    return [row | columns]


def fill(store: Store, seed: int, value: float, *, status: str = "done", hour: int = 0) -> None:
    """Write a run of which everything says the same number."""
    store.write_run(trained(seed, status, hour, wall_seconds=value))
    store.write_history(history(ID[seed], value))
    if seed == 0:  # one of them, as each file makes every path longer that is cut off at every point
        store.write_validation(validation(ID[seed], value))
    if status == "done":
        store.write_scores(scores(ID[seed], value, hour))
        checkpoints = Checkpoints(store.storage, ID[seed])
        checkpoints.save_weights({"weight": torch.full((2,), value)}, spec_of(seed).model_dump(mode="json"))
        store.storage.write(f"images/{ID[seed]}/Set5@abababab/baby.png", str(value).encode())
    else:
        Checkpoints(store.storage, ID[seed]).save(7, {"value": value})


def planned(seed: int, *metrics: str) -> Planned:
    return Planned(IDENTITY(seed), (Dataset("Set5", "ab" * 32),), metrics or ("psnr_y",))


def declared(metric: str = "psnr_y", hour: int = 0) -> Declaration:
    return Declaration(
        question=Question("l1", "l1 + 1.0*sg", metric, ("Set5",)),
        alpha=0.05,
        g=4.0,
        seeds=(0, 1, 2),
        looks=(3,),
        backbones=("edsr-tiny",),
        tests=(("Set5", "ab" * 32),),
        conditions=str(spec_of(0).conditions),
        sweep="quick",
        declared=hours(hour),
    )


def tuned(ended: int, seed: int = 5) -> Tuning:
    """Return a tuning whose trials are the first runs, of which some have ended."""
    search = Search(
        candidates=(Candidate("edsr-tiny", "0.5:2*l1", (Searched("λ", 0.5, 2.0),)),),
        trials=2,
        steps=7,
        method="random",
        scheduler="none",
        metric="psnr_y",
        higher=True,
        dataset="Mine",
        dataset_sha256="cd" * 32,
        seed=seed,
        trial_seeds=(0,),
        final_seeds=(2, 3),
        conditions=str(spec_of(0).conditions),
    )
    trials = [Trial(0, {"λ": 1.0}, "l1", number, ID[number]) for number in range(2)]
    for number in range(ended):
        trials[number] = replace(trials[number], end=RunEnd.DONE, step=7, value=number + 1.0)
    return Tuning(search, tuple(trials), hours(0))


def fill_whole(store: Store) -> None:
    """Write a store with nothing wrong: two runs, one of them compacted, a built-in, a plan and a declaration."""
    fill(store, 0, 1.0)
    store.compact()
    fill(store, 1, 2.0)
    store.write_run({"run_id": "b" * 12, "kind": "builtin", "name": "bicubic", "scale": 4, "status": "done"})
    store.write_scores(scores("b" * 12, 20.0))
    store.write_plan("quick", [planned(0), planned(1)])
    store.declare(declared())


def said(store: Store) -> dict[str, Any]:
    """Return all that a store says, and checks that what a run has is of one training."""
    says: dict[str, Any] = {
        "runs": store.runs().to_pylist(),
        "scores": store.scores().to_pylist(),
        "history": store.history().to_pylist(),
        "validation": store.validation().to_pylist(),
        "plans": store.plans(),
        "labels": store.labels(),
        "declarations": store.declarations(),
        "tunings": store.tunings(),
        "files": {
            name: store.storage.read(name)
            for folder in ("weights", "images", "checkpoints")
            for name in store.storage.sizes(folder)
        },
    }
    return says


def values(store: Store, *, orphans: bool = False) -> dict[str, set[float]]:
    """Return the numbers that are found of each run, in whatever it has; unless allowed, none are without a run."""
    says = said(store)
    rows = {row["run_id"]: {row["wall_seconds"]} for row in says["runs"]}
    found: dict[str, set[float]] = defaultdict(set, rows) if orphans else dict(rows)
    for row in [*says["scores"], *says["history"], *says["validation"]]:
        found[row["run_id"]].add(row.get("value", row.get("loss")))
    for name, content in says["files"].items():
        run_id = name.split("/")[1].removesuffix(".pt")
        if name.startswith("images/"):
            found[run_id].add(float(content))
        elif name.startswith("weights/"):
            found[run_id].add(float(Checkpoints(store.storage, run_id).load_weights()["weight"][0]))
    return {run_id: found[run_id] for run_id in rows}
