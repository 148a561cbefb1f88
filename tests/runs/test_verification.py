"""Checking stores: each thing that can be wrong, and that nothing that is right is called wrong."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up_runs import ID, declared, fill, fill_whole, history, scores, spec_of, trained, tuned, validation

from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.runs.maintenance import without_weights
from sgbench.runs.verification import verify
from sgbench.spec import Recipe, RunSpec, TrainingData
from sgbench.store import Store


@pytest.fixture
def into(tmp_path: Path) -> Store:
    return Store(Storage(str(tmp_path / "into")))


@pytest.fixture
def whole(into: Store) -> Store:
    fill_whole(into)
    assert list(verify(into)) == []
    return into


CONSEQUENCE = f"run {ID[1]}: psnr_y on Set5@abababab is of 5 images, but has 1."


def rewrite(store: Store, table: str, stem: str, *rows: dict[str, Any]) -> None:
    store.tables[table].write(stem, list(rows))


def edit(file: Path, old: str, new: str) -> None:
    assert file.read_text().count(old) == 1
    file.write_text(file.read_text().replace(old, new))


def tune(store: Store, old: str, new: str) -> None:
    store.write_tuning("quick", tuned(1))
    assert list(verify(store)) == []
    edit(Path(store.storage.root) / "tunings" / "quick.json", old, new)


FAULTS: dict[str, tuple[Callable[[Store, Path], object], str]] = {
    "damaged rows": (
        lambda store, root: (root / "runs" / ("e" * 12 + ".parquet")).write_bytes(b"x"),
        f"{'e' * 12}.parquet' is not a results file",
    ),
    "another version": (
        lambda store, root: pq.write_table(
            pq.read_table(root / "runs" / f"{ID[1]}.parquet").drop_columns(["schema_version"]),
            root / "runs" / ("f" * 12 + ".parquet"),
        ),
        f"{'f' * 12}.parquet' is not a results file",
    ),
    "wrong name": (
        lambda store, root: rewrite(store, "runs", "0" * 12, trained(1)),
        f"{'0' * 12}.parquet' has rows of '{ID[1]}'.",
    ),
    "twice": (
        lambda store, root: rewrite(store, "history", ID[1], *history(ID[1], 1.0) * 2),
        f"history/{ID[1]}.parquet' has a row that cannot be used: there are 2 rows of {ID[1]}, 7.",
    ),
    "another run's id": (
        lambda store, root: rewrite(store, "runs", ID[1], trained(2) | {"run_id": ID[1]}),
        f"run {ID[1]} has the specification of run {ID[2]}.",
    ),
    "changed column": (
        lambda store, root: store.write_run(trained(1, batch=17)),
        f"run {ID[1]} has 17 as its batch, but its specification says 16.",
    ),
    "changed λ": (
        lambda store, root: store.write_run(trained(1) | {"lambda": 3.0}),
        f"run {ID[1]} has 3.0 as its lambda, but its specification says 0.0.",
    ),
    "no specification": (
        lambda store, root: store.write_run(trained(1, spec="{}")),
        f"run {ID[1]} has a specification that cannot be read: backbone: Field required.",
    ),
    "another number of steps": (
        lambda store, root: (
            store.write_run(trained(1, step=6)),
            store.write_history(history(ID[1], 1.0, step=6)),
            store.write_validation(validation(ID[1], 1.0, step=6)),
        ),
        f"run {ID[1]} has 6 as its step, but its specification says 7.",
    ),
    "a validation after the end": (
        lambda store, root: store.write_validation(validation(ID[1], 1.0, step=8)),
        f"run {ID[1]}: the validation by psnr_y on Mine@cdcdcdcd at step 8 is after the last of its 7 steps.",
    ),
    "a validation without its value": (
        lambda store, root: store.write_validation(validation(ID[1], None)),
        f"run {ID[1]}: the validation by psnr_y on Mine@cdcdcdcd at step 7 is 'ok' and has no value.",
    ),
    "scores of nobody": (
        lambda store, root: store.write_scores(scores("c" * 12, 1.0)),
        f"run {'c' * 12} has scores but no row in 'runs'; repeat the command that was interrupted, or delete the run "
        f"with 'sgbench results rm {'c' * 12}'.",
    ),
    "a curve of nobody": (
        lambda store, root: store.write_history(history("c" * 12, 1.0)),
        f"run {'c' * 12} has a training curve but no row",
    ),
    "weights and an image of nobody": (
        lambda store, root: [
            store.storage.write(name, b"x") for name in (f"weights/{'c' * 12}.pt", f"images/{'c' * 12}/Set5@0/a.png")
        ],
        f"run {'c' * 12} has final weights and saved images but no row",
    ),
    "too few images": (
        lambda store, root: store.write_scores(scores(ID[1], 2.0, n_images=5)),
        f"run {ID[1]}: psnr_y on Set5@abababab is of 5 images, but",
    ),
    "another number of images than in other scores": (
        lambda store, root: store.write_scores([scores(ID[1], 2.0, metric="fid", n_images=5)[0]]),
        f"run {ID[1]}: fid on Set5@abababab is of 5 images, but of 1 in the scores of run ",
    ),
    "not the mean": (
        lambda store, root: store.write_scores([*scores(ID[1], 2.5)[:1], *scores(ID[1], 2.0)[1:]]),
        f"run {ID[1]}: psnr_y on Set5@abababab is 2.5, but the mean of its images is 2.",
    ),
    "the mean of some": (
        lambda store, root: store.write_scores(
            [*scores(ID[1], 2.0)[:1], *scores(ID[1], None, status="failed")[1:]],
        ),
        f"run {ID[1]}: psnr_y on Set5@abababab has a value, but 0 of its 1 images have one.",
    ),
    "ok without a value": (
        lambda store, root: store.write_scores([scores(ID[1], None, metric="fid")[0]]),
        f"run {ID[1]}: fid on Set5@abababab is 'ok' and has no value.",
    ),
    "images without their set": (
        lambda store, root: store.write_scores(scores(ID[1], 2.0, metric="ssim_y")[1:]),
        f"run {ID[1]}: ssim_y on Set5@abababab has images but no score of the set.",
    ),
    "a curve that ends early": (
        lambda store, root: store.write_history(history(ID[1], 1.0, step=6)),
        f"run {ID[1]} has 7 steps, but its training curve ends at 6.",
    ),
    "no curve": (
        lambda store, root: store.tables["history"].forget(ID[1]),
        f"run {ID[1]} is done, but has no training curve in 'history'.",
    ),
    "images of a set without scores": (
        lambda store, root: store.storage.write(f"images/{ID[1]}/Set14@01234567/a.png", b"2.0"),
        f"run {ID[1]} has saved images of Set14@01234567, but no score on it.",
    ),
    "images without scores": (
        lambda store, root: store.storage.write(f"images/{ID[1]}/Set5@abababab/a.png", b"2.0"),
        f"run {ID[1]} has a saved image 'a' of Set5@abababab, but no score of it.",
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
    "a declaration that was changed": (
        lambda store, root: edit(root / "declared" / f"{declared().digest}.json", '"alpha": 0.05', '"alpha": 0.1'),
        f"declared/{declared().digest}.json' is not what a sweep declared: it has been changed",
    ),
    "a tuning that was changed": (
        lambda store, root: tune(store, '"trials": 2', '"trials": 3'),
        "quick.json' is not a search of 'sgbench tune': the search has been changed",
    ),
    "a trial of another loss": (
        lambda store, root: tune(store, '"loss": "l1",\n   "seed": 0', '"loss": "l2",\n   "seed": 0'),
        f"run {ID[0]}, a trial of 'quick', has 'l1' as its loss, but the search says 'l2'.",
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
    (found,) = {*verify(whole)} - ({CONSEQUENCE} if fault == "too few images" else set())
    assert sentence in found
    assert "\n" not in found
    assert found.endswith(".")


def test_one_damaged_file_hides_nothing_else(whole: Store) -> None:
    root = Path(whole.storage.root)
    for fault in ("a curve that ends early", "damaged weights", "damaged plan", "not the mean"):
        FAULTS[fault][0](whole, root)
    expected = set(verify(whole))
    assert len(expected) == 4
    (root / "runs" / f"{'b' * 12}.parquet").write_bytes(b"x")
    damaged = {fault for fault in verify(whole) if "is not a results file" in fault}
    assert len(damaged) == 1  # and nothing is said of the scores of the run that the file is about
    assert {*verify(whole)} - damaged == expected
    (root / "scores" / "compacted-000001.parquet").write_bytes(b"x")
    assert {fault for fault in verify(whole) if "is not a results file" not in fault} == expected
    (root / "runs" / "compacted-000001.parquet").write_bytes(b"x")
    assert len({fault for fault in verify(whole) if "is not a results file" in fault}) == 3


def test_what_was_checked_is_counted(whole: Store) -> None:
    checked = Counter[str]()
    assert list(verify(whole, checked)) == []
    assert checked == {
        "files of rows": 9,
        "runs": 3,
        "scores of sets": 3,
        "scores of images": 3,
        "scores of validation": 1,
        "points of training curves": 2,
        "final weights": 2,
        "initial weights": 0,
        "sources of plug-ins": 0,
        "saved images": 2,
        "declarations": 1,
        "tunings": 0,
        "plans": 1,
    }


UNUSABLE: dict[str, tuple[str, dict[str, Any], str]] = {
    "no id": ("runs", {"run_id": None}, "a row lacks its run_id"),
    "no seed": ("runs", {"seed": None}, "a trained run lacks its seed"),
    "no loss": ("runs", {"loss": None}, "a trained run lacks its loss"),
    "no name": ("runs", {"name": None}, "a row lacks its name"),
    "another status": ("runs", {"status": "perhaps"}, "its status is 'perhaps'; 'done' or 'failed' is needed"),
    "another kind": ("runs", {"kind": "dog"}, "its kind is 'dog'; 'train' or 'checkpoint' or 'folder' or 'builtin' is"),
    "versions that are no JSON": ("runs", {"versions": "{torch"}, "its versions is '{torch'; a JSON object is needed"),
    "versions that are a list": ("runs", {"versions": "[1]"}, "its versions is '[1]'; a JSON object is needed"),
    "the year 30000": ("runs", {"finished": 884541340800000}, "its finished is 884541340800000 ms after 1970; a year"),
    "no number of seconds": ("runs", {"wall_seconds": float("nan")}, "its wall_seconds is nan; a finite number is"),
    "infinitely many seconds": ("runs", {"wall_seconds": float("inf")}, "its wall_seconds is inf; a finite number is"),
    "a negative count": ("runs", {"parameters": -3}, "its parameters is -3; 0 or more is needed"),
    "a negative seed": ("runs", {"seed": -1}, "its seed is -1; 0 or more is needed"),
    "no images": ("scores", {"n_images": -1}, "its n_images is -1; 0 or more is needed"),
    "no value": ("scores", {"value": float("nan")}, "its value is nan; a finite number is needed"),
    "a protocol of another kind": ("scores", {"protocol": "7"}, "its protocol is '7'; a JSON object is needed"),
    "another outcome": ("scores", {"status": "good"}, "its status is 'good'; 'ok' or "),
    "never": ("scores", {"scored": -99999999999999}, "its scored is -99999999999999 ms after 1970; a year from 1 to"),
    "a loss that is none": ("history", {"loss": float("inf")}, "its loss is inf; a finite number is needed"),
    "a term that is none": (
        "history",
        {"terms": [("l1", float("nan"))]},
        "its terms is nan; a finite number is",
    ),
    "a negative step": ("history", {"step": -1}, "its step is -1; 0 or more is needed"),
}


def spoil(store: Store, table: str, stem: str, changes: dict[str, Any]) -> None:
    """Write a file with some values of its first row changed, which Parquet accepts."""
    rows = store.tables[table].part(stem)
    assert rows is not None
    for column, value in changes.items():
        at, field = rows.schema.get_field_index(column), rows.schema.field(column).with_nullable(True)
        stored = pa.int64() if pa.types.is_timestamp(field.type) else field.type
        values = pa.array([value], stored).cast(field.type)
        rest = rows.column(column).combine_chunks().slice(1)
        rows = rows.set_column(at, field, pa.chunked_array([values, rest], field.type))
    path = Path(store.storage.root) / table / f"{stem}.parquet"
    pq.write_table(rows, path)


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("case", UNUSABLE)
def test_a_row_that_parquet_takes_and_no_reader_could_use_is_told_with_its_file(
    whole: Store, case: str, compacted: bool
) -> None:
    table, changes, said = UNUSABLE[case]
    stem = f"{ID[1]}-Set5@abababab-psnr_y" if table == "scores" else ID[1]
    if compacted:
        whole.compact()
        stem = whole.tables[table].list().newest or ""
    spoil(whole, table, stem, changes)
    with pytest.raises(InputError) as caught:
        whole.tables[table].read()
    assert f"{table}/{stem}.parquet' " in str(caught.value)
    assert said in str(caught.value)
    assert len(str(caught.value).removeprefix(f"'{whole.storage.root}")) < 300
    fill(whole, 2, 3.0)
    with pytest.raises(InputError):  # nothing is baked in
        whole.tables[table].compact()
    assert str(caught.value) in set(verify(whole))


def test_rows_that_two_files_have_are_refused_and_the_false_one_is_named(whole: Store) -> None:
    rewrite(whole, "runs", "0" * 12, trained(1))
    with pytest.raises(InputError, match=f"/runs' has rows that cannot be used: there are 2 rows of {ID[1]}"):
        whole.runs()
    (found,) = verify(whole)
    assert f"{'0' * 12}.parquet' has rows of '{ID[1]}'." in found


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
    assert "compacted-000002.parquet' has a row that cannot be used: there are 2 rows of " in found


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
