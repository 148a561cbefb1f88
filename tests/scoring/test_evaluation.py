import threading
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from PIL import Image

from sgbench.assets.locator import Locator
from sgbench.core.errors import InputError
from sgbench.core.registry import METRICS
from sgbench.data import read_image, write_png
from sgbench.metrics import Image as Pixels
from sgbench.metrics import SetMetric, Undefined
from sgbench.scoring.evaluation import faults_of, score
from sgbench.scoring.upscaling import bicubic, from_folder
from sgbench.store.schema import SCORES, to_table

CPU = torch.device("cpu")
QUALITY = ["psnr_y", "psnr_rgb", "ssim_y", "ssim_rgb"]


@pytest.fixture
def nowhere(tmp_path):
    """Finds no weights, and does not look for them in a network."""
    (tmp_path / "no-weights").mkdir()
    return Locator(tmp_path / "no-weights", download=False)


@pytest.fixture
def scores(test_images, nowhere, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def call(upscaler, metrics=QUALITY, **options):
        return score(upscaler, test_images, metrics, run_id="0123456789ab", locator=nowhere, device=CPU, **options)

    return call


def of(rows, metric, image=None):
    (row,) = [row for row in rows if row["metric"] == metric and row["image"] == image]
    return row


def test_an_output_that_is_not_finite_fails_its_image_and_the_set_and_no_other(scores, test_images):
    def upscaler(images, index):
        if index == 0:
            raise ArithmeticError(reason)
        return bicubic(images, index)

    reason = "the network's output holds NaN or infinite values"
    rows = scores(upscaler, ["psnr_y", "psnr_rgb"])
    for metric in ("psnr_y", "psnr_rgb"):
        first, second, whole = (of(rows, metric, image) for image in ("photo0", "photo1", None))
        assert (first["status"], first["value"], first["reason"]) == ("failed", None, reason)
        assert (second["status"], second["reason"]) == ("ok", None)
        assert second["value"] > 0
        assert (whole["status"], whole["value"], whole["n_images"]) == ("failed", None, 2)
        assert whole["reason"] == f"image 'photo0': {reason}"
    assert faults_of(rows) == [f"{metric} on Photos: image 'photo0': {reason}" for metric in ("psnr_y", "psnr_rgb")]


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device")])
def test_a_fault_of_storage_or_machine_is_no_score(scores, error):
    def upscaler(images, index):
        raise error

    with pytest.raises(type(error)):
        scores(upscaler)


def test_a_damaged_file_fails_its_image_and_no_other(tmp_path, test_images, scores):
    write_png(tmp_path / "photo1.png", bicubic(test_images, 1))
    (tmp_path / "photo0.png").write_bytes(b"no picture")
    rows = scores(from_folder(tmp_path, test_images), ["psnr_y"])
    assert (of(rows, "psnr_y", "photo0")["status"], of(rows, "psnr_y", "photo1")["status"]) == ("failed", "ok")
    assert "cannot be read as an image" in of(rows, "psnr_y", "photo0")["reason"]


def test_rows_fit_the_schema_and_say_where_they_come_from(scores, test_images):
    rows = scores(bicubic)
    table = to_table("scores", rows)
    assert table.schema.equals(SCORES)
    assert table.num_rows == len(QUALITY) * 3
    table.validate(full=True)
    for name in ("run_id", "dataset", "dataset_sha256", "metric_version", "protocol", "n_images", "status", "scored"):
        assert table[name].null_count == 0
    assert {row["run_id"] for row in rows} == {"0123456789ab"}
    assert {(row["dataset"], row["dataset_sha256"]) for row in rows} == {("Photos", test_images.sha256)}
    assert {(row["image"], row["n_images"]) for row in rows} == {("photo0", 1), ("photo1", 1), (None, 2)}
    assert '"direction":"higher"' in of(rows, "psnr_y")["protocol"]


def test_the_score_of_a_set_is_the_mean_over_its_images(scores, test_images):
    rows = scores(bicubic)
    for metric in QUALITY:
        each = [of(rows, metric, image.name)["value"] for image in test_images.images]
        assert len(set(each)) == 2
        assert of(rows, metric)["value"] == pytest.approx(np.mean(each), rel=1e-14)
    assert faults_of(rows) == []


def test_the_scores_are_those_of_the_pixels(scores, test_images):
    sr, hr = (image[4:-4, 4:-4].astype(np.float64) for image in (bicubic(test_images, 0), test_images.hr(0)))
    expected = 10 * np.log10(255**2 / np.mean((sr - hr) ** 2))
    assert of(scores(bicubic), "psnr_rgb", "photo0")["value"] == pytest.approx(expected, rel=1e-12)


def test_a_metric_whose_weights_are_not_here_says_so_and_the_others_go_on(scores):
    rows = scores(bicubic, ["lpips_alex", "psnr_y", "fid", "fd_alex"])
    for metric in ("lpips_alex", "fid", "fd_alex"):
        whole = of(rows, metric)
        assert (whole["status"], whole["value"], whole["n_images"]) == ("no weights", None, 2)
        assert ("inception" if metric == "fid" else "alexnet") in whole["reason"]
    assert {row["status"] for row in rows if row["metric"] == "lpips_alex"} == {"no weights"}
    assert of(rows, "psnr_y")["status"] == "ok"
    assert faults_of(rows) == []
    assert to_table("scores", rows).num_rows == 3 + 3 + 1 + 1


def test_a_perfect_image_has_no_psnr_and_says_why(scores):
    rows = scores(lambda images, index: images.hr(index), ["psnr_y", "ssim_y"])
    assert (of(rows, "psnr_y")["status"], of(rows, "psnr_y")["value"]) == ("undefined", None)
    assert of(rows, "psnr_y")["reason"] == "image 'photo0' and 1 more: the images are identical"
    assert of(rows, "ssim_y")["value"] == pytest.approx(1.0)
    assert faults_of(rows) == []


class Brightness(SetMetric):
    """Has no value for a set with a perfect image; which image is perfect, features cannot know otherwise."""

    def features(self, image, runtime):
        if image.digest == self.protocol["perfect"]:
            raise Undefined("the images are identical")
        return np.ones(1)

    def distance(self, sr, hr):
        return 0.0


@pytest.mark.parametrize("metric", ["psnr_y", "brightness"])
def test_the_worst_cause_wins_and_every_cause_is_listed(scores, test_images, monkeypatch, metric):
    def upscaler(images, index):
        if index == 1:
            raise InputError("'photo1.png' cannot be read as an image.")
        return images.hr(index)

    perfect = Pixels(test_images.hr(0).transpose(2, 0, 1)).digest
    about = {"name": "brightness", "direction": "lower", "version": "1", "description": "", "source": ""}
    monkeypatch.setitem(METRICS._loaded, "brightness", Brightness(protocol={"perfect": perfect}, **about))
    whole = of(scores(upscaler, [metric]), metric)
    assert (whole["status"], whole["value"], whole["n_images"]) == ("failed", None, 2)
    assert whole["reason"] == (
        "image 'photo1': 'photo1.png' cannot be read as an image; image 'photo0': the images are identical"
    )


def test_an_image_of_another_size_is_bad_input(scores, tmp_path, test_images):
    for name, image in (("photo0", bicubic(test_images, 0)), ("photo1", test_images.lr(1))):
        write_png(tmp_path / "sr" / f"{name}.png", image)
    with pytest.raises(InputError, match="image 'photo1': SR is 12×9 pixels and HR is 48×36"):
        scores(from_folder(tmp_path / "sr", test_images))


def test_a_grey_file_is_scored_as_rgb(scores, tmp_path, test_images):
    for index in (0, 1):
        grey = Image.fromarray(bicubic(test_images, index)).convert("L")
        (tmp_path / "sr").mkdir(exist_ok=True)
        grey.save(tmp_path / "sr" / f"photo{index}.png")
    rows = scores(from_folder(tmp_path / "sr", test_images), ["psnr_rgb"])
    assert of(rows, "psnr_rgb")["status"] == "ok"
    assert read_image(tmp_path / "sr" / "photo0.png").shape == (44, 40, 3)


def test_images_scored_side_by_side_have_the_same_rows_in_the_same_order(scores):
    def told(rows):
        times = {"scored", "seconds", "upscaling_seconds"}
        return [{key: value for key, value in row.items() if key not in times} for row in rows]

    def upscaler(images, index):
        if index == 0:
            second.wait(10)  # what is begun first ends last
            raise ArithmeticError("no number")
        threads.append((threading.get_ident(), torch.get_num_threads()))
        second.set()
        return bicubic(images, index)

    threads, second = [], threading.Event()
    torch.set_num_threads(2)
    beside = scores(upscaler, side_by_side=True)
    assert threads == [(ANY, 1)]
    assert threads[0][0] != threading.get_ident()
    assert torch.get_num_threads() == 2
    assert told(beside) == told(scores(upscaler))
    assert threads[1] == (threading.get_ident(), 2)


@pytest.mark.parametrize("side_by_side", [False, True])
def test_an_image_that_comes_back_with_another_size_fails_and_no_other(scores, side_by_side):
    torch.set_num_threads(2)
    rows = scores(lambda images, index: (images.lr, images.hr)[index](index), ["ssim_y"], side_by_side=side_by_side)
    assert torch.get_num_threads() == 2
    reason = "image 'photo0': SR is 10×11 pixels and HR is 40×44; SR is as large as LR"
    assert (of(rows, "ssim_y", "photo0")["status"], of(rows, "ssim_y", "photo0")["reason"]) == ("failed", reason)
    assert of(rows, "ssim_y", "photo1")["value"] == pytest.approx(1.0)
    assert faults_of(rows) == [f"ssim_y on Photos: image 'photo0': {reason}"]
