"""From a sweep and a store to what is still to be done."""

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sgbench.core.errors import InputError
from sgbench.core.registry import METRICS
from sgbench.core.storage import Storage
from sgbench.data import PackedImages, write_png
from sgbench.runs.plan import Choices, Data, Plan, Recorded, make_plan, pack, read_sweep, recorded
from sgbench.spec import RunSpec, SweepSpec, TrainingData, build
from sgbench.store import Dataset, Store, identity_columns
from sgbench.training import Checkpoints

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)


class FakeLocator:
    """Has the weights that it is told to have."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def find(self, name: str) -> Path | None:
        return Path(name) if name in self.names else None


@pytest.fixture
def data(train_images: PackedImages, test_images: PackedImages) -> Data:
    return Data(train_images, (test_images,))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Storage(str(tmp_path / "store")))


def a_sweep(**fields: Any) -> SweepSpec:
    grids = [{"backbones": ["edsr-tiny"], "losses": ["l1"]}]
    recipe = {"steps": 30, "batch": 2, "patch": 8}
    whole = {"grids": grids, "train": "Photos", "tests": ["Photos"], "metrics": ["psnr_y"], "recipe": recipe}
    return build({**whole, **fields}, "tiny")


def the_run(sweep: SweepSpec, data: Data) -> RunSpec:
    (run,) = sweep.named_runs(data.training)
    return run


def record(store: Store, spec: RunSpec, **columns: Any) -> None:
    store.write_run({**identity_columns(spec), "status": "done", "step": spec.recipe.steps, **columns})


def record_score(store: Store, spec: RunSpec, test: PackedImages, metric: str = "psnr_y", **columns: Any) -> None:
    row = {"run_id": spec.run_id, "dataset": test.name, "dataset_sha256": test.sha256, "metric": metric}
    row |= {"metric_version": METRICS.load(metric).version, "protocol": "{}", "n_images": 2, "scored": NOW}
    store.write_scores([{**row, "status": "ok", "value": 1.0, **columns}])


def keep_weights(store: Store, spec: RunSpec) -> None:
    Checkpoints(store.storage, str(spec.run_id)).save_weights({"a": torch.zeros(1)}, {})


def finish(store: Store, spec: RunSpec, data: Data) -> None:
    record(store, spec)
    keep_weights(store, spec)
    record_score(store, spec, data.tests[0])


def status(made: Plan) -> tuple[str, int, tuple[tuple[str, str], ...]]:
    (run,) = made.runs
    return run.status, run.step, run.missing


ALL = (("Photos", "psnr_y"),)


def test_an_empty_store_leaves_everything_to_do(store: Store, data: Data) -> None:
    made = make_plan("tiny", a_sweep(), data, store)
    assert status(made) == ("to do", 0, ALL)
    assert made.pending == list(made.runs)
    assert made.summary() == "1 run: 1 to do"
    assert not store.storage.exists()


def test_a_run_with_a_checkpoint_is_resumable_from_its_newest_step(store: Store, data: Data) -> None:
    sweep = a_sweep()
    checkpoints = Checkpoints(store.storage, str(the_run(sweep, data).run_id))
    checkpoints.save(9, {})
    checkpoints.save(10, {})
    made = make_plan("tiny", sweep, data, store)
    assert status(made) == ("resumable", 10, ALL)
    assert made.pending


def test_a_validation_set_shares_no_image_with_the_others(
    train_folder: Path, test_folder: Path, tmp_path: Path, cache: Path
) -> None:
    fields = {"grids": [{"backbones": ["edsr-tiny"], "losses": ["l1"]}], "metrics": ["psnr_y"]}
    fields |= {"train": f"Photos={train_folder}", "tests": [f"Photos={test_folder}"], "recipe": {"patch": 8}}
    for folder, refused, of in ((train_folder, "training", "Photos"), (test_folder, "test", "Mine")):
        sweep = build(fields | {"validate": {"sets": [f"Mine={folder}"]}}, "tiny")
        said = f"^validation on {refused} images is refused: image 'photo0' of {of} is 'photo0' of .*, and so are? "
        with pytest.raises(InputError, match=said):
            pack(sweep)


def test_a_run_with_row_weights_and_scores_is_done(store: Store, data: Data) -> None:
    sweep = a_sweep()
    finish(store, the_run(sweep, data), data)
    made = make_plan("tiny", sweep, data, store)
    assert status(made) == ("done", 30, ())
    assert made.pending == []


def test_a_run_without_row_is_not_done_whatever_scores_it_has(store: Store, data: Data) -> None:
    sweep = a_sweep()
    keep_weights(store, the_run(sweep, data))
    record_score(store, the_run(sweep, data), data.tests[0])
    assert status(make_plan("tiny", sweep, data, store)) == ("to do", 0, ALL)


def test_a_run_with_row_and_weights_is_to_score_and_without_weights_to_retrain(store: Store, data: Data) -> None:
    sweep = a_sweep()
    record(store, the_run(sweep, data))
    made = make_plan("tiny", sweep, data, store)
    assert (status(made), made.pending) == (("to retrain", 30, ALL), [])
    assert made.summary() == "1 run: 1 to retrain"
    assert "1 run must be retrained" in str(made.to_retrain())
    asked = make_plan("tiny", sweep, data, store, retrain=True)
    assert (status(asked), asked.pending, asked.to_retrain()) == (("to do", 0, ALL), list(asked.runs), None)
    keep_weights(store, the_run(sweep, data))
    assert status(make_plan("tiny", sweep, data, store)) == ("to score", 30, ALL)


def test_a_done_run_whose_weights_were_deleted_stays_done(store: Store, data: Data) -> None:
    sweep = a_sweep()
    record(store, the_run(sweep, data))
    record_score(store, the_run(sweep, data), data.tests[0])
    assert status(make_plan("tiny", sweep, data, store)) == ("done", 30, ())


def test_a_new_metric_a_new_test_set_new_pixels_and_a_new_version_are_to_score(
    store: Store, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = a_sweep()
    finish(store, the_run(sweep, data), data)
    more = a_sweep(metrics=["psnr_y", "ssim_y"])
    assert status(make_plan("tiny", more, data, store)) == ("to score", 30, (("Photos", "ssim_y"),))

    test = data.tests[0]
    other = PackedImages(test.path, "Other", "test", 4, test.degradation, test.images)
    both = replace(data, tests=(test, other))
    assert status(make_plan("tiny", sweep, both, store)) == ("to score", 30, (("Other", "psnr_y"),))

    changed = PackedImages(test.path, test.name, "test", 4, test.degradation, test.images[:1])
    assert changed.sha256 != test.sha256
    assert status(make_plan("tiny", sweep, replace(data, tests=(changed,)), store)) == ("to score", 30, ALL)

    monkeypatch.setitem(METRICS._loaded, "psnr_y", replace(METRICS.load("psnr_y"), version="2"))
    assert status(make_plan("tiny", sweep, data, store)) == ("to score", 30, ALL)


def test_a_failed_run_stays_failed_until_it_is_retried(store: Store, data: Data) -> None:
    sweep = a_sweep()
    spec = the_run(sweep, data)
    record(store, spec, status="failed", error="loss is NaN at step 7", step=7)
    made = make_plan("tiny", sweep, data, store)
    assert status(made) == ("failed", 7, ())
    assert made.runs[0].error == "loss is NaN at step 7"
    assert made.pending == []
    assert status(make_plan("tiny", sweep, data, store, retry=True)) == ("to do", 0, ALL)
    Checkpoints(store.storage, str(spec.run_id)).save(5, {})
    assert status(make_plan("tiny", sweep, data, store, retry=True)) == ("resumable", 5, ALL)


def test_a_failed_score_is_computed_again_only_on_retry(store: Store, data: Data) -> None:
    sweep = a_sweep()
    finish(store, the_run(sweep, data), data)
    record_score(store, the_run(sweep, data), data.tests[0], status="failed", value=None, reason="a bug")
    plan = make_plan("tiny", sweep, data, store)
    assert status(plan) == ("failed", 30, ())
    assert plan.runs[0].error == "psnr_y on Photos: a bug"
    assert status(make_plan("tiny", sweep, data, store, retry=True)) == ("to score", 30, ALL)


def test_rerun_does_everything_again_and_not_more(store: Store, data: Data) -> None:
    sweep = a_sweep()
    finish(store, the_run(sweep, data), data)
    assert status(make_plan("tiny", sweep, data, store, rerun=True)) == ("to do", 0, ALL)
    record(store, the_run(sweep, data), status="failed", error="e", step=3)
    assert status(make_plan("tiny", sweep, data, store, rerun=True)) == ("to do", 0, ALL)


def test_a_score_that_lacked_weights_waits_until_they_are_there(store: Store, data: Data) -> None:
    sweep = a_sweep(metrics=["psnr_y", "fid"])
    spec = the_run(sweep, data)
    finish(store, spec, data)
    record_score(store, spec, data.tests[0], "fid", status="no weights", value=None)
    assert status(make_plan("tiny", sweep, data, store)) == ("done", 30, ())
    assert status(make_plan("tiny", sweep, data, store, locator=FakeLocator("alexnet"))) == ("done", 30, ())
    found = make_plan("tiny", sweep, data, store, locator=FakeLocator("inception"))
    assert status(found) == ("to score", 30, (("Photos", "fid"),))


def test_scores_of_single_images_do_not_stand_for_the_set(store: Store, data: Data) -> None:
    sweep = a_sweep()
    finish(store, the_run(sweep, data), data)
    record_score(store, the_run(sweep, data), data.tests[0], image="photo0")
    assert status(make_plan("tiny", sweep, data, store)) == ("to score", 30, ALL)


def test_without_data_runs_have_names_and_no_ids(store: Store) -> None:
    made = make_plan("tiny", a_sweep(train="Photos=/nowhere"), None, store)
    assert [(run.spec.run_id, str(run.spec), run.status) for run in made.runs] == [
        (None, "edsr-tiny · l1 · seed 0", "to do")
    ]


def test_what_a_store_has_on_record_of_images_stands_for_them_if_it_is_one_set_of_each_name(
    store: Store, data: Data
) -> None:
    sweep = a_sweep()
    assert recorded(sweep, store) is None
    finish(store, the_run(sweep, data), data)
    store.write_plan("tiny", make_plan("tiny", sweep, data, store).records())
    there = recorded(sweep, store)
    assert there == Recorded(data.training, (Dataset("Photos", data.tests[0].sha256),))
    assert make_plan("tiny", sweep, there, store) == make_plan("tiny", sweep, data, store)

    for other in (
        {"train": "Others"},
        {"train": "Photos,split=0.5"},
        {"tests": ["Photos", "Others"]},
        {"recipe": {"scale": 2}},
    ):
        assert recorded(a_sweep(**other), store) is None

    train = data.train
    fewer = PackedImages(train.path, train.name, "train", 4, train.degradation, train.images[:1])
    changed = replace(data, train=fewer)
    store.write_plan("other", make_plan("other", sweep, changed, store).records())
    assert recorded(sweep, store) is None


def test_runs_without_ids_are_unknown_to_a_store_with_runs_unless_all_are_to_be_done_again(
    store: Store, data: Data
) -> None:
    sweep = a_sweep()
    record(store, the_run(sweep, data))
    made = make_plan("tiny", sweep, None, store)
    assert (status(made), made.pending, made.summary()) == (("unknown", 0, ()), [], "1 run: 1 unknown")
    assert status(make_plan("tiny", sweep, None, store, rerun=True)) == ("to do", 0, ())


def test_grids_are_united_and_repetitions_counted_once(store: Store, data: Data) -> None:
    losses = ["l1", "l1 + 1.0*sg"]
    first = {"backbones": ["edsr-tiny"], "losses": losses, "lambdas": [0, 0.1, 1], "seeds": [0, 1]}
    second = {"backbones": ["edsr-tiny", "edsr-light"], "losses": ["1.0*l1", "sg + l1"], "seeds": [1]}
    made = make_plan("tiny", a_sweep(grids=[first, second]), data, store)
    names = [(run.spec.backbone, str(run.spec.loss), run.spec.seed) for run in made.runs]
    three = ["l1", "l1 + 0.1*sg", "l1 + 1.0*sg"]
    assert names == [
        *(("edsr-tiny", loss, 0) for loss in three),
        *(("edsr-tiny", loss, 1) for loss in three),
        ("edsr-light", "l1", 1),
        ("edsr-light", "l1 + 1.0*sg", 1),
    ]
    assert made.named == 10
    assert made.summary() == "8 runs: 8 to do"
    assert len({run.spec.run_id for run in made.runs}) == 8


def test_the_store_learns_what_is_planned(store: Store, data: Data) -> None:
    made = make_plan("tiny", a_sweep(), data, store)
    store.write_plan("tiny", made.records())
    (planned,) = store.planned()
    assert (planned.run_id, planned.metrics) == (made.runs[0].spec.run_id, ("psnr_y",))
    assert planned.tests == (("Photos", data.tests[0].sha256),)


def test_choices_replace_what_the_preset_says(tmp_path: Path) -> None:
    _, preset = read_sweep("quick")
    assert len(preset.named_runs(TrainingData(name="demo"))) == 4
    choices = Choices(
        settings={"recipe.steps": 7, "recipe.schedule.name": "cosine"},
        backbones=["edsr"],
        losses=["l1+sg"],
        lambdas=[0.5],
        seeds=[3],
        train="mine=/photos",
        tests=["Set5=/set5"],
        metrics=["psnr_y"],
    )
    name, sweep = read_sweep("quick", choices)
    assert name == "quick"
    (grid,) = sweep.grids
    assert (grid.backbones, *map(str, grid.losses)) == (("edsr-paper",), "l1 + 1.0*sg")
    assert (grid.lambdas, grid.seeds) == ((0.5,), (3,))
    assert (sweep.train, sweep.tests, sweep.metrics) == ("mine=/photos", ("Set5=/set5",), ("psnr_y",))
    assert (sweep.recipe.steps, sweep.recipe.batch) == (7, preset.recipe.batch)


def runs_of(what: str, **choices: Any) -> set[tuple[str, str, int]]:
    runs = read_sweep(what, Choices(**choices))[1].named_runs(TrainingData(name="any"))
    return {(run.backbone, str(run.loss), run.seed) for run in runs}


def test_choices_on_top_of_several_grids_ask_for_what_they_say_and_no_more() -> None:
    backbones = ("edsr-tiny", "rdn-tiny", "rcan-tiny", "swinir-tiny")
    assert runs_of("paper-mini", losses=["l1"], seeds=[10]) == {(each, "l1", 10) for each in backbones}
    sg = runs_of("paper-mini", losses=["l1 + 1.0*sg"], seeds=[10])
    assert sg == {(each, "l1 + 1.0*sg", 10) for each in backbones}
    assert runs_of("operators", seeds=[20]) == {(*run[:2], 20) for run in runs_of("operators")}
    assert {run[1] for run in runs_of("table3", losses=["l1 + sg(order=1)"])} == {"l1 + 1.0*sg(order=1)"}
    assert len(runs_of("table3", losses=["l1 + sg(order=1)"], lambdas=[0, 1])) == 2
    with_lambda = runs_of("paper-mini", lambdas=[0.5], seeds=[0], backbones=["edsr-tiny"])
    assert {run[1] for run in with_lambda} == {"l1", "l2", "ssim", "charbonnier", "l1 + 0.5*sg"}


def test_chosen_lambdas_apply_where_there_is_something_to_vary(tmp_path: Path) -> None:
    grids = [{"backbones": ["edsr-tiny"], "losses": losses} for losses in (["l1", "l2"], ["l1 + sg"])]
    fields = {"grids": grids, "train": "demo", "tests": ["demo"], "metrics": ["psnr_y"]}
    name, sweep = read_sweep(fields, Choices(lambdas=[0.1, 1]))
    assert (name, [grid.lambdas for grid in sweep.grids]) == ("sweep", [None, (0.1, 1.0)])
    assert "lambdas" not in grids[1]  # what is given is not changed
    with pytest.raises(InputError, match="sweep: lambdas are given and none of the losses l1, l2 has a term 'sg'"):
        read_sweep({**fields, "grids": grids[:1]}, Choices(lambdas=[0.1, 1]))
    named = read_sweep({**fields, "grids": grids}, Choices(lambdas={"l2": [2]}))[1]
    assert [grid.lambdas for grid in named.grids] == [{"l2": (2.0,)}, None]
    more = {"backbones": ["edsr-tiny"], "losses": ["l1 + λ*ssim", "l1 + sg", "l2"], "lambdas": [1]}
    each = read_sweep({**fields, "grids": [*grids, more]}, Choices(lambdas={"ssim": [2]}))[1].grids
    assert [grid.lambdas for grid in each] == [None, None, {"ssim": (2.0,), "sg": (1.0,)}]
    with pytest.raises(InputError, match="sweep: lambdas are given and none of the losses l1, l2 has a term 'ssim'"):
        read_sweep(fields, Choices(lambdas={"ssim": [2]}))
    opened = read_sweep(fields, Choices(losses=["l1 + λ*ssim"], lambdas=[0.5]))[1]
    assert [str(run.loss) for run in opened.runs(TrainingData(name="any"))] == ["l1 + 0.5*ssim"]


def test_what_is_packed_can_be_trained_and_tested_on(
    train_folder: Path, test_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, int]] = []
    sweep = a_sweep(train=f"mine={train_folder}", tests=[f"few={test_folder}"])
    data = pack(sweep, lambda *progress: told.append(progress))
    assert told == [("mine", 1, 3), ("mine", 2, 3), ("mine", 3, 3), ("few", 1, 2), ("few", 2, 2)]
    assert data.training.sha256 == data.train.sha256

    # One image in both sets, under another name.
    write_png(train_folder / "copy.png", data.tests[0].hr(1))
    with pytest.raises(InputError, match="image 'copy' of mine is 'photo1' of few"):
        pack(sweep)


def test_images_that_are_held_out_are_validated_on_unless_they_are_trained_on_as_well(
    train_folder: Path, test_folder: Path, cache: Path
) -> None:
    sweep = a_sweep(
        train=[f"mine={train_folder}", f"more={test_folder},split=1/3"], tests=["demo"], validate={"sets": ["held-out"]}
    )
    data = pack(sweep)
    (out,) = data.validation
    assert (len(data.train), data.train.held_out, out.name) == (4, 1, "mine-more-held-out")
    assert [image.name for image in out.images] == ["photo2"]

    write_png(test_folder / "copy.png", out.hr(0))
    with pytest.raises(InputError, match="validation on training images is refused: image 'copy' of mine-more is 'ph"):
        pack(sweep)


def test_an_id_depends_on_pixels_and_not_on_names(train_folder: Path, test_folder: Path, cache: Path) -> None:
    def run_id(name: str) -> str | None:
        sweep = a_sweep(train=f"{name}={train_folder}", tests=[f"few={test_folder}"])
        return the_run(sweep, pack(sweep)).run_id

    first = run_id("mine")
    assert run_id("yours") == first
    for image in list(train_folder.iterdir()):
        image.rename(train_folder / f"renamed-{image.name}")
    assert run_id("mine") == first
    (train_folder / "renamed-photo0.png").unlink()
    assert run_id("mine") != first
