"""A small made-up store with images, and names that would be markup on a page."""

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np

from sgbench.analysis import Filters, View, load_results
from sgbench.core.storage import Storage
from sgbench.data import PackedImages, Pixels, encode_png, pack_set, write_png
from sgbench.report import page
from sgbench.report.page.gallery import Gallery, gallery
from sgbench.spec import Recipe
from sgbench.spec.space import Searched
from sgbench.store import Candidate, Dataset, Planned, Search, Store, Trial, Tuning
from sgbench.store.rows import RunEnd
from sgbench.store.schema import recipe_columns

NOW = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
L1, SG, EVIL = "l1", "l1 + 1.0*sg", "<script>alert(1)</script>"
IMAGES = ("noise10", "noise2", "evil<b>&'\"")
COLOURS = {L1: (200, 0, 0), SG: (0, 0, 200), EVIL: (0, 200, 0)}
"""Of what each loss makes of every image: its left and right half tell nothing, its colour tells whose it is."""

SIZE = (64, 176)
"""Height and width: room for the parts that a figure shows."""


def flat(colour: tuple[int, int, int]) -> Pixels:
    return np.broadcast_to(np.array(colour, np.uint8), (*SIZE, 3)).copy()


def test_set(folder: Path) -> PackedImages:
    """Make a test set of `IMAGES`, in a cache that the environment names."""
    for at, name in enumerate(IMAGES):
        pixels = np.random.default_rng(at).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        write_png(folder / f"{name}.png", pixels)
    return pack_set(f"Photos={folder}", "test", Recipe())


def made(folder: Path, packed: PackedImages) -> Path:
    """Write a store: L1, L1 + SG and a loss of an evil name, three seeds each, one failure, one run that is pending.

    LPIPS is really lower with SG by 0.1, of PSNR nothing is shown, and of FID there is no number.
    """
    store = Store(Storage(str(folder)))
    dataset = Dataset(packed.name, packed.sha256)
    random = np.random.default_rng(0)
    for at, (loss, seed) in enumerate((loss, seed) for loss in COLOURS for seed in range(3)):
        run_id = f"{at:012x}"
        store.write_run(run(run_id, loss, seed))
        scores = {"lpips_alex": 0.4 - 0.1 * (loss == SG), "psnr_y": 28.0}
        for metric, level in scores.items():
            values = level + random.normal(0, 0.001 if metric == "lpips_alex" else 1.0, 12)
            names = [*IMAGES, *(f"unseen{number}" for number in range(9))]
            rows = [score(run_id, dataset, metric, *each) for each in zip(names, values.tolist(), strict=True)]
            store.write_scores([*rows, score(run_id, dataset, metric, None, float(values.mean()))])
        missing = {"value": None, "status": "no weights", "reason": "bring `the` file"}
        store.write_scores([score(run_id, dataset, "fid", None, 0.0) | missing])
        steps = [{"run_id": run_id, "step": step, "loss": 1.0 / step} for step in (10, 20)]
        terms = {"terms": {"l1": 0.1}, "lr": 1e-3, "steps_per_second": 1.0}
        store.write_history([step | terms for step in steps])
        if seed == 0:
            for name in IMAGES:
                store.storage.write(f"images/{run_id}/{dataset.versioned}/{name}.png", encode_png(flat(COLOURS[loss])))
    store.write_run(
        run("f" * 12, L1, 3) | {"status": "failed", "error": "loss is NaN <b>", "step": 812, "steps_per_second": None}
    )
    row = {name: value for name, value in run("e" * 12, SG, 3).items() if not isinstance(value, datetime.datetime)}
    store.write_plan("mine", [Planned(row | {"train_sha256": "ab" * 32}, (dataset,), ("lpips_alex",))])
    store.write_tuning("mine", tuning())
    return folder


def tuning() -> Tuning:
    """A search for a setting that is called like the evil loss, with one trial, and its best value at an end."""
    searched = (Searched(EVIL, 0.5, 2.0), Searched("which", choices=(EVIL, "x")))
    search = Search(
        candidates=(Candidate("edsr-tiny", EVIL, searched),),
        trials=1,
        steps=20,
        method="grid",
        scheduler="none",
        metric="psnr_y",
        higher=True,
        dataset="Held <out>",
        dataset_sha256="cd" * 32,
        seed=9,
        trial_seeds=(9,),
        final_seeds=(0, 1, 2),
        conditions="0" * 12,
    )
    return Tuning(search, (Trial(0, {EVIL: 2.0, "which": EVIL}, EVIL, 9, "9" * 12, RunEnd.DONE, 20, 28.5),), NOW)


def run(run_id: str, loss: str, seed: int) -> dict[str, Any]:
    row = {
        "run_id": run_id,
        "kind": "train",
        "name": f"edsr-tiny · {loss} · seed {seed}",
        "backbone": "edsr-tiny",
        "loss": loss,
        "seed": seed,
    }
    row |= {"scale": 4, "status": "done", "spec": json.dumps({"recipe": {}, "loss": loss}), "device": "a <GPU>"}
    row |= {"lambda": float(loss == SG), "train": "Photos", "train_sha256": "ab" * 32, "host": "here", "workers": 1}
    row |= {"steps_per_second": 9.5 + seed, "wall_seconds": 3723.0 * (seed + 1), "peak_memory_bytes": 2**30}
    row |= {"parameters": 1234567, "versions": '{"torch": "2.8.0"}', "git_revision": "abc123", "finished": NOW}
    return recipe_columns(Recipe()) | row


def score(run_id: str, dataset: Dataset, metric: str, image: str | None, value: float) -> dict[str, Any]:
    direction = "higher" if metric.startswith("psnr") else "lower"
    row = {"run_id": run_id, "dataset": dataset.name, "dataset_sha256": dataset.sha256, "metric": metric}
    row |= {"metric_version": "1", "protocol": json.dumps({"direction": direction}), "n_images": 12}
    return row | {"image": image, "value": value, "status": "ok", "scored": NOW}


def images(store: Path, packed: PackedImages | None = None, most: int = 5) -> Gallery:
    hr = [] if packed is None else [packed]
    return gallery(View(load_results(str(store))), Filters(), Storage(str(store)), hr, most)


def content(store: Path, packed: PackedImages | None = None, **filters: Any) -> page.Content:
    storage = Storage(str(store))
    view = View(load_results(str(store)))
    hr = [] if packed is None else [("Photos=HR", packed)]
    return page.gather(view, view.resolved(Filters(**filters)), storage, "A <page>", hr, page.IMAGES)
