import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sgbench.data import read_image, upscale, write_png
from sgbench.errors import InputError
from sgbench.evaluation import SUFFIXES, bicubic, faults_in, from_folder, from_network, score
from sgbench.metrics.weights import Locator
from sgbench.results.schema import SCORES, to_table
from sgbench.spec import Recipe

CPU = torch.device("cpu")
QUALITY = ["psnr_y", "psnr_rgb", "ssim_y", "ssim_rgb"]


class Constant(nn.Module):
    """Gives every pixel the values of a small tile, whatever it is shown; keeps what it was called with."""

    def __init__(self, values, scale=4):
        super().__init__()
        self.tile, self.scale, self.seen = torch.tensor(values), scale, []
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, lr):
        self.seen.append((lr, self.training, torch.is_inference_mode_enabled()))
        height, width = (side * self.scale for side in lr.shape[-2:])
        return self.tile.repeat(3 * height * width)[: 3 * height * width].view(1, 3, height, width)


@pytest.fixture
def nowhere(tmp_path):
    """Finds no weights, and does not look for them in a network."""
    (tmp_path / "no-weights").mkdir()
    return Locator(tmp_path / "no-weights", download=False)


@pytest.fixture
def scores(test_images, nowhere, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def call(upscaler, metrics=QUALITY):
        return score(upscaler, test_images, metrics, run_id="0123456789ab", locator=nowhere, device=CPU)

    return call


def of(rows, metric, image=None):
    (row,) = [row for row in rows if row["metric"] == metric and row["image"] == image]
    return row


# Networks


def test_the_output_is_clamped_and_rounded_to_the_nearest_of_256_values(test_images):
    values = [-1.0, -0.002, 0.0, 0.49 / 255, 0.51 / 255, 127.4 / 255, 127.6 / 255, 254.51 / 255, 1.0, 1.01, 7.0]
    pixels = from_network(Constant(values), Recipe(), CPU)(test_images, 0)
    assert pixels.dtype == np.uint8
    assert pixels.shape == test_images.hr(0).shape
    expected = [0, 0, 0, 0, 1, 127, 128, 255, 255, 255, 255]
    assert pixels.transpose(2, 0, 1).ravel()[: len(values)].tolist() == expected


def test_every_8_bit_value_survives(test_images):
    values = [value / 255 for value in range(256)]
    pixels = from_network(Constant(values), Recipe(), CPU)(test_images, 0)
    assert pixels.transpose(2, 0, 1).ravel()[:256].tolist() == list(range(256))


def test_the_network_sees_the_whole_low_resolution_image_in_float32(test_images):
    network = Constant([0.5])
    from_network(network, Recipe(precision="bf16"), CPU)(test_images, 1)
    ((lr, training, inference),) = network.seen
    assert (training, inference) == (False, True)
    assert lr.dtype == torch.float32
    assert lr.is_contiguous(memory_format=torch.channels_last)
    expected = torch.from_numpy(test_images.lr(1).copy()).permute(2, 0, 1)[None] / 255
    assert torch.equal(lr, expected)


def test_an_output_that_is_not_finite_fails_its_image_and_the_set_and_no_other(scores, test_images):
    class NanOnTheFirst(Constant):
        def forward(self, lr):
            return super().forward(lr) * (float("nan") if not self.seen[1:] else 1.0)

    rows = scores(from_network(NanOnTheFirst([0.25, 0.75]), Recipe(), CPU), ["psnr_y", "psnr_rgb"])
    reason = "the network's output holds NaN or infinite values"
    for metric in ("psnr_y", "psnr_rgb"):
        first, second, whole = (of(rows, metric, image) for image in ("photo0", "photo1", None))
        assert (first["status"], first["value"], first["reason"]) == ("failed", None, reason)
        assert (second["status"], second["reason"]) == ("ok", None)
        assert second["value"] > 0
        assert (whole["status"], whole["value"], whole["n_images"]) == ("failed", None, 2)
        assert whole["reason"] == f"image 'photo0': {reason}"
    assert faults_in(rows) == [f"{metric} on Photos: image 'photo0': {reason}" for metric in ("psnr_y", "psnr_rgb")]


@pytest.mark.parametrize("value", [float("inf"), -float("inf")])
def test_an_infinite_output_is_not_clamped_away(test_images, value):
    with pytest.raises(ArithmeticError, match="NaN or infinite"):
        from_network(Constant([0.5, value]), Recipe(), CPU)(test_images, 0)


# Folders


@pytest.fixture
def results_folder(tmp_path, test_images):
    """Makes a folder of bicubic images with the given names; each has one pixel that says which name it has."""

    def make(*names):
        folder = tmp_path / "sr"
        for number, name in enumerate(names):
            image = bicubic(test_images, 1 if "photo1" in name else 0).copy()
            image[0, 0] = number
            write_png(folder / name, image)
        return folder

    return make


@pytest.mark.parametrize("suffix", [suffix.format(scale=4) for suffix in SUFFIXES])
def test_a_file_belongs_to_the_reference_whose_name_it_has(results_folder, test_images, suffix):
    folder = results_folder(f"photo1{suffix}.png", f"photo0{suffix}.png", "other.png", f"photo10{suffix}.png")
    upscaler = from_folder(folder, [test_images])
    assert [upscaler(test_images, index)[0, 0, 0] for index in (0, 1)] == [1, 0]


def test_the_exact_name_goes_before_a_longer_one(results_folder, test_images):
    folder = results_folder("photo0_SR.png", "photo0.png", "photo0x4.png", "photo1.png")
    assert from_folder(folder, [test_images])(test_images, 0)[0, 0, 0] == 1


def test_a_file_of_another_scale_is_passed_over(results_folder, test_images):
    folder = results_folder("photo0x2.png", "photo0x4.png", "photo1_x4.png", "photo1_x3.png")
    upscaler = from_folder(folder, [test_images])
    assert [upscaler(test_images, index)[0, 0, 0] for index in (0, 1)] == [1, 2]


def test_what_is_missing_is_listed(results_folder, test_images):
    folder = results_folder("photo1.png", "photo0_sharp.png")
    with pytest.raises(InputError) as error:
        from_folder(folder, [test_images])
    assert str(error.value).startswith(f"'{folder}' has no super-resolved image for photo0; a file must have ")
    assert "one of x4, _x4, _SR" in str(error.value)


def test_a_long_list_of_missing_images_is_cut(results_folder, test_images):
    folder = results_folder("unrelated.png")
    with pytest.raises(InputError, match="for photo0, photo1, photo0, photo1, photo0 and 1 more; a file"):
        from_folder(folder, [test_images] * 3)


def test_a_folder_of_the_references_is_read_as_it_is(test_folder, test_images):
    pixels = from_folder(test_folder, [test_images])(test_images, 1)
    assert np.array_equal(pixels, test_images.hr(1))


def test_a_damaged_file_fails_its_image_and_no_other(results_folder, test_images, scores):
    folder = results_folder("photo0.png", "photo1.png")
    (folder / "photo0.png").write_bytes(b"no picture")
    rows = scores(from_folder(folder, [test_images]), ["psnr_y"])
    assert (of(rows, "psnr_y", "photo0")["status"], of(rows, "psnr_y", "photo1")["status"]) == ("failed", "ok")
    assert "cannot be read as an image" in of(rows, "psnr_y", "photo0")["reason"]


# Scores


def test_bicubic_is_matlabs(test_images):
    assert np.array_equal(bicubic(test_images, 0), upscale(test_images.lr(0), 4))


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
    assert faults_in(rows) == []


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
    assert faults_in(rows) == []
    assert to_table("scores", rows).num_rows == 3 + 3 + 1 + 1


def test_a_perfect_image_has_no_psnr_and_says_why(scores):
    rows = scores(lambda images, index: images.hr(index), ["psnr_y", "ssim_y"])
    assert (of(rows, "psnr_y")["status"], of(rows, "psnr_y")["value"]) == ("undefined", None)
    assert of(rows, "psnr_y")["reason"] == "image 'photo0': the images are identical"
    assert of(rows, "ssim_y")["value"] == pytest.approx(1.0)
    assert faults_in(rows) == []


def test_an_image_of_another_size_is_bad_input(scores, tmp_path, test_images):
    for name, image in (("photo0", bicubic(test_images, 0)), ("photo1", test_images.lr(1))):
        write_png(tmp_path / "sr" / f"{name}.png", image)
    with pytest.raises(InputError, match="image 'photo1': SR is 12×9 pixels and HR is 48×36"):
        scores(from_folder(tmp_path / "sr", [test_images]))


def test_a_grey_file_is_scored_as_rgb(scores, tmp_path, test_images):
    for index in (0, 1):
        grey = Image.fromarray(bicubic(test_images, index)).convert("L")
        (tmp_path / "sr").mkdir(exist_ok=True)
        grey.save(tmp_path / "sr" / f"photo{index}.png")
    rows = scores(from_folder(tmp_path / "sr", [test_images]), ["psnr_rgb"])
    assert of(rows, "psnr_rgb")["status"] == "ok"
    assert read_image(tmp_path / "sr" / "photo0.png").shape == (44, 40, 3)
