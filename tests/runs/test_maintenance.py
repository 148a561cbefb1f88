"""Merging, checking and clearing stores, however often it dies on the way."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from crash_points import Frail
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_runs import ID, declared, fill, fill_whole, hours, planned, said, scores, trained, tuned, values

from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.runs.maintenance import Merge, clean, find_runs, remove
from sgbench.runs.verification import verify
from sgbench.store import Planned, Replaced, Store
from sgbench.store.layout import latest_step
from sgbench.training import Checkpoints


@pytest.fixture
def into(tmp_path: Path) -> Store:
    return Store(Storage(str(tmp_path / "into")))


@pytest.fixture
def source(tmp_path: Path) -> Store:
    return Store(Storage(str(tmp_path / "source")))


@pytest.fixture
def whole(into: Store) -> Store:
    fill_whole(into)
    return into


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


def test_a_run_is_the_same_whichever_of_its_coefficients_a_sweep_has_varied(into: Store, source: Store) -> None:
    fill(into, 0, 1.0)
    fill(source, 0, 1.0)
    source.write_run(source.run(ID[0]) | {"lambda": 1.0, "varied": "l1", "spec": "{}"})
    assert Merge.of(into, source).shared == (ID[0],)


MINE = {"loss": "own_losses:Mine", "versions": "{}"}
"""What a run of a plug-in has that was trained before its code was hashed."""


def hashed(code: str) -> dict[str, str]:
    return MINE | {"versions": json.dumps({"torch": "2.0", "loss own_losses:Mine": code})}


def train_mine(store: Store, value: float, hour: int, columns: dict[str, str]) -> None:
    fill(store, 0, value, hour=hour)
    store.write_run(trained(0, "done", hour, wall_seconds=value) | columns)


@pytest.mark.parametrize(
    ("ours", "theirs", "codes"),
    [
        (MINE, MINE, ("not recorded", "not recorded")),
        (hashed("0a"), MINE, ("0a", "not recorded")),
        (hashed("0a"), hashed("0b"), ("0a", "0b")),
    ],
)
def test_a_run_of_a_plugin_with_other_results_is_refused_unless_somebody_says_whose_is_kept(
    into: Store, source: Store, ours: dict[str, str], theirs: dict[str, str], codes: tuple[str, str]
) -> None:
    train_mine(into, 1.0, 1, ours)
    train_mine(source, 2.0, 2, theirs)
    said = r"has psnr_y 1 on Set5 \(code {}\) here and psnr_y 2 on Set5 \(code {}\) in '.*source': ".format(*codes)
    with pytest.raises(
        InputError, match=rf"^run {ID[0]} \(own_losses:Mine\) {said}.*; pass --prefer ours or --prefer "
    ):
        Merge.of(into, source)
    assert values(into) == {ID[0]: {1.0}}
    assert Merge.of(into, source, "ours").is_empty
    Merge.of(into, source, "theirs").apply()
    assert values(into) == {ID[0]: {2.0}}
    assert Merge.of(into, source).shared == (ID[0],)


def test_a_run_of_a_plugin_whose_code_or_results_are_the_same_is_as_any_other(into: Store, source: Store) -> None:
    train_mine(into, 1.0, 1, hashed("0a"))
    train_mine(source, 2.0, 2, hashed("0a"))
    assert Merge.of(into, source).replaced == (ID[0],)
    train_mine(source, 1.0, 2, MINE)
    assert Merge.of(into, source).replaced == (ID[0],)
    train_mine(source, 2.0, 2, MINE)
    source.write_run(trained(0, "failed", 2) | MINE)
    assert Merge.of(into, source).replaced == ()  # a failed run is no other result


def test_of_weights_of_a_plugin_without_common_scores_the_bytes_decide(into: Store, source: Store) -> None:
    for store, value in ((into, 1.0), (source, 1.0)):
        train_mine(store, value, int(store is source), MINE)
        store.tables["scores"].forget(ID[0])
    assert Merge.of(into, source).replaced == (ID[0],)
    source.storage.write(f"weights/{ID[0]}.pt", b"other")
    with pytest.raises(
        InputError, match=r"has other weights \(code not recorded\) here and weights \(code not recorded"
    ):
        Merge.of(into, source)


def test_a_preference_decides_of_any_run_that_is_done_in_both_and_of_no_other(into: Store, source: Store) -> None:
    for seed, ours, theirs in ((0, "done", "done"), (1, "failed", "done"), (2, "done", "failed")):
        fill(into, seed, 1.0, status=ours, hour=1)
        fill(source, seed, 2.0, status=theirs, hour=2)
    for prefer, expected in (("ours", (ID[1],)), ("theirs", tuple(sorted(ID[:2])))):
        assert Merge.of(into, source, prefer).replaced == expected


def test_a_source_with_a_file_that_a_link_leads_out_of_it_is_refused(
    into: Store, source: Store, tmp_path: Path
) -> None:
    fill(source, 0, 1.0)
    (tmp_path / "secret").write_bytes(b"what nobody else may read")
    weights = tmp_path / "source" / "weights" / f"{ID[0]}.pt"
    weights.unlink()
    weights.symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match=rf"weights/{ID[0]}\.pt' is, or is below, a link that leads out of '.*source'"):
        Merge.of(into, source)
    (tmp_path / "here").symlink_to(tmp_path / "source")
    weights.unlink()
    assert Merge.of(into, Store(Storage(str(tmp_path / "here")))).added == (ID[0],)


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


def test_what_is_in_both_was_asked_for_when_either_first_did(into: Store, source: Store) -> None:
    def at(hour: int | None, *seeds: int) -> list[Planned]:
        return [replace(planned(seed), planned=None if hour is None else hours(hour)) for seed in seeds]

    for store, later in ((into, (2, 1, 1, None)), (source, (1, 2, None, 1))):
        for seed, hour in enumerate(later):
            fill(store, seed, 1.0, hour=4 + seed + (store is source and seed == 0))
            store.write_run(store.rows()[ID[seed]] | {"planned": hours(hour) if hour else None})
    into.write_plan("quick", [*at(2, 4), *at(1, 5), *at(None, 6)])
    source.write_plan("quick", [*at(1, 4), *at(2, 5), *at(1, 6), *at(3, 7)])
    merge = Merge.of(into, source)
    assert (merge.replaced, sorted(merge.asked)) == ((ID[0],), [ID[2]])
    merge.apply()
    assert [into.rows()[run_id]["planned"] for run_id in ID] == [hours(1), hours(1), None, None]
    assert into.plans() == {"quick": [*at(1, 4, 5), *at(None, 6), *at(3, 7)]}
    assert Merge.of(into, source).is_empty


def test_a_loss_keeps_its_label_and_takes_one_that_is_free(into: Store, source: Store) -> None:
    fill(source, 0, 1.0)
    into.write_labels({"l1": "base", "l2": "taken"})
    source.write_labels({"l1": "baseline", "ssim": "taken", "charbonnier": "robust"})
    merge = Merge.of(into, source)
    assert merge.labels == {"charbonnier": "robust"}
    assert merge.remarks == (
        f"label 'baseline' of '{source.storage}' for l1 is not taken: here it is 'base'.",
        f"label 'taken' of '{source.storage}' for ssim is not taken: here another loss has it.",
    )
    merge.apply()
    assert into.labels() == {"charbonnier": "robust", "l1": "base", "l2": "taken"}
    assert Merge.of(into, source).is_empty


def test_what_either_declared_is_kept_and_of_one_declaration_the_earlier_time(into: Store, source: Store) -> None:
    into.declare(declared(hour=1))
    source.declare(declared(hour=3))
    source.declare(declared("ssim_y", hour=2))
    Merge.of(into, source).apply()
    assert into.declarations() == [declared(hour=1), declared("ssim_y", hour=2)]
    assert Merge.of(into, source).is_empty
    assert [each.declared for each in Merge.of(source, into).declarations] == [hours(1)]


def test_both_searches_of_one_name_are_kept_and_of_one_search_the_state_that_has_come_further(
    into: Store, source: Store
) -> None:
    into.write_tuning("quick", tuned(1))
    source.write_tuning("quick", tuned(2))
    assert Merge.of(into, source).tunings == {"quick": tuned(2)}
    assert Merge.of(source, into).is_empty
    source.write_tuning("quick", other := tuned(0, seed=6))
    Merge.of(into, source).apply()
    assert into.tunings() == {"quick": tuned(1), f"quick-{other.digest}": other}
    assert Merge.of(into, source).is_empty
    source.write_tuning("quick", further := tuned(1, seed=6))
    assert Merge.of(into, source).tunings == {f"quick-{other.digest}": further}


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


def test_cleaning_all_keeps_the_checkpoint_of_a_run_whose_old_results_have_given_way_to_it(into: Store) -> None:
    fill(into, 0, 1.0)
    for seed in (0, 1, 2):  # rerun and not complete yet, interrupted for the first time, and rerun and complete
        Checkpoints(into.storage, ID[seed]).save(7, {"value": 1.0})
    into.write_replaced({ID[seed]: Replaced("before", rerun=True) for seed in (0, 2)})
    assert set(clean(into, everything=True)) == {f"checkpoints/{ID[seed]}" for seed in (0, 1)}
    assert latest_step(into.storage, ID[2]) == 7
