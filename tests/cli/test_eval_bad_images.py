"""What ``sgbench eval`` says of images and networks that are not as they should be."""

import json
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
        assert err.startswith(f"sr: psnr_rgb on few: image 'photo0' and 1 more: {reason}")
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
    for name in ("photo0_SR", "photo1sharp", "photo2"):
        write_png(Path(f"sr/{name}.png"), read_image(Path("test/photo0.png")))
    _, err = run("eval", "sr", "--test", "few=test", code=2)
    assert err.startswith(
        "error: 'sr' has no super-resolved image for photo1 of few at ×4, and no reference for photo1sharp.png, "
        "photo2.png; a file's name begins with its reference's"
    )


def results_of(tool: str, *names: str) -> None:
    """Write a folder of images as a tool names them."""
    for name in names:
        write_png(Path(f"{tool}/{name}_{tool}.png"), read_image(Path(f"test/{name}.png"))[::-1])


def test_how_files_were_matched_is_said_and_kept(run: Run) -> None:
    results_of("SwinIR", "photo0", "photo1")
    write_png(Path("SwinIR/overview.png"), read_image(Path("test/photo0.png")))
    how = "SwinIR on few: matched 2 of 2 by the longest common stem: photo0_SwinIR.png → photo0, photo1_SwinIR.png → "
    out, err = run("eval", "SwinIR", "--test", "few=test", "--metric", "psnr_rgb", "--json")
    notes = [f"{how}photo1", "SwinIR: no image for overview.png"]
    assert err.splitlines() == notes
    assert json.loads(out)["notes"][-2:] == notes
    (row,) = sgbench.load_results("results/eval").runs.to_pylist()
    (files,) = json.loads(row["files"]).values()
    assert files == {"photo0": "photo0_SwinIR.png", "photo1": "photo1_SwinIR.png"}


def test_one_bad_folder_among_several_is_reported_and_the_others_are_scored(run: Run) -> None:
    results_of("HAT", "photo0", "photo1")
    results_of("EDSR", "photo1")
    write_png(Path("small/photo0.png"), read_image(Path("test/photo0.png"))[::2, ::2])
    write_png(Path("small/photo1.png"), read_image(Path("test/photo1.png")))
    asked = ("eval", "EDSR", "HAT", "nowhere", "small", "bicubic", "--test", "few=test", "--metric", "psnr_rgb")
    out, err = run(*asked, code=1)
    assert "HAT" in out
    assert "bicubic" in out
    assert "EDSR" not in out
    matched, *faults = err.splitlines()
    assert matched.startswith("HAT on few: matched 2 of 2")
    assert [fault.partition(";")[0].partition(":")[0] for fault in faults] == [
        "unknown subject 'nowhere'",
        "'EDSR' has no super-resolved image for photo0 of few at ×4",
        "'small/photo0.png'",
    ]
    scored = sgbench.load_results("results/eval")
    assert set(scored.runs["name"].to_pylist()) == {"HAT", "bicubic"}
    assert set(scored.scores["status"].to_pylist()) == {"ok"}
    with pytest.warns(UserWarning, match="'EDSR' has no super-resolved image"):
        results = sgbench.evaluate(["EDSR", "bicubic"], "few=test", metrics="psnr_rgb", results="results/api")
    assert results.runs["name"].to_pylist() == ["bicubic"]


def test_a_folder_without_images_for_one_set_is_scored_on_the_others(run: Run) -> None:
    results_of("HAT", "photo0", "photo1")
    write_png(Path("other/cat.png"), read_image(Path("test/photo0.png")))
    out, err = run("eval", "HAT", "--test", "few=test", "--test", "cats=other", "--metric", "psnr_rgb", code=1)
    assert "cats" not in out
    assert err.splitlines()[1].startswith("'HAT' has no super-resolved image for cat of cats at ×4")
    _, err = run("eval", "HAT", "bicubic", "--test", "few=test", "--test", "cats=absent", code=2)
    assert err.startswith("error: there is no folder")
    _, err = run("eval", "HAT", "nowhere", "--test", "cats=other", "--results", "none", code=2)
    note, error = err.splitlines()
    assert note.startswith("note: 'HAT' has no super-resolved image")
    assert error.startswith("error: unknown subject 'nowhere'")
    assert not Path("none").exists()


def test_results_of_another_scale_are_told_by_their_names(run: Run) -> None:
    for name in ("photo0", "photo1"):
        write_png(Path(f"sr/{name}_x2_HAT.png"), read_image(Path(f"test/{name}.png"))[::-1])
    _, err = run("eval", "sr", "--test", "few=test", "--metric", "psnr_rgb", code=2)
    assert err == "error: 'sr' has images of few at ×2, by their names; give --scale 2.\n"
    run("eval", "sr", "--test", "few=test", "--metric", "psnr_rgb", "--scale", "2")


def test_folders_of_one_name_are_told_apart_and_may_be_given_names(run: Run) -> None:
    for tool, turned in (("EDSR", slice(None, None, -1)), ("HAT", slice(None))):
        for name in ("photo0", "photo1"):
            write_png(
                Path(f"{tool}/visualization/few/{name}_{tool}.png"), read_image(Path(f"test/{name}.png"))[:, turned]
            )
    asked = ("--test", "few=test", "--metric", "ssim_y", "--json")

    def names(*what: str) -> list[str]:
        return [line["backbone"] for line in json.loads(run("eval", *what, *asked)[0])["lines"]]

    assert names("EDSR/visualization/few", "HAT/visualization/few") == [
        "EDSR/visualization/few",
        "HAT/visualization/few",
    ]
    assert names("HAT/visualization/few") == ["HAT/visualization/few"]
    assert names("mine=HAT/visualization/few", "cubic=bicubic") == ["cubic", "mine"]
    for what, says in (
        ("HAT", "'HAT' holds no image, but folders in it do; give one of them: HAT/visualization/few."),
        (
            "HAT/visualization/few/photo0_HAT.png",
            "single images cannot be scored; give their folder, 'HAT/visualization/few'",
        ),
        (" =bicubic", "' ' is no name for a table; up to 80 printable characters are needed."),
    ):
        assert says in run("eval", what, *asked, code=2)[1]


def test_a_folder_may_hold_a_folder_of_images_for_each_test_set(run: Run) -> None:
    write_png(Path("one/photo.png"), read_image(Path("test/photo0.png")))
    results_of("HAT", "photo0", "photo1")
    Path("all").mkdir()
    Path("HAT").rename("all/few")
    write_png(Path("all/one/photo_HAT.png"), read_image(Path("test/photo0.png"))[::-1])
    asked = ("--test", "few=test", "--test", "one=one", "--metric", "psnr_rgb")
    run("eval", "all", *asked)
    assert {(row["dataset"], row["status"]) for row in sgbench.load_results("results/eval").scores.to_pylist()} == {
        ("few", "ok"),
        ("one", "ok"),
    }
    _, err = run("eval", "all", *asked, "--test", "cats=one", code=1)
    assert err.splitlines()[-1] == "'all' has no images itself, and no folder 'cats' of them, only few, one."
