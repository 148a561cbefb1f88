"""What ``sgbench eval`` says of images and networks that are not as they should be."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sgbench
from sgbench.backbones import build_backbone
from sgbench.data import read_image, write_png

SWEEP = ""

Run = Callable[..., tuple[str, str]]

pytestmark = pytest.mark.usefixtures("place")


def psnr() -> dict[str | None, tuple[str, str | None]]:
    """Return status and reason by image."""
    rows = sgbench.load_results("results/eval").scores.to_pylist()
    return {row["image"]: (row["status"], row["reason"]) for row in rows if row["metric"] == "psnr_rgb"}


def test_one_unreadable_file_among_a_hundred_is_named_and_the_rest_is_kept(run: Run) -> None:
    for number in range(100):
        image = np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)
        write_png(Path(f"hr/{number:02}.png"), image)
        write_png(Path(f"sr/{number:02}x4.png"), image[::-1])
    Path("sr/42x4.png").write_bytes(b"no picture")
    out, err = run("eval", "sr", "--test", "hundred=hr", "--metric", "psnr_rgb", code=1)
    assert "failed: image '42': 'sr/42x4.png' cannot be read as an image" in " ".join(out.split())
    assert err.startswith("sr: psnr_rgb on hundred: image '42': 'sr/42x4.png' cannot be read as an image: ")
    assert err.count("\n") == 1
    scores = psnr()
    assert Counter(status for status, _ in scores.values()) == {"ok": 99, "failed": 2}
    assert (scores["42"][0], scores[None][0]) == ("failed", "failed")


def test_an_unreadable_file_is_named_though_another_is_equal_to_its_reference(run: Run) -> None:
    write_png(Path("sr/photo0.png"), read_image(Path("test/photo0.png")))
    Path("sr/photo1.png").write_bytes(b"no picture")
    _, err = run("eval", "sr", "--test", "few=test", "--metric", "psnr_rgb", code=1)
    assert err.startswith("sr: psnr_rgb on few: image 'photo1': 'sr/photo1.png' cannot be read as an image: ")
    assert err.endswith("; image 'photo0': the images are identical\n")
    assert {image: status for image, (status, _) in psnr().items()} == {
        "photo0": "undefined",
        "photo1": "failed",
        None: "failed",
    }


def test_an_unreadable_reference_is_refused_by_name(run: Run) -> None:
    Path("test/photo1.png").write_bytes(b"no picture")
    _, err = run("eval", "bicubic", "--test", "few=test", "--metric", "psnr_rgb", code=2)
    assert err.startswith("error: '")
    assert "test/photo1.png' cannot be read as an image" in err
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("mode", "ending", "warning", "reason"),
    [
        ("L", "png", None, None),
        ("P", "png", None, None),
        ("1", "png", None, None),
        ("CMYK", "tif", "is CMYK and was converted to 8-bit RGB", None),
        ("I;16", "png", "is 16-bit and was converted to 8-bit RGB", None),
        ("RGBA", "png", None, "'sr/photo0.png' has an alpha channel or a transparent colour; only opaque images are"),
        ("F", "tif", None, "'sr/photo0.tif' holds pixels of an unusual kind (TIFF, mode F"),
    ],
)
def test_files_of_every_kind(run: Run, mode: str, ending: str, warning: str | None, reason: str | None) -> None:
    Path("sr").mkdir()
    for name in ("photo0", "photo1"):
        turned = read_image(Path(f"test/{name}.png"))[::-1]
        wide = turned[..., 0].astype(np.uint16) * 257
        image = Image.fromarray(wide) if mode == "I;16" else Image.fromarray(turned).convert(mode)
        image.save(f"sr/{name}.{ending}")
    _, err = run("eval", "sr", "--test", "few=test", "--metric", "psnr_rgb", code=1 if reason else 0)
    if warning:
        assert err.splitlines() == [f"warning: 'sr/{name}.{ending}' {warning}" for name in ("photo0", "photo1")]
    elif reason:
        assert err.startswith(f"sr: psnr_rgb on few: image 'photo0': {reason}")
    else:
        assert err == ""
    assert {status for status, _ in psnr().values()} == {"failed" if reason else "ok"}


def test_a_network_whose_output_has_a_nan_is_a_row_that_says_so(run: Run) -> None:
    weights = build_backbone("edsr-tiny", 4).state_dict()
    next(iter(weights.values())).fill_(torch.finfo(torch.float32).max)  # finite, but not what becomes of it
    torch.save(weights, "broken.pt")
    asked = ("--backbone", "edsr-tiny", "--test", "few=test", "--metric", "psnr_rgb")
    out, err = run("eval", "broken.pt", *asked, code=1)
    reason = "the network's output holds NaN or infinite values"
    assert f"failed: image 'photo0' and 1 more: {reason}" in " ".join(out.split())
    assert err == f"broken.pt: psnr_rgb on few: image 'photo0' and 1 more: {reason}\n"
    assert psnr()["photo1"] == ("failed", reason)


def test_files_without_a_reference_and_references_without_a_file_are_listed(run: Run) -> None:
    for name in ("photo0_SR", "photo1_sharp", "photo2"):
        write_png(Path(f"sr/{name}.png"), read_image(Path("test/photo0.png")))
    _, err = run("eval", "sr", "--test", "few=test", code=2)
    said = "'sr' has no super-resolved image for photo1, and no reference for photo1_sharp.png, photo2.png; a file must"
    assert err.startswith(f"error: {said} have its reference's name")
