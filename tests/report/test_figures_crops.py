"""Parts of images: those that are chosen, what is shown of them, and what is said where an image is missing."""

import datetime
import itertools
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from sgbench.analysis import Filters, Results, View
from sgbench.assets.base import LoadedWeights, MissingWeights
from sgbench.assets.locator import Locator
from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.data import PackedImages, Pixels, default_cache, encode_png, prepare, resolve, write_png
from sgbench.metrics import Pair, Runtime
from sgbench.metrics.lpips import lpips_alex
from sgbench.report.figures.crops import draw_crops, find_crops
from sgbench.report.figures.differences import lpips_differences
from sgbench.report.figures.regions import SEEN, STRIDE, WINDOW, Box, Map, extreme_regions
from sgbench.report.figures.saved_images import SavedImages
from sgbench.report.figures.style import FORMATS, WIDTHS, encode
from sgbench.spec import Degradation
from sgbench.store import Dataset
from sgbench.store.schema import to_table

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
L1, SG = "l1", "l1 + 1.0*sg"
SCALE = 4
GAIN, LOSS = Box(8, 8, WINDOW, WINDOW), Box(116, 8, WINDOW, WINDOW)
"""Where, in image ``a``, SG is nearer to the HR image and farther from it."""

pytestmark = pytest.mark.usefixtures("alexnet")


def image(height: int, width: int, seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(60, 160, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def saved(tmp_path: Path, cache: Path) -> SavedImages:
    """A set of a large image ``a`` and a small one ``b``, and a store without images of it."""
    for name, (height, width) in {"a": (64, 176), "b": (36, 40)}.items():
        write_png(tmp_path / "set" / f"{name}.png", image(height, width, ord(name)))
    reference = f"Photos={tmp_path / 'set'}"
    packed = prepare(resolve(reference, "test"), scale=SCALE, degradation=Degradation(), cache=default_cache())
    return SavedImages(Storage(str(tmp_path / "store")), packed, reference)


def restored(packed: PackedImages, index: int, loss: str) -> Pixels:
    """L1 is half noise everywhere; SG is right in `GAIN` and nothing but noise in `LOSS`."""
    hr = packed.hr(index)
    noise = image(*hr.shape[:2], 5)
    sr = hr // 2 + noise // 2
    if loss == SG and index == 0:
        GAIN.of(sr)[:] = GAIN.of(hr)
        LOSS.of(sr)[:] = LOSS.of(noise)
    return sr


def keep(saved: SavedImages, run_id: str, loss: str) -> None:
    folder = Dataset(saved.images.name, saved.images.sha256).versioned
    for index, each in enumerate(saved.images.images):
        pixels = restored(saved.images, index, loss)
        saved.storage.write(f"images/{run_id}/{folder}/{each.name}.png", encode_png(pixels))


def seen(index: int, difference: Map) -> tuple[int, Map, Map]:
    """Return the maps of an image with an error that is visible everywhere."""
    return index, difference, np.full_like(difference, SEEN)


def run(run_id: str, loss: str, seed: int = 0, backbone: str = "edsr-tiny", scale: int = 4, **columns: Any) -> Any:
    row = {"run_id": run_id, "kind": "train", "name": run_id, "backbone": backbone, "loss": loss, "seed": seed}
    row |= {"scale": scale, "train": "demo", "train_sha256": "ab" * 32, "status": "done"}
    return row | {"spec": json.dumps({"recipe": {"scale": scale}})} | columns


def score(
    saved: SavedImages, run_id: str, name: str | None, value: float, metric: str = "lpips_alex"
) -> dict[str, Any]:
    row = {"run_id": run_id, "dataset": "Photos", "dataset_sha256": saved.images.sha256, "image": name}
    row |= {"metric": metric, "metric_version": "1", "protocol": '{"direction":"lower"}', "n_images": 2}
    return row | {"value": value, "status": "ok", "scored": NOW}


def results(saved: SavedImages, runs: list[dict[str, Any]]) -> View:
    scores = [
        score(saved, row["run_id"], name, 0.1 * at + 0.01 * place)
        for at, row in enumerate(runs, 1)
        for place, name in enumerate([None, "a", "b"])
    ]
    return View(Results.of(to_table("runs", runs), to_table("scores", scores), to_table("history", [])))


@pytest.fixture
def two(saved: SavedImages) -> View:
    """A run of each loss, whose images are kept."""
    keep(saved, "aaaa", L1)
    keep(saved, "bbbb", SG)
    return results(saved, [run("aaaa", L1), run("bbbb", SG)])


def draw(shown: View, saved: SavedImages, *, losses: list[str] | None = None, **options: Any) -> Figure:
    return draw_crops(shown, find_crops(shown, Filters(losses=losses)), saved, **options)


def captions(figure: Figure) -> list[str]:
    return [axes.get_xlabel() for axes in figure.axes]


def said(figure: Figure) -> str:
    return " ".join(" ".join(text.get_text() for text in figure.texts).split())


def marked(figure: Figure, panel: int) -> Box:
    mark = figure.axes[panel].patches[0]
    left, top = mark.get_xy()
    return Box(round(left + 0.5), round(top + 0.5), round(mark.get_width()), round(mark.get_height()))


def near(box: Box, other: Box) -> bool:
    return max(abs(box.left - other.left), abs(box.top - other.top)) <= 2 * STRIDE


def pixels(figure: Figure, panel: int) -> Pixels:
    return np.asarray(figure.axes[panel].images[0].get_array())


# Where losses differ


@given(st.integers(WINDOW, WINDOW + 3 * STRIDE + 1), st.integers(WINDOW, 3 * WINDOW), st.integers(0, 9))
def test_regions_are_the_windows_of_extreme_mean(height: int, width: int, border: int) -> None:
    difference = np.random.default_rng(height * width).normal(size=(height + 2 * border, width + 2 * border))
    means = {
        (left, top): difference[top : top + WINDOW, left : left + WINDOW].mean()
        for top in range(border, border + height - WINDOW + 1, STRIDE)
        for left in range(border, border + width - WINDOW + 1, STRIDE)
    }
    found = extreme_regions([seen(7, difference)], 1, border)
    best = min(means, key=lambda place: means[place])
    apart = {place: mean for place, mean in means.items() if abs(place[0] - best[0]) >= WINDOW}
    assert len(found) == (2 if apart else 0)
    if apart:
        worst = max(apart, key=lambda place: apart[place])
        assert [(each.box.left, each.box.top) for each in found] == [best, worst]
        assert found[0].label.endswith(
            f": {means[best]:+.4f} in\N{NO-BREAK SPACE}the\N{NO-BREAK SPACE}box".replace("-", "−")
        )


def test_as_many_losses_as_gains_are_found_over_all_images_and_none_overlap() -> None:
    maps = [seen(index, np.random.default_rng(index).normal(size=(200, 260))) for index in range(3)]
    found = extreme_regions(maps, 3, 0)
    kinds = [region.label.partition(":")[0] for region in found]
    assert kinds == ["largest gain"] * 3 + ["largest loss"] * 3
    for at, one in enumerate(found):
        for other in found[at + 1 :]:
            apart = abs(one.box.left - other.box.left) >= WINDOW or abs(one.box.top - other.box.top) >= WINDOW
            assert one.index != other.index or apart


def test_what_is_no_gain_is_not_called_one() -> None:
    worse = [region.label for region in extreme_regions([seen(0, np.full((48, 96), 0.25))], 1, 0)]
    better = [region.label for region in extreme_regions([seen(0, np.full((48, 96), -0.25))], 1, 0)]
    assert worse == [
        "smallest loss: +0.2500 in\N{NO-BREAK SPACE}the\N{NO-BREAK SPACE}box",
        "largest loss: +0.2500 in\N{NO-BREAK SPACE}the\N{NO-BREAK SPACE}box",
    ]
    assert better == [
        "largest gain: −0.2500 in\N{NO-BREAK SPACE}the\N{NO-BREAK SPACE}box",
        "smallest gain: −0.2500 in\N{NO-BREAK SPACE}the\N{NO-BREAK SPACE}box",
    ]


def test_where_no_error_is_to_be_seen_there_is_no_region() -> None:
    difference, error = np.zeros((48, 300)), np.full((48, 300), SEEN)
    difference[:, :48], error[:, :48] = -1, SEEN / 2
    difference[:, 100:148], difference[:, 200:248] = -0.5, 0.5
    found = extreme_regions([(0, difference, error)], 1, 0)
    assert [region.box.left for region in found] == [100, 200]


def test_images_without_room_have_no_regions() -> None:
    assert extreme_regions([seen(0, np.zeros((47, 200))), seen(1, np.zeros((48, 90)))], 2, 0) == []
    assert extreme_regions([seen(0, np.zeros((6, 6))), seen(1, np.zeros((55, 200)))], 2, 4) == []


def test_differences_are_those_of_lpips_and_negative_where_the_second_is_nearer(
    two: View, saved: SavedImages, alexnet_weights: LoadedWeights
) -> None:
    ((index, difference, error),) = lpips_differences(saved, "aaaa", "bbbb", [0])
    assert index == 0
    sides = [
        pixels.transpose(2, 0, 1)
        for pixels in (restored(saved.images, 0, L1), restored(saved.images, 0, SG), saved.images.hr(0))
    ]
    runtime = Runtime({"alexnet": alexnet_weights})
    of_l1, of_sg = (lpips_alex.map(Pair("a", sr, sides[2], SCALE), runtime) for sr in sides[:2])
    assert np.array_equal(difference, of_sg - of_l1)
    errors = [np.abs(sr.astype(float) - sides[2]).mean(axis=0) for sr in sides[:2]]
    assert np.allclose(error, np.max(errors, axis=0))
    assert GAIN.of(difference).mean() < 0 < LOSS.of(difference).mean()


# What is shown


def test_the_largest_gain_and_the_largest_loss_are_shown_and_called_so(two: View, saved: SavedImages) -> None:
    figure = draw(two, saved, regions=1)
    assert len(figure.axes) == 8
    ((_, difference, _),) = lpips_differences(saved, "aaaa", "bbbb", [0])
    labels = []
    for row, planted in enumerate((GAIN, LOSS)):
        box = marked(figure, 4 * row)
        assert near(box, planted)
        assert np.array_equal(pixels(figure, 4 * row), saved.images.hr(0))
        assert np.array_equal(pixels(figure, 4 * row + 1), box.of(saved.images.hr(0)))
        assert np.array_equal(pixels(figure, 4 * row + 2), box.of(restored(saved.images, 0, L1)))
        assert np.array_equal(pixels(figure, 4 * row + 3), box.of(restored(saved.images, 0, SG)))
        labels.append(f"{box.of(difference).mean():+.4f}".replace("-", "−"))
    assert captions(figure)[::4] == [
        f"a\nlargest gain: {labels[0]} in\N{NO-BREAK SPACE}the\N{NO-BREAK SPACE}box",
        f"a\nlargest loss: {labels[1]} in\N{NO-BREAK SPACE}the\N{NO-BREAK SPACE}box",
    ]
    assert [axes.get_title() for axes in figure.axes[:4]] == ["", "HR", L1, SG]
    assert "Parts were chosen by LPIPS (AlexNet), as many gains as losses" in said(figure)
    assert f"its map with {SG} is lowest, and highest, relative to that with {L1}" in said(figure)


def test_parts_keep_away_from_the_border_that_other_metrics_leave_out(two: View, saved: SavedImages) -> None:
    figure = draw(two, saved, regions=3)
    assert len(figure.axes) == 8  # there is room for one gain and one loss
    for panel in (0, 4):
        box = marked(figure, panel)
        assert min(box.left, box.top, 176 - box.left - box.width, 64 - box.top - box.height) >= SCALE
    assert "of the 2 images without the outer 4 pixels" in said(figure)


def test_scores_below_a_part_are_those_of_its_whole_image(two: View, saved: SavedImages) -> None:
    figure = draw(two, saved, regions=1)
    assert captions(figure)[1:4] == ["", "0.1100", "0.2100"]  # of image a, not of the set
    assert "Photos ×4; edsr-tiny, seed 0. Numbers: lpips_alex ↓ of the whole image." in said(figure)


def test_a_loss_of_which_no_run_is_done_is_left_out_unless_it_is_named(two: View, saved: SavedImages) -> None:
    lost = run("cccc", "l2", status="failed", error="loss is NaN", step=7)
    shown = results(saved, [run("aaaa", L1), run("bbbb", SG), lost])
    assert find_crops(shown).losses == (L1, SG)
    assert "Left out: edsr-tiny · l2 · seed 0: failed at step 7: loss is NaN." in said(draw(shown, saved, regions=1))
    with pytest.raises(InputError, match="no seed of edsr-tiny is done with all of l1; l2; choose"):
        find_crops(shown, Filters(losses=[L1, "l2"]))


def test_of_the_scores_of_a_store_only_those_that_are_shown_become_objects(
    two: View, saved: SavedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted: list[int] = []
    filtered = View.of_images

    class Counted:
        def __init__(self, rows: pa.Table) -> None:
            self.rows = rows

        def __getitem__(self, name: str) -> pa.ChunkedArray:
            return self.rows[name]

        def filter(self, mask: pa.ChunkedArray) -> "Counted":
            return Counted(self.rows.filter(mask))

        def to_pylist(self) -> list[dict[str, Any]]:
            converted.append(self.rows.num_rows)
            return self.rows.to_pylist()

    monkeypatch.setattr(View, "of_images", lambda *arguments: Counted(filtered(*arguments)))
    draw(two, saved, image="a", box=GAIN)
    assert converted == [2]  # one image of two runs; the store has 4 scores of images


def test_a_score_of_other_pixels_is_not_shown(two: View, saved: SavedImages) -> None:
    scores = [{**row, "dataset_sha256": "0" * 64} for row in two.results.scores.to_pylist()]
    for row in scores:
        del row["schema_version"]
    figure = draw(View(Results.of(two.rows(), to_table("scores", scores))), saved, regions=1)
    assert captions(figure)[2:4] == ["not scored", "not scored"]


def test_a_box_is_shown_of_the_image_that_is_named(two: View, saved: SavedImages) -> None:
    box = Box(3, 5, 20, 10)
    figure = draw(two, saved, image="b", box=box)
    assert [pixels(figure, panel).shape for panel in range(4)] == [(36, 40, 3), *[(10, 20, 3)] * 3]
    assert np.array_equal(pixels(figure, 3), box.of(restored(saved.images, 1, SG)))
    assert captions(figure) == ["b", "", "0.1200", "0.2200"]
    assert "The part, 3,5,20,10 (left, top, width, height), was chosen by hand." in said(figure)


def test_losses_come_in_the_order_in_which_they_are_named(two: View, saved: SavedImages) -> None:
    figure = draw(two, saved, losses=["sg + l1", "l1"], regions=1)
    assert [axes.get_title() for axes in figure.axes[2:4]] == [SG, L1]
    assert near(marked(figure, 0), LOSS)
    assert near(marked(figure, 4), GAIN)
    assert [about.partition(":")[0] for about in captions(figure)[::4]] == ["a\nlargest gain", "a\nlargest loss"]


def test_regions_are_chosen_between_the_first_and_the_last_loss_that_is_named(two: View, saved: SavedImages) -> None:
    keep(saved, "cccc", "l2")
    runs = [run("aaaa", L1), run("bbbb", SG), run("cccc", "l2")]
    shown = results(saved, runs)
    assert find_crops(shown, Filters(losses=[L1, "l2", SG])).pair == (L1, SG)
    assert find_crops(shown).pair is None
    figure = draw(shown, saved, losses=[L1, "l2", SG], regions=1)
    assert near(marked(figure, 0), GAIN)
    assert near(marked(figure, 5), LOSS)


def test_each_backbone_has_rows_of_its_own(saved: SavedImages) -> None:
    runs = [run("aaaa", L1), run("bbbb", SG), run("cccc", L1, backbone="rdn-tiny")]
    for row in runs:
        keep(saved, row["run_id"], row["loss"])
    figure = draw(results(saved, runs), saved, image="a", box=GAIN)
    assert captions(figure) == ["edsr-tiny\na", "", "0.1100", "0.2100", "rdn-tiny\na", "", "0.3100", "no run"]


def test_runs_of_the_first_seed_that_all_losses_have_are_shown(saved: SavedImages) -> None:
    runs = [run("a0", L1), run("a1", L1, 1), run("a2", L1, 2), run("b0", SG, status="failed"), run("b1", SG, 1)]
    found = find_crops(results(saved, runs))
    assert {loss: run.run_id for loss, run in found.runs["edsr-tiny"].items()} == {L1: "a1", SG: "b1"}


def test_a_run_with_whose_weights_the_others_start_is_left_out(saved: SavedImages) -> None:
    start = run("aaaa", L1, 100, steps=1200)
    found = find_crops(results(saved, [start, run("bbbb", L1, steps=600), run("cccc", SG, steps=600)]))
    assert {loss: run.run_id for loss, run in found.runs["edsr-tiny"].items()} == {L1: "bbbb", SG: "cccc"}
    (note,) = found.left_out
    assert re.fullmatch(
        r"Left out: edsr-tiny · l1, steps=1200 · seed 100: another recipe, and no seed in common\.", note
    )


@pytest.mark.parametrize("columns", [1, 2])
def test_nothing_is_cut(two: View, saved: SavedImages, columns: int) -> None:
    figure = draw(two, saved, regions=1, columns=columns)
    assert all(re.search(r"[−+]0\.\d{4}\s", about) for about in captions(figure)[::4])
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * figure.dpi
    assert width == WIDTHS[columns] * figure.dpi
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    for one, other in itertools.combinations(boxes, 2):
        assert Bbox.intersection(one, other) is None
    for box in boxes:
        assert (box.x0 >= -1, box.y0 >= -1, box.x1 <= width + 1, box.y1 <= height + 1) == (True,) * 4
        assert all(text.get_window_extent().y1 <= box.y0 + 1 for text in figure.texts)


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_images_are_the_same_bytes(two: View, saved: SavedImages, form: str) -> None:
    first, second = (encode(draw(two, saved, image="a", box=GAIN), form) for _ in range(2))
    assert first == second


# What cannot be shown


def test_images_that_were_not_kept_are_asked_for_by_the_exact_command(saved: SavedImages) -> None:
    keep(saved, "aaaa", L1)
    saved.storage.write("weights/bbbb.pt", b"")
    shown = results(saved, [run("aaaa", L1), run("bbbb", SG)])
    with pytest.raises(InputError) as error:
        draw(shown, saved)
    said, _, command = str(error.value).partition(": ")
    assert said == "images of 1 run were not kept; this keeps them"
    assert shlex.split(command) == [
        *("sgbench", "eval", "bbbb", "--results", str(saved.storage), "--test", saved.reference),
        *("--metric", "psnr_y", "--save-images"),
    ]


def test_an_image_that_is_damaged_or_of_another_size_is_named(two: View, saved: SavedImages) -> None:
    name = saved._file("bbbb", 0)
    saved.storage.write(name, b"no image")
    with pytest.raises(InputError, match=rf"{re.escape(name)}' cannot be read as an image"):
        draw(two, saved)
    saved.storage.write(name, encode_png(image(4, 4, 0)))
    with pytest.raises(InputError, match=rf"{re.escape(name)}' is not 176×64 pixels; it was made of another Photos"):
        draw(two, saved)


def test_without_the_weights_of_lpips_they_are_asked_for_and_a_part_is_shown_that_is_chosen_by_hand(
    two: View, saved: SavedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(locator: Locator, name: str) -> LoadedWeights:
        raise MissingWeights(f"the {name} weights are not on this machine")

    monkeypatch.setattr(Locator, "load", missing)
    with pytest.raises(InputError) as error:
        draw(two, saved)
    assert str(error.value) == (
        "parts are chosen by LPIPS, and the alexnet weights are not on this machine; `sgbench weights fetch alexnet` "
        "brings them, or choose a part with --image and --box."
    )
    assert len(draw(two, saved, image="a", box=GAIN).axes) == 4


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"image": "c"}, "--image is 'c'; Photos has a, b."),
        ({"box": GAIN}, "--box is 8,8,48,48, without --image; the name of the image that it is a part of is needed."),
        ({"image": "b", "box": GAIN}, "--box is 8,8,48,48; a part of 'b' is needed, 40 pixels wide and 36 high."),
        ({"image": "a", "box": Box(0, 0, 0, 9)}, "--box is 0,0,0,9; a part of 'a' is needed"),
        ({"image": "a", "box": Box(-1, 0, 9, 9)}, "--box is -1,0,9,9; a part of 'a' is needed"),
        ({"image": "b"}, "no image has two windows of 48×48 pixels inside a border of 4 in which an error is visible"),
        ({"metrics": ["fid"]}, "unknown metric 'fid'"),
        (
            {"losses": ["l1"]},
            "regions are chosen between two losses, and there are 1 (l1); name those two first and last",
        ),
        ({"losses": ["l2"]}, "unknown loss 'l2'"),
    ],
)
def test_bad_input_is_one_sentence(two: View, saved: SavedImages, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)) as error:
        draw(two, saved, **options)
    assert "\n" not in str(error.value)


def fail(find: Callable[[], object], sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        find()


def test_runs_that_do_not_go_together_are_refused(saved: SavedImages) -> None:
    apart = results(saved, [run("a", L1), run("b", SG, 1)])
    fail(lambda: find_crops(apart), f"no seed of edsr-tiny is done with all of {L1}; {SG}; choose with --loss")
    scales = results(saved, [run("a", L1), run("b", L1, backbone="rdn-tiny", scale=2)])
    fail(lambda: find_crops(scales), "the runs are of several scales or degradations; choose some with --loss")
    untrained = {"run_id": "c", "kind": "builtin", "name": "bicubic", "scale": 4, "status": "done"}
    fail(lambda: find_crops(results(saved, [untrained])), "no trained run is left of which images could be shown.")
    three = results(saved, [run("a", L1), run("b", SG), run("c", "l2")])
    fail(lambda: draw(three, saved), f"there are 3 ({L1}; {SG}; l2); name those two first and last with --loss")
    partial = results(saved, [run("a", L1), run("b", SG), run("c", SG, backbone="rdn-tiny")])
    fail(lambda: draw(partial, saved), "of rdn-tiny there is no run with l1; choose others with --loss or --backbone.")


def test_more_losses_than_fit_beside_each_other_are_refused(saved: SavedImages) -> None:
    runs = [run(f"a{at}", f"l1 + {at}.0*sg") for at in range(1, 5)]
    for row in runs:
        keep(saved, row["run_id"], row["loss"])
    shown = results(saved, runs)
    fail(
        lambda: draw(shown, saved, image="a", box=GAIN, columns=1),
        "4 losses do not fit beside each other, 2 do; choose with --loss.",
    )
