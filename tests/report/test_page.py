"""A store as a page: what it says, what it never says, and that nothing of a store becomes markup."""

import base64
import copy
import hashlib
import io
import json
import math
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import page_store
import pytest
from page_store import EVIL, IMAGES, L1, SG
from PIL import Image

from sgbench.analysis import Results, View, compare, load_results
from sgbench.analysis.anytime import SeedSequence
from sgbench.analysis.compare import Comparison, Verdict
from sgbench.analysis.stats import Estimate, Interval
from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.data import PackedImages, encode_png
from sgbench.report import page
from sgbench.report.page import gallery, render
from sgbench.report.page.grids import of_comparisons
from sgbench.report.page.summary import counted, findings
from sgbench.store import Store

INCONCLUSIVE, NOT_SIGNIFICANT, SIGNIFICANT = Verdict.INCONCLUSIVE, Verdict.NOT_SIGNIFICANT, Verdict.SIGNIFICANT


class Elements(HTMLParser):
    """The elements of a page, each with its attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] not in ("script", "style"):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedImages:
    folder = tmp_path_factory.mktemp("set")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGBENCH_CACHE", str(folder / "cache"))
        return page_store.test_set(folder / "HR")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, packed: PackedImages) -> Path:
    return page_store.made(tmp_path_factory.mktemp("store"), packed)


@pytest.fixture(scope="module")
def whole(store: Path, packed: PackedImages, alexnet: None) -> page.Content:
    return page_store.content(store, packed)


@pytest.fixture(scope="module")
def html(whole: page.Content) -> str:
    return render(whole)


@pytest.fixture(scope="module")
def elements(html: str) -> Elements:
    return Elements(html)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out figures, which take most of the time, of all pages but the one that the fixtures share."""
    monkeypatch.setattr("sgbench.report.page.content.pictures", lambda *_: [])


def cell(verdict: str, difference: float = -0.1, **fields: Any) -> Comparison:
    known: dict[str, Any] = {"metric": "lpips_alex", "direction": "lower", "dataset": "Set14", "backbone": "edsr-tiny"}
    known |= {"scale": 4, "recipe": "", "a": L1, "b": SG, "label_a": L1, "label_b": SG, "alpha": 0.05, "seeds": (0, 1)}
    return Comparison(**known | {"verdict": verdict, "mean_a": 0.4, "mean_b": 0.4 + difference} | fields)


# The summary


def told(cells: list[Comparison]) -> dict[str, str]:
    return {each.metrics.replace("\N{NO-BREAK SPACE}", " "): each.told for each in findings(cells)}


def test_a_real_difference_is_told_with_its_side_place_and_amount() -> None:
    cells = [
        cell(SIGNIFICANT),
        cell(SIGNIFICANT, -0.2, dataset="Set5"),
        cell(SIGNIFICANT, 0.1, backbone="rdn-tiny"),
    ]
    assert told(cells) == {
        "lpips_alex ↓": (
            "l1 + 1.0*sg is significantly better than l1 on Set14 and Set5 with edsr-tiny, by 0.1000 to 0.2000 "
            "(25.0% to 50.0%). l1 + 1.0*sg is significantly worse than l1 on Set14 with rdn-tiny, by 0.1000 (25.0%)."
        )
    }


def test_what_is_equivalent_is_told_with_its_margin() -> None:
    cells = [cell(Verdict.EQUIVALENT, -0.01, margin=0.05, dataset="all sets"), cell(NOT_SIGNIFICANT, margin=0.05)]
    assert told(cells) == {
        "lpips_alex ↓": (
            "l1 + 1.0*sg is equivalent to l1 within 0.05 on all sets with edsr-tiny. "
            "No difference is significant on Set14 with edsr-tiny."
        )
    }


def test_of_a_metric_without_a_direction_nothing_is_called_better() -> None:
    assert told([cell(SIGNIFICANT, direction=None)]) == {
        "lpips_alex": "l1 + 1.0*sg is significantly different from l1 on Set14 with edsr-tiny, by 0.1000 (25.0%)."
    }


def test_a_score_of_zero_has_no_percent() -> None:
    assert told([cell(SIGNIFICANT, mean_a=0.0, mean_b=0.1)]) == {
        "lpips_alex ↓": "l1 + 1.0*sg is significantly worse than l1 on Set14 with edsr-tiny, by 0.1000."
    }


def test_what_is_not_shown_or_undecided_is_neither_better_nor_worse_however_large() -> None:
    cells = [
        cell(INCONCLUSIVE, -0.3, dataset="Set5", reason="p is too large"),
        cell(NOT_SIGNIFICANT, -0.3),
    ]
    assert told(cells) == {
        "lpips_alex ↓": (
            "No difference is significant on Set14 with edsr-tiny. The comparison is inconclusive on Set5 with "
            "edsr-tiny."
        )
    }


def test_metrics_that_found_the_same_in_the_same_places_share_a_sentence_in_the_usual_order() -> None:
    cells = [cell(NOT_SIGNIFICANT, metric=name) for name in ("ssim_y", "psnr_y", "fd_alex")]
    assert list(told(cells)) == ["fd_alex ↓, psnr_y ↓ and ssim_y ↓"]
    assert len(told([*cells, cell(NOT_SIGNIFICANT, metric="psnr_y", dataset="Set5")])) == 2


def test_metrics_that_share_a_sentence_each_have_their_amount() -> None:
    cells = [cell(SIGNIFICANT, -0.3, metric="ssim_y"), cell(SIGNIFICANT)]
    assert told(cells) == {
        "lpips_alex ↓ and ssim_y ↓": (
            "l1 + 1.0*sg is significantly better than l1 on Set14 with edsr-tiny, by 0.1000 (25.0%) in lpips_alex and "
            "0.3000 (75.0%) in ssim_y."
        )
    }


def test_recipes_are_told_apart() -> None:
    assert "with edsr-tiny (steps=10)." in told([cell(NOT_SIGNIFICANT, recipe="steps=10")])["lpips_alex ↓"]


def test_runs_are_counted_by_what_became_of_them(store: Path) -> None:
    results = load_results(str(store))
    assert counted(View(results)) == "11 runs: 9 done, 1 failed and 1 pending."
    none, first = results.runs.slice(0, 0), results.runs.slice(0, 1)
    assert counted(View(Results.of(none, results.scores))) == "0 runs: 0 done, 0 failed and 0 pending."
    others = first.set_column(first.schema.get_field_index("kind"), "kind", [["builtin"]])
    assert (
        counted(View(Results.of(others, results.scores)))
        == "0 runs: 0 done, 0 failed and 0 pending. 1 other subject was scored without training."
    )


def test_the_summary_says_of_a_store_what_is_true_of_it(whole: page.Content) -> None:
    duel = whole.duels[0]
    assert duel.loss == SG
    lpips, psnr = duel.findings
    assert lpips.told.startswith("l1 + 1.0*sg is significantly better than l1 on Photos with edsr-tiny, by 0.100")
    assert psnr.told == "No difference is significant on Photos with edsr-tiny."
    assert whole.remarks == ["There is no number by fid: no weights."]


@pytest.mark.parametrize(
    ("filters", "remark"),
    [
        ({"losses": [L1]}, "To be compared, losses need runs with l1 and with another one."),
        ({"losses": [SG], "metrics": ["fid"]}, f"Not compared, for no seed has scores of both l1 and the other: {SG}."),
    ],
)
def test_what_cannot_be_compared_says_so(store: Path, filters: dict[str, Any], remark: str) -> None:
    shown = page_store.content(store, **filters)
    assert not shown.duels
    assert shown.remarks[0] == remark
    assert "There is nothing to compare yet." in render(shown)


def test_why_comparisons_are_inconclusive_is_said_once(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "with 5 images p cannot go under 0.0625"
    cells = [cell(INCONCLUSIVE, metric=name, dataset=place, reason=reason) for name in "ab" for place in "xy"]
    monkeypatch.setattr("sgbench.report.page.content.comparisons", lambda *_: cells)
    shown = page_store.content(store)
    assert len(shown.duels) == 2
    assert f"Inconclusive by a and b on x and y with edsr-tiny: {reason}." in shown.remarks
    assert render(shown).count(reason) == 1


def test_each_comparison_is_made_once_for_tables_summary_and_statistics(
    store: Path, packed: PackedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, str, str]] = []
    measure = compare._compared

    def counted(each: Comparison, *sides: Any) -> Comparison:
        made.append((each.b, each.dataset, each.metric))
        return measure(each, *sides)

    monkeypatch.setattr(compare, "_compared", counted)
    page_store.content(store, packed)
    assert {b for b, _, _ in made} == {SG, EVIL}
    assert len(set(made)) == len(made)


def test_a_store_in_which_everything_failed_is_a_page_too(tmp_path: Path) -> None:
    store = Store(Storage(str(tmp_path)))
    for at, loss in enumerate((L1, SG)):
        store.write_run(page_store.run(f"{at:012x}", loss, 0) | {"status": "failed", "error": "a fire"})
    shown = page_store.content(tmp_path)
    assert shown.remarks == [f"Not compared, for no seed has scores of both l1 and the other: {SG}."]
    assert len(shown.failures.rows) == 2


# What is shown


def test_filters_leave_out_everything_but_what_they_ask_for(store: Path) -> None:
    shown = page_store.content(store, losses=["l1+sg"], metrics=["lpips_alex"], seeds=[0, 1])
    assert [duel.loss for duel in shown.duels] == [SG]
    assert {row[0].text for row in shown.duels[0].grid.rows} == {"lpips_alex"}
    assert {row[2].text for row in shown.runs.rows} == {SG}
    assert {row[3].text for row in shown.runs.rows} == {"0", "1"}
    assert shown.counted == "2 runs: 2 done, 0 failed and 0 pending."
    assert shown.remarks == ["Losses are compared by all seeds of the store, also by those that are not shown."]
    assert set(shown.gallery.labels.values()) == {"edsr-tiny · l1 + 1.0*sg · seed 0"}
    assert {key for image in shown.gallery.sets["Photos"] for each in image.scores.values() for key in each} == {
        "lpips_alex"
    }


def test_a_p_value_does_not_depend_on_what_is_shown(store: Path, whole: page.Content) -> None:
    shown = page_store.content(store, metrics=["lpips_alex"], datasets=["Photos"], backbones=["edsr-tiny"])
    assert shown.duels[0].grid.rows == whole.duels[0].grid.rows[:1]


@pytest.mark.parametrize(
    ("filters", "sentence"),
    [
        ({"backbones": ["edsr"]}, "unknown backbone 'edsr'"),
        ({"datasets": ["Set5"]}, "unknown test set 'Set5'"),
        ({"seeds": [7]}, "unknown seed '7'"),
    ],
)
def test_a_filter_for_what_is_not_there_is_refused(store: Path, filters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        page_store.content(store, **filters)


def test_tables_of_the_paper_stand_where_all_their_losses_have_numbers(store: Path, whole: page.Content) -> None:
    titles = [table.title for table in whole.tables]
    assert [title.partition(":")[0] for title in titles] == [
        "Table 1 of the paper",
        "Table 2 of the paper",
        "Scores by dataset, backbone, loss and metric",
    ]
    assert [table.title for table in page_store.content(store, losses=[L1]).tables] == titles[-1:]


def test_notes_that_all_tables_have_stand_once(whole: page.Content) -> None:
    assert "± is the sample standard deviation over seeds." in whole.notes
    assert not [note for table in whole.tables for note in table.notes if note in whole.notes]


def test_every_run_is_there_with_how_it_came_about(whole: page.Content, elements: Elements) -> None:
    rows = {row[0].text: row for row in whole.runs.rows}
    assert len(rows) == 10
    known = {head: entry.text for head, entry in zip(whole.runs.heads, rows[f"{1:012x}"], strict=True)}
    assert known["training"] == "2:04:06"
    assert known["peak memory"] == "1.00 GiB"
    assert known["parameters"] == "1,234,567"
    assert known["finished"] == "2026-01-02 03:04 UTC"
    assert '"loss": "l1"' in rows[f"{1:012x}"][-1].details
    assert "torch 2.8.0" in " ".join(elements.text)


def test_of_very_many_runs_the_first_are_listed_and_the_rest_counted(
    store: Path, packed: PackedImages, whole: page.Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sgbench.report.page.grids.MOST_RUNS", 3)
    fewer = page_store.content(store, packed)
    assert fewer.runs.rows == whole.runs.rows[:3]
    left = len(whole.runs.rows) - 3
    assert fewer.runs.note == f"{left} more runs are not listed; `sgbench query` lists all of them."
    assert "more runs are not listed; <code>sgbench query</code>" in render(fewer)
    assert whole.runs.note == fewer.failures.note == ""


def test_whether_a_column_holds_numbers_is_found_out_once(whole: page.Content) -> None:
    assert whole.runs.numeric is whole.runs.numeric


def test_a_failed_run_stands_with_its_reason(whole: page.Content) -> None:
    (row,) = whole.failures.rows
    assert [entry.text for entry in row] == ["f" * 12, "edsr-tiny", L1, "3", "812", "loss is NaN <b>"]


def test_an_empty_store_is_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    elements = Elements(render(page_store.content(tmp_path)))
    text = " ".join(elements.text)
    for words in ("0 runs", "There is nothing to show yet.", "No run has ended yet.", "No run failed.", "were kept"):
        assert words in text
    assert not elements.all("img")


@pytest.mark.parametrize(
    ("difference", "shown"), [(0.00004, "0.0000"), (-0.00004, "0.0000"), (0.1, "+0.1000"), (-0.1, "−0.1000")]
)
def test_what_rounds_to_zero_has_no_sign(difference: float, shown: str) -> None:
    (row,) = of_comparisons([cell(NOT_SIGNIFICANT, difference)]).rows
    assert row[5].text == shown


def test_a_sequence_stands_where_the_interval_stands_once_it_is_finite() -> None:
    sequences = (SeedSequence((0, 1), 4.0, (3, 5), 0.05, 5, "0" * 12, "2026-11-28"),)
    nothing = Estimate(Interval(-math.inf, math.inf), 1.0)
    early = cell(NOT_SIGNIFICANT, 0.1, sequences=sequences, overall=nothing)
    grid = of_comparisons([early])
    assert grid.heads[7] == "95% confidence sequence"
    assert grid.rows[0][7].text == "–"


def test_what_each_loss_was_given_stands_on_the_page_if_anything_was_tuned(
    whole: page.Content, elements: Elements, tmp_path: Path
) -> None:
    (table,) = whole.tunings
    assert table.caption == "mine: 1 trial of 20 steps for each loss, chosen by psnr_y on Held <out>"
    assert [entry.value for entry in table.rows[0]][-2:] == [28.5, None]
    assert f"{EVIL} of {EVIL} was chosen at the upper end of its range, 2" in table.note
    assert {"id": "tuning", "aria-labelledby": "tuning-title"} in elements.all("section")
    Store(Storage(str(tmp_path))).write_plan("quick", [])
    assert 'id="tuning"' not in render(page_store.content(tmp_path))


def test_figures_are_drawn_into_the_page_with_text_that_needs_no_font(whole: page.Content) -> None:
    assert len(whole.pictures) == 5
    for picture in whole.pictures:
        assert picture.reason == ""
        drawn = base64.b64decode(picture.source.removeprefix("data:image/svg+xml;base64,")).decode()
        assert "<svg" in drawn
        assert "<text" not in drawn


def test_a_figure_that_cannot_be_drawn_says_why(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    shown = page_store.content(store, losses=[L1])
    assert [bool(picture.source) for picture in shown.pictures] == [False, False, True, True]
    assert shown.pictures[0].reason
    assert shown.pictures[0].reason in "".join(Elements(render(shown)).text)


def test_of_more_losses_than_can_be_told_apart_those_of_the_paper_are_drawn(
    tmp_path: Path, packed: PackedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    folder = page_store.made(tmp_path, packed)
    for at in range(8):
        Store(Storage(str(folder))).write_run(page_store.run(f"{100 + at:012x}", f"l1 + {at + 2}.0*ssim", 0))
    _, _, plane, curves = page_store.content(folder).pictures
    assert plane.source
    assert curves.source
    assert plane.caption == "PSNR against LPIPS."  # which numbers them
    assert curves.caption.endswith("Too many losses to tell apart: only those of the paper are drawn.")


# Images


def test_images_are_embedded_without_any_loss_beside_hr_and_with_their_scores(
    whole: page.Content, packed: PackedImages
) -> None:
    shown = {image.name: image for image in whole.gallery.sets["Photos"]}
    assert list(shown) == sorted(IMAGES, key=lambda name: (name[0], name == "noise10"))
    image = shown["noise2"]
    assert (image.height, image.width) == page_store.SIZE
    for run_id, loss in zip(("0" * 12, f"{3:012x}", f"{6:012x}"), (L1, SG, EVIL), strict=True):
        assert (pixels(image.sources[run_id]) == page_store.flat(page_store.COLOURS[loss])).all()
    index = [each.name for each in packed.images].index("noise2")
    assert (pixels(image.sources["HR"]) == packed.hr(index)).all()
    assert image.scores["0" * 12]["lpips_alex"][1] == pytest.approx(0.4, abs=0.01)
    assert whole.gallery.pair == ("0" * 12, f"{3:012x}")


def pixels(source: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB"))


def test_the_smaller_of_png_and_webp_is_taken() -> None:
    image = Image.fromarray(page_store.flat((1, 2, 3)))
    assert gallery._uri(image, b"tiny") == f"data:image/png;base64,{base64.b64encode(b'tiny').decode()}"
    assert gallery._uri(image, bytes(9999)).startswith("data:image/webp;base64,")
    wide = Image.new("RGB", (gallery._WEBP_SIDE + 1, 1))
    assert gallery._uri(wide, None).startswith("data:image/png;base64,")


def test_what_is_left_out_is_counted(store: Path, packed: PackedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = page_store.images(store, most=1)
    assert [image.name for image in shown.sets["Photos"]] == ["evil<b>&'\""]
    assert shown.notes[0].startswith("Left out to keep the page small: 2 images of Photos;")
    one = sum(map(len, page_store.images(store, packed, most=1).sets["Photos"][0].sources.values()))
    monkeypatch.setattr(gallery, "MOST_BYTES", one)
    shown = page_store.images(store, packed)
    assert len(shown.sets["Photos"]) == 1
    assert "2 images of Photos" in shown.notes[0]


def test_hr_images_of_other_pixels_are_left_out_and_that_is_said(store: Path, packed: PackedImages) -> None:
    other = copy.copy(packed)
    other.sha256 = "ef" * 32
    shown = page_store.images(store, other)
    assert "HR" not in shown.labels
    assert "The images of Photos that were given are not those of any saved image" in shown.notes[0]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no image", "cannot be read as an image"),
        (encode_png(page_store.flat((0, 0, 0))[:, :8]), r"is 8×64 pixels and 'HR' is 176×64"),
    ],
    ids=["not-an-image", "other-size"],
)
def test_a_damaged_image_is_one_sentence(tmp_path: Path, packed: PackedImages, content: bytes, sentence: str) -> None:
    store = page_store.made(tmp_path, packed)
    next(store.glob("images/*/*/noise2.png")).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        page_store.images(store, packed)


def test_an_image_that_the_set_does_not_have_is_shown_without_hr(tmp_path: Path, packed: PackedImages) -> None:
    store = page_store.made(tmp_path, packed)
    file = next(store.glob("images/*/*/noise2.png"))
    file.with_name("a.png").write_bytes(file.read_bytes())
    shown = page_store.images(store, packed).sets["Photos"][0]
    assert (shown.name, len(shown.sources)) == ("a", 1)


# The page


def test_nothing_of_a_store_becomes_markup(html: str, elements: Elements) -> None:
    assert EVIL not in html
    assert EVIL in " ".join(elements.text)
    assert not elements.all("b")
    assert [each.get("type") for each in elements.all("script")] == ["application/json", None]
    data = re.findall(r'<script type="application/json" id="viewer-data">(.*?)</script>', html, re.DOTALL)
    assert f"edsr-tiny · {EVIL} · seed 0" in json.loads(data[0])["labels"].values()


def test_the_policy_allows_nothing_but_the_page_itself(html: str, elements: Elements) -> None:
    (policy,) = [
        each["content"] for each in elements.all("meta") if each.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.split(" ", 1) for rule in str(policy).split("; "))
    assert (rules["default-src"], rules["img-src"]) == ("'none'", "data:")
    for element, rule in (("style", "style-src"), ("script", "script-src")):
        (text,) = re.findall(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert not re.search(r"<[^>]+ (?:style|on\w+)=", html)
    addresses = [each[name] for _, each in elements.found for name in ("src", "href") if name in each]
    assert all(str(address).startswith(("data:", "#")) for address in addresses)


def test_the_structure_is_that_of_a_document(elements: Elements) -> None:
    assert elements.found[0] == ("html", {"lang": "en"})
    assert [len(elements.all(tag)) for tag in ("h1", "header", "nav", "main", "footer")] == [1] * 5
    ids = [each["id"] for _, each in elements.found if "id" in each]
    assert len(ids) == len(set(ids))
    targets = [str(each["href"])[1:] for each in elements.all("a")]
    assert set(targets) <= set(ids)
    assert all(each.get("alt") is not None for each in elements.all("img"))
    assert all(each.get("scope") for each in elements.all("th"))


def test_the_same_store_is_the_same_page(
    store: Path, packed: PackedImages, html: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert render(page_store.content(store, packed)) == html


def test_a_page_that_is_too_large_is_refused(whole: page.Content, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgbench.report.page.document.MOST_BYTES", 100_000)
    with pytest.raises(InputError, match=r"the page would have \d MB, more than 0; show less"):
        render(whole)


# Colours


def palettes() -> dict[str, dict[str, str]]:
    style = files(page).joinpath("page.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block)) for block in style.split(":root")[1:3])
    return {"light": light, "dark": light | dark}


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2.1."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_computed_as_wcag_says() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)  # the well-known lightest grey of AA


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(scheme: str) -> None:
    palette = palettes()[scheme]
    for ground in ("ground", "raised"):
        for text in ("ink", "muted", "link"):
            assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
    assert contrast(palette["focus"], palette["ground"]) >= 3
