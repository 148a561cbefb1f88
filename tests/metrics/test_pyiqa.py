"""Metrics of the library pyiqa: what is handed to it, which files it gets, and what a person is told."""

import hashlib
import json
import os
import random
import sys
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import published_pyiqa as published
import pytest
import torch
from typer.testing import CliRunner

from sgbench.assets import from_pyiqa as files
from sgbench.assets.catalogue import NETWORKS
from sgbench.assets.install import install
from sgbench.assets.locator import Locator
from sgbench.cli import app
from sgbench.core.errors import InputError
from sgbench.core.registry import METRICS
from sgbench.core.status import ScoreStatus
from sgbench.metrics import Pair, Runtime, Suite, from_pyiqa
from sgbench.spec import check_metrics

PUBLISHED = json.loads(published.FILE.read_text(encoding="utf-8"))

STAND_INS = Path(__file__).with_name("stand_ins")

STATE = {"scale": torch.tensor([0.1, 0.2, 0.3]), "backbone.weight": torch.ones(1, 3), "backbone.bias": torch.zeros(1)}

RNG = np.random.default_rng(0)
HR = RNG.integers(0, 256, (3, 24, 32), np.uint8)
SR = (HR + RNG.integers(-8, 8, HR.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def pyiqa(tmp_path, monkeypatch):
    """The stand-in, as if pyiqa 0.1.16 were installed, without weights; its module, which is imported by a score."""
    _install(tmp_path, monkeypatch, "0.1.16")
    for registry in (METRICS, NETWORKS):
        monkeypatch.setattr(registry, "_loaded", {})
    monkeypatch.delitem(sys.modules, "sgbench.metrics.ntire", raising=False)
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("SGBENCH_WEIGHTS", raising=False)
    from sgbench.metrics import pyiqa_models

    yield lambda: sys.modules["pyiqa"]
    pyiqa_models._made.cache_clear()
    theirs = [name for name in sys.modules if name.partition(".")[0] in ("pyiqa", "timm")]
    for name in (*theirs, "sgbench.metrics.ntire"):  # whose parts are those that it has found
        sys.modules.pop(name, None)


def _install(folder, monkeypatch, version):
    information = folder / "packages" / f"pyiqa-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pyiqa\nVersion: {version}\n")
    monkeypatch.syspath_prepend(information.parent)
    monkeypatch.syspath_prepend(STAND_INS)


def put(tmp_path, monkeypatch, file, content, digits=64):
    """Put a file where it is found, with a known hash, or with none."""
    folder = tmp_path / "cache" / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        (folder / file).write_bytes(content)
    else:
        torch.save(content, folder / file)
    digest = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    monkeypatch.setitem(files._KNOWN, file, digest[:digits])
    return digest


def scored(name, sr=SR, hr=HR):
    suite = Suite([name], Locator(download=False))
    suite.add(suite.measure(Pair("one", sr, hr, crop=4)))
    return suite.results()[0]


def test_a_metric_declares_what_pyiqa_says_of_it(pyiqa):
    metric = METRICS.load("pyiqa:maniqa")
    assert check_metrics(["pyiqa:maniqa"]) == ("pyiqa:maniqa",)
    assert (metric.direction, metric.needs_hr, metric.version) == ("higher", False, "pyiqa 0.1.16")
    assert metric.networks == ("pyiqa:ckpt_koniq10k.pt",)
    assert json.loads(json.dumps(metric.protocol)) == metric.protocol == {
        "implementation": "pyiqa.create_metric('maniqa')",
        "model": "Weighted",
        "colour_space": "RGB",
        "value_range": [0, 1],
        "border_crop": None,
        "resize": 224,
        "score_range": "~0, ~1",
        "options": "backbone=True, test_y_channel=False, color_space='yiq', crop_border=0, test_img_size=224, "
        "file='ckpt_koniq10k.pt'",
    }  # fmt: skip
    niqe, psnr = METRICS.load("pyiqa:niqe"), METRICS.load("pyiqa:psnr")
    assert (niqe.direction, niqe.protocol["colour_space"]) == ("lower", "Y of yiq")
    assert (psnr.direction, psnr.unit, psnr.needs_hr) == ("higher", "dB", True)
    assert "pyiqa" not in sys.modules, "the library is imported by the first score"


def test_pyiqa_gets_the_whole_image_in_the_range_from_0_to_1(pyiqa, capfd):
    mse = np.square(SR / 255 - HR / 255).mean()
    assert scored("pyiqa:psnr").score.value == pytest.approx(-10 * np.log10(mse + 1e-8), abs=1e-4)
    assert pyiqa().calls == [("psnr", torch.device("cpu"))]
    scored("pyiqa:psnr")
    assert len(pyiqa().calls) == 1
    assert capfd.readouterr() == ("", "")


def test_a_metric_with_another_value_for_the_same_image_is_refused(pyiqa):
    score = scored("pyiqa:entropy").score
    assert score.status == ScoreStatus.FAILED
    assert "pyiqa:entropy is 1." in score.reason or "pyiqa:entropy is 0." in score.reason
    assert "for one image, as it cuts out parts at random" in score.reason


def test_the_random_numbers_of_a_training_are_left_alone(pyiqa, tmp_path, monkeypatch):
    put(tmp_path, monkeypatch, "ckpt_koniq10k.pt", STATE)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    scored("pyiqa:entropy")
    scored("pyiqa:maniqa")
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())


def test_what_pyiqa_cannot_compute_is_undefined(pyiqa):
    small, flat = scored("pyiqa:piqe", SR[:, :, :8], HR[:, :, :8]).score, scored("pyiqa:piqe", 0 * SR).score
    assert small.status == flat.status == ScoreStatus.UNDEFINED
    assert small.reason.startswith("pyiqa cannot compute it for 8×24 pixels: RuntimeError: Padding size")
    assert flat.reason == "pyiqa's value for these 32×24 pixels is NaN"


def test_the_hash_of_a_checked_file_is_in_the_protocol(pyiqa, tmp_path, monkeypatch):
    digest = put(tmp_path, monkeypatch, "ckpt_koniq10k.pt", STATE)
    result = scored("pyiqa:maniqa")
    mean = (SR / 255).mean((1, 2))
    assert result.score.value == pytest.approx((mean * [0.1, 0.2, 0.3]).mean() + mean.sum(), abs=1e-5)
    assert result.protocol["weights"] == {"pyiqa:ckpt_koniq10k.pt": digest}
    assert not list((tmp_path / "torch").rglob("*"))


def test_without_its_weights_the_cell_names_the_file_and_its_place(pyiqa, tmp_path):
    score = scored("pyiqa:maniqa").score
    assert score.status == ScoreStatus.NO_WEIGHTS
    assert (
        "download ckpt_koniq10k.pt (543 MB) from https://huggingface.co/chaofengc/IQA-PyTorch-Weights" in score.reason
    )
    assert f"into {tmp_path / 'cache' / 'weights'}" in score.reason
    assert "`sgbench weights import ckpt_koniq10k.pt pyiqa:ckpt_koniq10k.pt`" in score.reason
    unknown = scored("pyiqa:niqe").score
    assert "sgbench does not download it, as its hash is not published" in unknown.reason
    assert "pyiqa" not in sys.modules


def test_a_file_of_another_name_is_not_downloaded(pyiqa, tmp_path, monkeypatch):
    put(tmp_path, monkeypatch, "musiq_koniq_ckpt-e95806b9.pth", STATE)
    score = scored("pyiqa:musiq").score
    assert score.status == ScoreStatus.NO_WEIGHTS
    assert score.reason == (
        "pyiqa:musiq asks for 'https://huggingface.co/somebody/renamed.pth', which sgbench does not know for this "
        "version of pyiqa."
    )


def test_a_value_that_no_file_sets_is_not_one_of_chance(pyiqa, tmp_path, monkeypatch):
    put(tmp_path, monkeypatch, "ckpt_koniq10k.pt", {"scale": torch.ones(3)})
    score = scored("pyiqa:maniqa").score
    assert score.status == ScoreStatus.FAILED
    assert "the file of pyiqa:maniqa lacks 'backbone.weight'" in score.reason


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


def test_a_file_without_a_published_hash_may_hold_tensors_only(pyiqa, tmp_path, monkeypatch):
    put(tmp_path, monkeypatch, "ckpt_kadid10k.pt", STATE, digits=0)
    assert scored("pyiqa:maniqa-kadid").score.value is not None
    put(tmp_path, monkeypatch, "ckpt_kadid10k.pt", {"scale": Evil()}, digits=0)
    monkeypatch.chdir(tmp_path)
    score = scored("pyiqa:maniqa-kadid").score
    assert score.status == ScoreStatus.FAILED
    assert "ckpt_kadid10k.pt' holds more than tensors, and is not read, as it might run code" in score.reason
    assert not (tmp_path / "evil").exists()


def test_a_file_is_imported_by_hand_and_checked_as_far_as_its_hash_is_published(pyiqa, tmp_path):
    assert NETWORKS.load("pyiqa:musiq_koniq_ckpt-e95806b9.pth").sha256 == "e95806b9"
    assert NETWORKS.load("pyiqa:niqe_modelparameters.mat").sha256 == ""
    brought = tmp_path / "brought"
    brought.write_text("0.5")
    with pytest.raises(InputError, match=r"but e95806b9… .* is needed"):
        install(brought, "pyiqa:musiq_koniq_ckpt-e95806b9.pth")
    assert install(brought, "pyiqa:niqe_modelparameters.mat").name == "niqe_modelparameters.mat"
    assert scored("pyiqa:niqe").score.value == pytest.approx(SR.mean() / 255 / 2, abs=1e-6)


def test_files_that_pyiqa_has_downloaded_before_are_found(pyiqa, tmp_path):
    for folder, file in (("pyiqa", "niqe_modelparameters.mat"), ("clip", "NRQM_model.mat")):
        path = tmp_path / "torch" / "hub" / folder / file
        path.parent.mkdir(parents=True)
        path.write_text("0.5")
        assert Locator(download=False).find(f"pyiqa:{file}") == path


@pytest.mark.parametrize("name", files.FILES)
def test_every_file_has_an_address(name):
    for file in files.FILES[name]:
        network = NETWORKS.load(f"pyiqa:{file}")
        assert network.url.endswith(f"/{file}")
        assert network.whole


def test_its_files_and_protocol_can_be_shown(pyiqa, tmp_path, monkeypatch):
    digest = put(tmp_path, monkeypatch, "ckpt_koniq10k.pt", STATE)
    called = CliRunner().invoke(app, ["metrics", "show", "pyiqa:maniqa", "pyiqa:musiq", "--json"])
    one, other = json.loads(called.stdout)
    assert one["networks"] == {"pyiqa:ckpt_koniq10k.pt": "here"}
    assert other["networks"] == {"pyiqa:musiq_koniq_ckpt-e95806b9.pth": "not here"}
    assert one["protocol"]["resize"] == 224
    (listed,) = json.loads(CliRunner().invoke(app, ["weights", "list", "pyiqa:ckpt_koniq10k.pt", "--json"]).stdout)
    assert (listed["sha256"], listed["needed_by"]) == (digest, ["ntire2025"])
    names = ["pyiqa:musiq_koniq_ckpt-e95806b9.pth", "pyiqa:niqe_modelparameters.mat"]
    lines = [line.strip() for line in CliRunner().invoke(app, ["weights", "list", *names]).stdout.splitlines()]
    assert "musiq_koniq_ckpt-e95806b9.pth, 109 MB, with a SHA-256 that begins with" in lines
    assert "niqe_modelparameters.mat; its SHA-256 is not published" in lines


def real(networks):
    locator = Locator(download=False)
    if lacking := [name for name in networks if locator.find(name) is None]:
        pytest.skip(f"not on this machine: `sgbench weights fetch {' '.join(lacking)}` brings it")
    return Runtime({name: locator.load(name) for name in networks})


@pytest.mark.parametrize(
    ("ours", "theirs", "bound"),
    [("lpips_alex", "lpips", 1e-6), ("dists", "dists", 1e-6), ("psnr_rgb", "psnr", 1e-4)],
)
def test_reference_pyiqa_gives_the_values_of_a_built_in_metric(ours, theirs, bound, agreement):
    metric = METRICS.load(ours)
    runtime = real(metric.networks)
    for name, (sr, hr) in published.photographs().items():
        difference = abs(metric.score(Pair(name, sr, hr, crop=0), runtime) - PUBLISHED["values"][theirs][name])
        agreement(ours, f"pyiqa {PUBLISHED['versions']['pyiqa']}", difference, bound)


def test_reference_pyiqa_has_another_luma_for_psnr_and_ssim():
    for name, (sr, hr) in published.photographs().items():
        pair, theirs = Pair(name, sr, hr, crop=0), {each: PUBLISHED["values"][each][name] for each in ("psnry", "ssim")}
        psnr, ssim = (METRICS.load(each).score(pair, Runtime()) for each in ("psnr_y", "ssim_y"))
        assert psnr - theirs["psnry"] == pytest.approx(20 * np.log10(255 / 219), abs=1e-3)
        assert 0.015 < ssim - theirs["ssim"] < 0.035


@pytest.mark.skipif(find_spec("pyiqa") is None, reason="pyiqa is not installed")
def test_reference_pyiqa_gives_its_own_values_by_its_names():
    for (image, (sr, hr)), name in product(published.photographs().items(), published.WITHOUT_WEIGHTS):
        value = METRICS.load(f"pyiqa:{name}").score(Pair(image, sr, hr, crop=published.SCALE), Runtime())
        assert value == pytest.approx(PUBLISHED["values"][name][image], rel=1e-6), name


def test_an_unknown_name_is_refused(pyiqa):
    with pytest.raises(InputError, match="unknown metric of pyiqa 'musik': did you mean 'musiq'"):
        METRICS.load("pyiqa:musik")
    with pytest.raises(InputError, match=r"^pyiqa 0.1.16 has no metric 'ssim'\.$"):
        METRICS.load("pyiqa:ssim")
    with pytest.raises(InputError, match=r"unknown file of pyiqa 'alexnet-features.pth'"):
        NETWORKS.load("pyiqa:alexnet-features.pth")


def test_without_pyiqa_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(METRICS, "_loaded", {})
    monkeypatch.setattr(from_pyiqa, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"need pyiqa \(not installed\); pip install 'sgbench\[pyiqa\]'"):
        METRICS.load("pyiqa:psnr")


def test_a_pyiqa_that_is_too_old_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(METRICS, "_loaded", {})
    _install(tmp_path, monkeypatch, "0.1.10")
    with pytest.raises(InputError, match=r"need pyiqa 0.1.14 or newer, and 0.1.10 is installed"):
        METRICS.load("pyiqa:psnr")
