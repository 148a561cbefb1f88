"""What can be scored besides a sweep's runs: built-in methods, checkpoints, folders, and runs on new test sets."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sgbench.assets.locator import Locator
from sgbench.backbones import build_backbone
from sgbench.core.errors import InputError
from sgbench.core.resize import upscale
from sgbench.core.storage import Storage
from sgbench.data import PackedImages, read_image, write_png
from sgbench.runs.execute import Job, train_job
from sgbench.runs.plan import make_plan, pack
from sgbench.scoring.evaluation import score_subject, unscored
from sgbench.scoring.subjects import Subject, find_subject, merged, pack_test
from sgbench.scoring.upscaling import Inference
from sgbench.spec import build
from sgbench.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Storage(str(tmp_path / "store")))


@pytest.fixture
def few(test_folder: Path, cache: Path) -> str:
    """A reference to a test set."""
    return f"few={test_folder}"


LOCATOR = Locator(download=False)


def scored(subject: Subject, store: Store, test: str, *metrics: str) -> list[str]:
    """Compute what a subject lacks, as the command does, and return what went wrong."""
    missing = unscored(subject, [pack_test(subject, test)], metrics or ("psnr_y",), store, locator=LOCATOR)
    return score_subject(subject, missing, store, locator=LOCATOR)


def evaluate(what: str, store: Store, test: str, *metrics: str, **options: Any) -> str:
    """Score something as the command does, and return its id."""
    subject = find_subject(what, store, **options)
    assert scored(subject, store, test, *metrics) == []
    return subject.run_id


def whole(store: Store) -> dict[tuple[str, str, str], float]:
    rows = store.scores().to_pylist()
    return {(row["run_id"], row["dataset"], row["metric"]): row["value"] for row in rows if row["image"] is None}


def times(store: Store) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in Path(store.storage.root).rglob("*.parquet")}


@pytest.fixture
def finished(train_folder: Path, few: str, store: Store) -> str:
    """The id of a run that was trained and not scored."""
    fields: dict[str, Any] = {"grids": [{"backbones": ["edsr-tiny"], "losses": ["l1"]}], "metrics": ["psnr_y"]}
    fields |= {"train": f"mine={train_folder}", "tests": [few], "recipe": {"steps": 2, "batch": 2, "patch": 8}}
    sweep = build(fields, "tiny")
    data = pack(sweep)
    job = Job.of(make_plan("tiny", sweep, data, store).runs[0], data, sweep, store.storage)
    assert train_job(job) == ("done", "")
    return job.run_id


def test_bicubic_is_scored_once(store: Store, few: str) -> None:
    run_id = evaluate("bicubic", store, few, "psnr_y", "ssim_y")
    row = store.run(run_id)
    assert row is not None
    assert (row["kind"], row["name"], row["scale"], row["status"]) == ("builtin", "bicubic", 4, "done")
    assert set(whole(store)) == {(run_id, "few", "psnr_y"), (run_id, "few", "ssim_y")}

    before = times(store)
    assert evaluate("bicubic", store, few, "psnr_y", "ssim_y") == run_id
    assert times(store) == before
    evaluate("bicubic", store, few, "psnr_y", "psnr_rgb")
    sha256 = store.scores().column("dataset_sha256")[0].as_py()
    assert {name for name, time in times(store).items() if before.get(name) != time} == {
        f"{run_id}.parquet",
        f"{run_id}-few@{sha256[:8]}-psnr_rgb.parquet",
    }


def test_a_scale_is_another_subject(store: Store, few: str) -> None:
    assert evaluate("bicubic", store, few, scale=2) != evaluate("bicubic", store, few, scale=4)
    assert len(whole(store)) == 2


def test_rerun_computes_again_to_the_same_values(store: Store, few: str) -> None:
    evaluate("bicubic", store, few)
    before, values = times(store), whole(store)
    subject = find_subject("bicubic", store)
    score_subject(subject, [(pack_test(subject, few), ["psnr_y"])], store, locator=LOCATOR)
    assert all(times(store)[name] > time for name, time in before.items())
    assert whole(store) == values


def test_a_folder_of_bicubic_images_scores_like_bicubic_and_its_id_is_its_content(
    tmp_path: Path, store: Store, few: str
) -> None:
    bicubic = find_subject("bicubic", store)
    images = pack_test(bicubic, few)
    sr = tmp_path / "sr"
    write_png(sr / "photo0.png", upscale(images.lr(0), 4))
    write_png(sr / "photo1_x4.png", upscale(images.lr(1), 4))
    first = evaluate(str(sr), store, few)
    row = store.run(first)
    assert row is not None
    assert (row["kind"], row["name"]) == ("folder", "sr")
    evaluate("bicubic", store, few)
    assert whole(store)[first, "few", "psnr_y"] == whole(store)[bicubic.run_id, "few", "psnr_y"]

    moved = sr.rename(tmp_path / "moved")
    assert find_subject(str(moved), store).run_id == first
    pixels = read_image(moved / "photo0.png").copy()
    pixels[0, 0, 0] ^= 1
    write_png(moved / "photo0.png", pixels)
    assert find_subject(str(moved), store).run_id != first


def test_a_folder_whose_files_swap_their_names_is_another_subject(tmp_path: Path, store: Store, cache: Path) -> None:
    # Files are matched by name, so that the same files under other names have other scores.
    for name, value in (("a", 10), ("b", 200)):
        write_png(tmp_path / "hr" / f"{name}.png", torch.full((32, 32, 3), value, dtype=torch.uint8).numpy())
        write_png(tmp_path / "sr" / f"{name}.png", torch.full((32, 32, 3), value + 1, dtype=torch.uint8).numpy())
    test = f"flat={tmp_path / 'hr'}"
    first = evaluate(str(tmp_path / "sr"), store, test)
    (tmp_path / "sr" / "a.png").rename(tmp_path / "sr" / "c.png")
    (tmp_path / "sr" / "b.png").rename(tmp_path / "sr" / "a.png")
    (tmp_path / "sr" / "c.png").rename(tmp_path / "sr" / "b.png")
    second = evaluate(str(tmp_path / "sr"), store, test)
    assert second != first
    assert whole(store)[second, "flat", "psnr_y"] < whole(store)[first, "flat", "psnr_y"]


def test_a_state_dict_needs_its_backbone_named_and_is_scored_by_its_content(
    tmp_path: Path, store: Store, few: str
) -> None:
    torch.manual_seed(0)
    path = tmp_path / "net.pt"
    torch.save(build_backbone("edsr-tiny", 4).state_dict(), path)
    with pytest.raises(InputError, match="give it with --backbone"):
        find_subject(str(path), store)
    run_id = evaluate(str(path), store, few, backbone="edsr-tiny")
    row = store.run(run_id)
    assert row is not None
    assert {key: row[key] for key in ("kind", "name", "backbone", "size", "loss")} == {
        "kind": "checkpoint",
        "name": "net.pt",
        "backbone": "edsr-tiny",
        "size": "tiny",
        "loss": None,
    }
    copy = path.rename(tmp_path / "copy.pt")
    assert find_subject(str(copy), store, backbone="edsr-tiny").run_id == run_id
    torch.save(build_backbone("edsr-tiny", 4).state_dict(), copy)
    assert find_subject(str(copy), store, backbone="edsr-tiny").run_id != run_id


def test_equal_weights_have_one_id_and_the_name_by_which_they_were_asked_for(
    tmp_path: Path, store: Store, few: str
) -> None:
    weights = build_backbone("edsr-tiny", 4).state_dict()
    spec = {"backbone": "edsr-tiny", "loss": "l1", "seed": 0, "train": {"name": "demo"}}
    torch.save({"params": weights, "spec": spec}, tmp_path / "a.pth")
    torch.save(weights, tmp_path / "b.pth")
    run_id = evaluate(str(tmp_path / "a.pth"), store, few)
    values, made = whole(store), store.run(run_id)
    assert made is not None
    assert evaluate(str(tmp_path / "b.pth"), store, few, backbone="edsr-tiny") == run_id
    assert (store.run(run_id), whole(store)) == ({**made, "name": "b.pth"}, values)
    evaluate(str(tmp_path / "b.pth"), store, few, "ssim_y", backbone="edsr-tiny")
    row = store.run(run_id)
    assert row is not None
    assert (row["name"], row["loss"], row["train"]) == ("b.pth", "l1", "demo")

    asked = [find_subject(str(tmp_path / name), store, backbone="edsr-tiny") for name in ("b.pth", "a.pth", "b.pth")]
    (both,) = merged([*asked, *asked])
    assert scored(both, store, few) == []
    assert (store.run(run_id) or {})["name"] == both.name == "b.pth = a.pth"


def test_final_weights_name_their_backbone_and_score_like_the_run(
    tmp_path: Path, store: Store, few: str, finished: str
) -> None:
    path = Path(store.storage.root) / "weights" / f"{finished}.pt"
    evaluate(finished, store, few)
    checkpoint = evaluate(str(path), store, few)
    assert checkpoint != finished
    assert whole(store)[checkpoint, "few", "psnr_y"] == whole(store)[finished, "few", "psnr_y"]
    row = store.run(checkpoint)
    assert row is not None
    assert (row["kind"], row["backbone"], row["loss"], row["train"]) == ("checkpoint", "edsr-tiny", "l1", "mine")
    with pytest.raises(InputError, match="is a checkpoint of backbone 'edsr-tiny', not 'edsr-light'"):
        find_subject(str(path), store, backbone="edsr-light")


def test_a_finished_run_is_scored_on_a_new_test_set_without_training(
    store: Store, few: str, finished: str, tmp_path: Path, test_images: PackedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, weights = store.run(finished), (tmp_path / "store" / "weights" / f"{finished}.pt").stat().st_mtime_ns
    monkeypatch.setattr("sgbench.runs.execute.train", None)
    write_png(tmp_path / "new" / "one.png", test_images.hr(0))
    assert evaluate(finished[:4], store, f"new={tmp_path / 'new'}", "psnr_y", "ssim_y") == finished
    assert evaluate(finished, store, few) == finished
    assert set(whole(store)) == {(finished, "new", "psnr_y"), (finished, "new", "ssim_y"), (finished, "few", "psnr_y")}
    assert store.run(finished) == row
    assert (tmp_path / "store" / "weights" / f"{finished}.pt").stat().st_mtime_ns == weights


def test_a_run_is_found_by_the_beginning_of_its_id_if_that_is_enough(store: Store, finished: str) -> None:
    assert find_subject(finished[:4], store).run_id == finished
    row = store.run(finished)
    assert row is not None
    twin = finished[:4] + "0" * 8
    store.write_run({**row, "run_id": twin})
    with pytest.raises(InputError, match=f"run '{finished[:4]}': .* has 2 runs whose ids begin with it"):
        find_subject(finished[:4], store)
    with pytest.raises(InputError, match=re.escape(f"run '{twin}' (edsr-tiny · l1 · seed 0) has no final weights")):
        find_subject(twin, store)
    store.write_run({**row, "status": "failed"})
    with pytest.raises(InputError, match="has no final weights to score"):
        find_subject(finished, store)


@pytest.mark.parametrize("train", [{"name": "BSDS500"}, {"name": "mix", "of": ["DIV2K", "BSDS500"]}])
def test_a_run_is_not_scored_on_a_set_that_lies_inside_its_training_set(
    store: Store, few: str, finished: str, test_folder: Path, train: dict[str, Any]
) -> None:
    row = store.run(finished)
    assert row is not None
    spec = json.loads(row["spec"])
    store.write_run({**row, "spec": json.dumps(spec | {"train": spec["train"] | train})})
    with pytest.raises(InputError, match="B100 lies inside BSDS500"):
        pack_test(find_subject(finished, store), f"B100={test_folder}")


def test_a_run_of_another_version_is_bad_input(store: Store, finished: str) -> None:
    row = store.run(finished)
    assert row is not None
    store.write_run({**row, "spec": row["spec"].replace('"steps"', '"stages"')})
    with pytest.raises(InputError, match=r"has a specification that cannot be read: recipe: unknown key 'stages'"):
        find_subject(finished, store)


def test_a_row_with_the_specification_of_another_run_is_bad_input(store: Store, finished: str) -> None:
    row = store.run(finished)
    assert row is not None
    store.write_run({**row, "spec": row["spec"].replace('"seed": 0', '"seed": 1')})
    with pytest.raises(InputError, match=f"run '{finished}' .* has the specification of run [0-9a-f]{{12}}"):
        find_subject(finished, store)


def test_an_image_that_cannot_be_read_is_a_failed_score_and_the_others_have_theirs(
    tmp_path: Path, store: Store, few: str
) -> None:
    images = pack_test(find_subject("bicubic", store), few)
    write_png(tmp_path / "sr" / "photo0.png", images.hr(0))
    (tmp_path / "sr" / "photo1.png").write_bytes(b"no picture")
    subject = find_subject(str(tmp_path / "sr"), store)
    (fault,) = scored(subject, store, few, "ssim_y")
    assert fault.startswith("ssim_y on few: image 'photo1': ")
    scores = {row["image"]: row for row in store.scores().to_pylist()}
    assert scores["photo0"]["value"] == pytest.approx(1.0)
    assert (scores[None]["status"], scores[None]["value"]) == ("failed", None)


def test_refused_subjects_leave_no_row(tmp_path: Path, store: Store, few: str) -> None:
    for name in ("photo0", "photo1"):
        write_png(tmp_path / "sr" / f"{name}.png", torch.zeros(16, 16, 3, dtype=torch.uint8).numpy())
    subject = find_subject(str(tmp_path / "sr"), store)
    with pytest.raises(InputError, match="SR is 16×16 pixels"):
        scored(subject, store, few)
    assert times(store) == {}


def test_no_code_is_run_because_a_file_names_it(tmp_path: Path, store: Store) -> None:
    weights = build_backbone("edsr-tiny", 4).state_dict()
    spec = {"backbone": "edsr-tiny", "loss": "subprocess:Popen(args=pwd)", "seed": 0, "train": {"name": "demo"}}
    torch.save({"params": weights, "spec": spec}, tmp_path / "evil.pt")
    subject = find_subject(str(tmp_path / "evil.pt"), store)  # the loss stays text
    assert subject.row is not None
    assert subject.row["loss"] == "subprocess:Popen(args=pwd)"
    torch.save({"params": weights, "spec": {**spec, "backbone": "subprocess:Popen"}}, tmp_path / "worse.pt")
    with pytest.raises(InputError, match="needs the plug-in 'subprocess:Popen'"):
        find_subject(str(tmp_path / "worse.pt"), store)


def test_a_checkpoint_in_half_precision_has_an_id(tmp_path: Path, store: Store) -> None:
    weights = {key: value.bfloat16() for key, value in build_backbone("edsr-tiny", 4).state_dict().items()}
    torch.save(weights, tmp_path / "half.pt")
    assert len(find_subject(str(tmp_path / "half.pt"), store, backbone="edsr-tiny").run_id) == 12


def test_a_run_that_is_applied_otherwise_is_another_subject(store: Store, few: str, finished: str) -> None:
    plain = evaluate(finished, store, few)
    ensemble = find_subject(finished, store, inference=Inference(self_ensemble=True))
    tiled = find_subject(finished, store, inference=Inference(tile=8, overlap=8))
    assert len({plain, ensemble.run_id, tiled.run_id}) == 3
    assert scored(ensemble, store, few) == []
    row = store.run(ensemble.run_id)
    assert row is not None
    assert (row["kind"], row["backbone"], row["loss"]) == ("checkpoint", "edsr-tiny", "l1")
    assert row["name"] == "edsr-tiny · l1 · seed 0 (self-ensemble)"
    values = whole(store)
    assert values[ensemble.run_id, "few", "psnr_y"] != values[plain, "few", "psnr_y"]


def test_a_self_ensemble_needs_a_network(store: Store, tmp_path: Path) -> None:
    for what, kind in (("bicubic", "a built-in method"), (str(tmp_path), "a folder of images")):
        with pytest.raises(InputError, match=f"can be scored with self-ensemble; '{what}' is {kind}"):
            find_subject(what, store, inference=Inference(self_ensemble=True))


def test_images_are_kept_whether_or_not_there_is_anything_to_score(store: Store, few: str) -> None:
    subject = find_subject("bicubic", store)
    images = pack_test(subject, few)
    folder = Path(store.storage.root) / "images" / subject.run_id / f"few@{images.sha256[:8]}"
    for _ in range(2):
        missing = unscored(subject, [images], ["psnr_y"], store, locator=LOCATOR)
        assert score_subject(subject, missing, store, locator=LOCATOR, save_images=True) == []
        assert sorted(path.name for path in folder.iterdir()) == ["photo0.png", "photo1.png"]
        assert (read_image(folder / "photo1.png") == upscale(images.lr(1), 4)).all()
        (folder / "photo1.png").unlink()
