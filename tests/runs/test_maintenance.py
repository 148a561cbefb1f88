"""Merging, checking and clearing stores, however often it dies on the way."""

import contextlib
import datetime
import functools
import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from crash_points import CUTS, NOW, Cut, Frail, every_point
from hypothesis import given, settings
from hypothesis import strategies as st

from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.runs.maintenance import Merge, clean, find_runs, remove, verify, without_weights
from sgbench.spec import Recipe, RunSpec, TrainingData
from sgbench.store import Dataset, Planned, Replaced, Store, identity_columns
from sgbench.store.layout import latest_step
from sgbench.training import Checkpoints


def hours(number: int) -> datetime.datetime:
    return NOW + datetime.timedelta(hours=number)


@functools.cache
def spec_of(seed: int) -> RunSpec:
    return RunSpec(backbone="edsr-tiny", loss="l1", seed=seed, train=TrainingData(name="mine", sha256="ab" * 32))


IDENTITY = functools.cache(lambda seed: identity_columns(spec_of(seed)))

ID = [str(spec_of(seed).run_id) for seed in range(4)]


def trained(seed: int, status: str = "done", hour: int = 0, **columns: Any) -> dict[str, Any]:
    return {**IDENTITY(seed), "status": status, "step": 7, "finished": hours(hour)} | columns


def scores(run_id: str, value: float, hour: int = 0, metric: str = "psnr_y", **columns: Any) -> list[dict[str, Any]]:
    row = {"run_id": run_id, "dataset": "Set5", "dataset_sha256": "ab" * 32, "metric": metric, "metric_version": "1"}
    row |= {"protocol": "{}", "n_images": 1, "value": value, "status": "ok", "scored": hours(hour)} | columns
    return [row | {"image": image} for image in (None, "baby")]


def history(run_id: str, loss: float) -> list[dict[str, Any]]:
    return [{"run_id": run_id, "step": 7, "loss": loss, "terms": {"l1": loss}, "lr": 1e-3, "steps_per_second": 9.0}]


def fill(store: Store, seed: int, value: float, *, status: str = "done", hour: int = 0) -> None:
    """Write a run of which everything says the same number."""
    store.write_run(trained(seed, status, hour, wall_seconds=value))
    store.write_history(history(ID[seed], value))
    if status == "done":
        store.write_scores(scores(ID[seed], value, hour))
        checkpoints = Checkpoints(store.storage, ID[seed])
        checkpoints.save_weights({"weight": torch.full((2,), value)}, spec_of(seed).model_dump(mode="json"))
        store.storage.write(f"images/{ID[seed]}/Set5@abababab/baby.png", str(value).encode())
    else:
        Checkpoints(store.storage, ID[seed]).save(7, {"value": value})


def said(store: Store) -> dict[str, Any]:
    """Return all that a store says, and checks that what a run has is of one training."""
    says: dict[str, Any] = {
        "runs": store.runs().to_pylist(),
        "scores": store.scores().to_pylist(),
        "history": store.history().to_pylist(),
        "plans": store.plans(),
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
    for row in [*says["scores"], *says["history"]]:
        found[row["run_id"]].add(row.get("value", row.get("loss")))
    for name, content in says["files"].items():
        run_id = name.split("/")[1].removesuffix(".pt")
        if name.startswith("images/"):
            found[run_id].add(float(content))
        elif name.startswith("weights/"):
            found[run_id].add(float(Checkpoints(store.storage, run_id).load_weights()["weight"][0]))
    return {run_id: found[run_id] for run_id in rows}


@pytest.fixture
def into(tmp_path: Path) -> Store:
    return Store(Storage(str(tmp_path / "into")))


@pytest.fixture
def source(tmp_path: Path) -> Store:
    return Store(Storage(str(tmp_path / "source")))


@pytest.fixture
def whole(into: Store) -> Store:
    """A store with nothing wrong: two runs, one of them compacted, a built-in and a plan."""
    fill(into, 0, 1.0)
    into.compact()
    fill(into, 1, 2.0)
    into.write_run({"run_id": "b" * 12, "kind": "builtin", "name": "bicubic", "scale": 4, "status": "done"})
    into.write_scores(scores("b" * 12, 20.0))
    into.write_plan("quick", [planned(0), planned(1)])
    assert list(verify(into)) == []
    return into


def planned(seed: int, *metrics: str) -> Planned:
    return Planned(IDENTITY(seed), (Dataset("Set5", "ab" * 32),), metrics or ("psnr_y",))


# merge


def test_a_merge_takes_what_is_not_here_with_all_that_belongs_to_it(into: Store, source: Store) -> None:
    fill(into, 0, 1.0)
    fill(source, 1, 2.0)
    source.write_plan("quick", [planned(1)])
    before = said(source)
    merge = Merge.of(into, source)
    assert (merge.added, merge.replaced, merge.shared, merge.remarks) == ((ID[1],), (), (), ())
    merge.apply()
    assert values(into) == {ID[0]: {1.0}, ID[1]: {2.0}}
    assert into.plans() == {"quick": [planned(1)]}
    assert said(source) == before
    assert list(verify(into)) == []


def test_a_merge_into_nothing_is_a_copy_and_merging_again_changes_nothing(into: Store, source: Store) -> None:
    fill(source, 0, 1.0)
    fill(source, 1, 2.0, status="failed")
    source.write_plan("quick", [planned(0), planned(1)])
    Merge.of(into, source).apply()
    after = said(into)
    expected = said(source)
    expected["files"] = {name: content for name, content in expected["files"].items() if "checkpoints" not in name}
    assert after == expected
    again = Merge.of(into, source)
    assert (again.added, again.replaced, again.scores, again.plans) == ((), (), (), {})
    assert again.shared == tuple(sorted(ID[:2]))
    before = into.storage.sizes()
    again.apply()
    assert (said(into), into.storage.sizes()) == (after, before)


@pytest.mark.parametrize(
    ("ours", "theirs", "winner", "verb"),
    [
        (("done", 1), ("done", 2), 2.0, "replaces"),
        (("done", 2), ("done", 1), 1.0, "gives way to"),
        (("done", 1), ("failed", 2), 1.0, "gives way to"),
        (("failed", 2), ("done", 1), 2.0, "replaces"),
        (("failed", 1), ("failed", 2), 2.0, "replaces"),
    ],
)
def test_of_a_run_that_both_trained_the_better_comes_whole_and_a_remark_says_so(
    into: Store, source: Store, ours: tuple[str, int], theirs: tuple[str, int], winner: float, verb: str
) -> None:
    fill(into, 0, 1.0, status=ours[0], hour=ours[1])
    fill(source, 0, 2.0, status=theirs[0], hour=theirs[1])
    into.write_scores(scores(ID[0], 1.0, metric="fid")) if ours[0] == "done" else None
    merge = Merge.of(into, source)
    assert len(merge.remarks) == 1
    assert f"which {verb} '{into.storage}', {ours[0]} at 2026-01-02 0{3 + ours[1]}:04:05." in merge.remarks[0]
    merge.apply()
    assert values(into) == {ID[0]: {winner}}
    assert ("fid" in into.scores().column("metric").to_pylist()) == (winner == 1.0 and ours[0] == "done")
    checkpoints = latest_step(into.storage, ID[0])
    assert checkpoints == (0 if "done" in (ours[0], theirs[0]) else 7)  # a failed run can still be tried again


def test_scores_of_a_run_that_is_the_same_are_united_and_the_better_is_kept(into: Store, source: Store) -> None:
    for store in (into, source):
        fill(store, 0, 1.0)
    into.write_scores(scores(ID[0], 3.0, hour=1, metric="ssim_y"))
    into.write_scores(scores(ID[0], 4.0, hour=9, metric="fid"))
    into.write_scores(scores(ID[0], 0.0, hour=9, metric="kid", status="failed"))
    source.write_scores(scores(ID[0], 5.0, hour=1, metric="psnr_rgb"))
    source.write_scores(scores(ID[0], 6.0, hour=2, metric="ssim_y"))
    source.write_scores(scores(ID[0], 7.0, hour=2, metric="fid"))
    source.write_scores(scores(ID[0], 8.0, hour=2, metric="kid"))
    Merge.of(into, source).apply()
    found = {row["metric"]: row["value"] for row in into.totals().to_pylist()}
    assert found == {"psnr_y": 1.0, "ssim_y": 6.0, "fid": 4.0, "kid": 8.0, "psnr_rgb": 5.0}


def test_what_was_not_trained_is_the_same_wherever_it_was_scored(into: Store, source: Store) -> None:
    for store, host in ((into, "here"), (source, "there")):
        row = {"run_id": "b" * 12, "kind": "builtin", "name": "bicubic", "scale": 4, "status": "done", "host": host}
        store.write_run(row)
        store.write_scores(scores("b" * 12, 1.0, metric=host))
    merge = Merge.of(into, source)
    assert (merge.shared, merge.remarks) == (("b" * 12,), ())
    merge.apply()
    assert into.runs().column("host").to_pylist() == ["here"]
    assert into.totals().column("metric").to_pylist() == ["here", "there"]


def test_plans_of_one_name_ask_for_what_either_asks_for(into: Store, source: Store) -> None:
    into.write_plan("quick", [planned(0), planned(1)])
    source.write_plan("quick", [planned(1), planned(2), planned(1, "fid")])
    source.write_plan("other", [])
    Merge.of(into, source).apply()
    assert into.plans() == {"other": [], "quick": [planned(0), planned(1), planned(2), planned(1, "fid")]}


def test_a_store_is_not_merged_into_itself(into: Store) -> None:
    with pytest.raises(InputError, match="cannot be merged into itself"):
        Merge.of(into, Store(Storage(f"{into.storage.root}/")))


RUNS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["done", "failed"]), st.integers(0, 3)),
    max_size=4,
    unique_by=lambda r: r[0],
)


@settings(max_examples=20)
@given(RUNS, RUNS, st.booleans())
def test_a_merge_keeps_of_every_run_the_best_that_either_has(
    ours: list[tuple[int, str, int]], theirs: list[tuple[int, str, int]], compacted: bool
) -> None:
    into, source = Store(Frail()), Store(Frail(root="memory://source"))
    for store, runs, value in ((into, ours, 1.0), (source, theirs, 2.0)):
        for seed, status, hour in runs:
            fill(store, seed, value, status=status, hour=hour)
        if compacted:
            store.compact()
    Merge.of(into, source).apply()
    expected: dict[str, set[float]] = {}
    for value, runs in ((2.0, theirs), (1.0, ours)):
        for seed, status, hour in runs:
            other = {seed: (status, hour) for seed, status, hour in (ours if value == 2.0 else theirs)}.get(seed)
            mine = (status == "done", hour)
            if (
                other is None
                or mine > (other[0] == "done", other[1])
                or (mine == (other[0] == "done", other[1]) and value == 1.0)
            ):
                expected[ID[seed]] = {value}
    assert values(into) == expected
    again = Merge.of(into, source)
    assert (again.added, again.replaced, again.scores) == ((), (), ())


# verify


def rewrite(store: Store, table: str, stem: str, *rows: dict[str, Any]) -> None:
    store.tables[table].write(stem, list(rows))


FAULTS: dict[str, tuple[Callable[[Store, Path], object], str]] = {
    "damaged rows": (
        lambda store, root: (root / "runs" / "x.parquet").write_bytes(b"x"),
        "x.parquet' is not a results file",
    ),
    "another version": (
        lambda store, root: pq.write_table(
            pq.read_table(root / "runs" / f"{ID[1]}.parquet").drop_columns(["schema_version"]),
            root / "runs" / "y.parquet",
        ),
        "y.parquet' is not a results file",
    ),
    "wrong name": (
        lambda store, root: rewrite(store, "runs", "wrong", trained(1)),
        f"wrong.parquet' has rows of '{ID[1]}'.",
    ),
    "twice": (
        lambda store, root: rewrite(store, "history", ID[1], *history(ID[1], 1.0) * 2),
        f"history/{ID[1]}.parquet' has 2 rows of {ID[1]}, 7.",
    ),
    "another run's id": (
        lambda store, root: rewrite(store, "runs", ID[1], trained(2) | {"run_id": ID[1]}),
        f"run {ID[1]} has the specification of run {ID[2]}.",
    ),
    "changed column": (
        lambda store, root: store.write_run(trained(1, batch=17)),
        f"run {ID[1]} has 17 as its batch, but its specification says 16.",
    ),
    "no specification": (
        lambda store, root: store.write_run(trained(1, spec="{}")),
        f"run {ID[1]} has a specification that cannot be read: backbone: Field required.",
    ),
    "scores of nobody": (
        lambda store, root: store.write_scores(scores("c" * 12, 1.0)),
        f"run {'c' * 12} has scores but no row",
    ),
    "damaged weights": (
        lambda store, root: (root / "weights" / f"{ID[0]}.pt").write_bytes(b"PK"),
        f"weights/{ID[0]}.pt' cannot be read: it is damaged",
    ),
    "others' weights": (
        lambda store, root: (root / "weights" / f"{ID[0]}.pt").write_bytes(
            (root / "weights" / f"{ID[1]}.pt").read_bytes()
        ),
        f"the weights of run {ID[0]} belong to run {ID[1]}.",
    ),
    "damaged plan": (
        lambda store, root: (root / "plans" / "quick.json").write_text("["),
        "quick.json' is not a plan of sgbench",
    ),
    "left by a compaction": (
        lambda store, root: (root / "runs" / "compacted-000002.parquet").write_bytes(
            (root / "runs" / "compacted-000001.parquet").read_bytes()
        ),
        "compacted-000001.parquet' is left over from a killed compaction",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_thing_that_is_wrong_is_found_and_told_in_one_sentence(whole: Store, fault: str) -> None:
    spoil, sentence = FAULTS[fault]
    spoil(whole, Path(whole.storage.root))
    found = list(verify(whole))
    assert len(found) == 1
    assert sentence in found[0]
    assert "\n" not in found[0]
    assert found[0].endswith(".")


def test_a_store_without_weights_is_sound_and_says_of_which_runs_they_are_missing(whole: Store) -> None:
    assert without_weights(whole) == []
    whole.storage.delete(f"weights/{ID[0]}.pt")
    assert without_weights(whole) == [ID[0]]
    assert list(verify(whole)) == []


def test_a_store_that_was_compacted_is_checked_alike(whole: Store) -> None:
    whole.compact()
    assert list(verify(whole)) == []
    path = Path(whole.storage.root) / "scores" / "compacted-000002.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take([*range(table.num_rows), 0]), path)
    (found,) = verify(whole)
    assert "compacted-000002.parquet' has 2 rows of " in found


def test_no_code_of_a_plugin_that_a_store_names_is_imported(into: Store) -> None:
    spec = spec_of(0).model_dump(mode="json") | {"backbone": "no_such_module:Net", "loss": "no_such_module:Loss"}
    made = RunSpec.model_construct(
        **spec | {"train": TrainingData(**spec["train"]), "recipe": Recipe(**spec["recipe"])}
    )
    row = trained(0) | {
        "run_id": made.run_id,
        "backbone": spec["backbone"],
        "loss": spec["loss"],
        "spec": json.dumps(spec),
    }
    into.write_run(row | {"status": "failed"})
    assert list(verify(into)) == []


# rm and clean


def test_a_removed_run_leaves_nothing_but_its_place_in_plans(whole: Store) -> None:
    Checkpoints(whole.storage, ID[0]).save(3, {"value": 1.0})
    whole.storage.write(f"logs/{ID[0]}/run.log", b"what it printed")
    before = values(whole)
    remove(whole, ID[0])
    assert values(whole) == {run_id: found for run_id, found in before.items() if run_id != ID[0]}
    beside = ("weights", "images", "checkpoints", "logs")
    assert not [name for name in whole.storage.sizes() if ID[0] in name and name.startswith(beside)]
    assert [plan.run_id for plan in whole.planned()] == ID[:2]
    remove(whole, ID[0])
    whole.compact()
    assert list(verify(whole)) == []


def test_runs_are_found_by_the_beginnings_of_their_ids(whole: Store) -> None:
    assert list(find_runs(whole, [ID[1][:6], ID[0], ID[1]])) == [ID[1], ID[0]]
    for beginning in ("0123", "zz"):
        with pytest.raises(InputError, match=f"run '{beginning}': .* has no such run"):
            find_runs(whole, [ID[0], beginning])
    with pytest.raises(InputError, match=r"run '': .* has 3 runs whose ids begin with it"):
        find_runs(whole, [""])


def test_cleaning_deletes_what_no_run_needs_and_says_how_much_that_was(whole: Store) -> None:
    fill(whole, 2, 3.0, status="failed")
    for seed in (0, 3):  # done, and interrupted
        Checkpoints(whole.storage, ID[seed]).save(3, {"value": 1.0})
    kept = whole.storage.sizes()
    done = kept.pop(next(name for name in kept if name.startswith(f"checkpoints/{ID[0]}/")))
    left = {".ray/12345678.stop": b"", ".ray/12345678/tune/state.json": b"12345", "runs/.a.parquet.0123abcd": b"123"}
    for name, content in left.items():
        whole.storage.write(name, content)
    says = {name: content for name, content in said(whole).items() if name != "files"}
    assert clean(whole) == {f"checkpoints/{ID[0]}": done, ".ray": 5, "runs/.a.parquet.0123abcd": 3}
    assert whole.storage.sizes() == kept
    assert {name: content for name, content in said(whole).items() if name != "files"} == says
    assert clean(whole) == {}
    assert set(clean(whole, everything=True)) == {f"checkpoints/{ID[seed]}" for seed in (2, 3)}
    assert not whole.storage.exists("checkpoints/" + ID[2])


def test_a_done_run_without_weights_keeps_its_checkpoints(into: Store) -> None:
    into.write_run(trained(0))
    Checkpoints(into.storage, ID[0]).save(7, {"value": 1.0})
    assert clean(into) == {}


# Cut off at every point


def kept(*runs: tuple[int, float, str, int], compacted: bool = False) -> dict[str, bytes]:
    """Return the files of a store of some runs: seed, value, status and hour."""
    store = Store(Frail())
    for seed, value, status, hour in runs:
        fill(store, seed, value, status=status, hour=hour)
        store.storage.write(f"logs/{ID[seed]}/run.log", b"what it printed")
    if compacted:
        store.compact()
    return store.storage.files()


@functools.cache
def ours() -> dict[str, bytes]:
    """Runs that are done, one compacted and scored once more since, one failed, one interrupted, and a plan."""
    store = Store(Frail(kept((0, 1.0, "done", 1), (2, 1.0, "done", 1), compacted=True)))
    store.write_scores(scores(ID[0], 1.0, metric="fid"))
    fill(store, 1, 1.0, status="failed", hour=1)
    Checkpoints(store.storage, ID[3]).save(7, {"value": 1.0})
    store.write_plan("quick", [planned(0), planned(1)])
    store.write_replaced({ID[0]: Replaced("before", rerun=True, scores=(("Set5", "ab" * 32, "psnr_y"),))})
    store.storage.write("sgbench.json", b'{"format": 1}')
    return store.storage.files()


@functools.cache
def theirs() -> Store:
    """A store that has each of the runs better, and asks for more."""
    files = kept((0, 2.0, "done", 2), (1, 2.0, "done", 2), (2, 1.0, "done", 1), (3, 2.0, "done", 2))
    source = Store(Frail(files, "memory://source"))
    source.write_scores(scores(ID[2], 1.0, metric="ssim_y"))
    source.write_plan("quick", [planned(1), planned(3)])
    source.write_plan("other", [planned(2)])
    return source


def half_removed() -> Store:
    """What a removal left that the sgbench of before did: all but the row."""
    store = Store(Frail(ours()))
    store.tables["runs"].forget(ID[0])
    return store


def littered() -> Store:
    """A store with what killed processes left, and checkpoints of a run that is done."""
    store = Store(Frail(ours()))
    for name in (f".ray/0123abcd/{number}" for number in range(3)):
        store.storage.write(name, b"scratch")
    store.storage.write("runs/.a.parquet.0123abcd", b"123")
    Checkpoints(store.storage, ID[0]).save(7, {"value": 1.0})
    return store


def merged(store: Store) -> None:
    Merge.of(store, theirs()).apply()


def removed(store: Store) -> None:
    for run_id in find_runs(store, [ID[0]]):
        remove(store, run_id)


def planned_again(store: Store) -> None:
    store.write_plan("quick", [planned(2), planned(3, "fid")])


PATHS: dict[str, tuple[Callable[[], Store], Callable[[Store], object]]] = {
    "merge": (lambda: Store(Frail(ours())), merged),
    "merge into nothing": (lambda: Store(Frail()), merged),
    "rm": (lambda: Store(Frail(ours())), removed),
    "rm of what was left": (half_removed, removed),
    "clean": (littered, clean),
    "clean of all": (littered, functools.partial(clean, everything=True)),
    "compact": (lambda: Store(Frail(ours())), Store.compact),
    "a plan": (lambda: Store(Frail(ours())), planned_again),
}


def faults(store: Store) -> list[str]:
    """Return what is wrong with a store, but for the files of weights, which cannot be opened by a URI of memory."""
    return [fault for fault in verify(store) if "'memory://" not in fault]


def beside(store: Store) -> set[str]:
    """Return the names of the files that are not of tables, which may be small or compacted."""
    return {name for name in store.storage.sizes() if not name.endswith(".parquet")}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("path", PATHS)
def test_whatever_is_cut_off_says_nothing_false_and_the_same_again_ends_it(
    path: str, cut: Cut, record_property: Callable[[str, object], None]
) -> None:
    make, act = PATHS[path]
    before, whole = make(), make()
    act(whole)
    expected = said(whole)
    allowed = [values(before, orphans=True), values(whole, orphans=True)]
    plans = [*before.plans().items(), *whole.plans().items()]
    clean(whole)
    points = 0
    for store in every_point(make, act, cut):
        points += 1
        found = values(store, orphans=True)
        if act is merged:
            assert found.keys() >= allowed[0].keys()  # a run that was here is never missing
        for run_id, value in found.items():
            assert value in [each.get(run_id) for each in allowed]  # what there is of it is of one training
        assert all(plan in plans for plan in store.plans().items())
        assert all(
            re.search("has scores but no row|left over from a killed compaction", fault) for fault in faults(store)
        )
        with contextlib.suppress(InputError):  # that there is no such run any more
            act(store)
        assert said(store) == expected
        assert faults(store) == []
        clean(store)
        assert beside(store) == beside(whole)
    record_property("points", points)
    assert points
