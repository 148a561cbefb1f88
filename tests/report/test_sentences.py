import io
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from sgbench.analysis.anytime import SeedSequence
from sgbench.analysis.compare import Comparison, Verdict
from sgbench.analysis.stats import Estimate, Interval, SignFlip
from sgbench.core.errors import InputError
from sgbench.report.compare import choose, notes, sentence, shown, to_data

NOT_SIGNIFICANT, SIGNIFICANT = Verdict.NOT_SIGNIFICANT, Verdict.SIGNIFICANT
SG = "l1 + 1.0*sg"

FOUND = Comparison(
    metric="lpips_alex",
    direction="lower",
    dataset="Set14",
    backbone="edsr-tiny",
    scale=4,
    recipe="",
    a="l1",
    b=SG,
    label_a="l1",
    label_b=SG,
    alpha=0.05,
    seeds=(0, 1, 2),
    runs_a=("a0", "a1", "a2"),
    runs_b=("b0", "b1", "b2"),
    images=14,
    mean_a=0.3597,
    mean_b=0.2627,
    overall=Estimate(Interval(-0.105, -0.089), 0.0000123),
    by_image=SignFlip(2 / 2**14, 2 / 2**14),
    by_seed=Estimate(Interval(-0.1, -0.094), 0.0021),
    p=0.0042,
    family=2,
    verdict=SIGNIFICANT,
)
OF_SETS = replace(
    FOUND, metric="fid", mean_a=61.234, mean_b=55.5, images=None, overall=None, by_image=None,
    by_seed=Estimate(Interval(-7.5, -4.0), 0.01), p=0.01, family=1,
)  # fmt: skip
NO_PAIRS = Comparison(
    metric="lpips_alex", direction=None, dataset="Set5", backbone="edsr-tiny", scale=4, recipe="", a="l1", b=SG,
    label_a="l1", label_b=SG,
    alpha=0.05, reason=f"no seed has both scores: no run ({SG}, seeds 0, 1)",
)  # fmt: skip


def printed(cells: list[Comparison], width: int | None) -> str:
    """Return what a terminal of some width, or a pipe, receives."""
    file = io.StringIO()
    if width is None:
        shown(cells).print(Console(file=file, _environ={}))
    else:
        shown(cells).print(Console(file=file, width=width, force_terminal=True, color_system=None, _environ={}))
    return file.getvalue()


def test_losses_are_called_by_their_labels() -> None:
    cells = [replace(FOUND, label_b="ours")]
    assert printed(cells, None).startswith(f"A is l1, B is ours, which is {SG}.\n")
    assert sentence(cells[0]).startswith("ours lowers lpips_alex on Set14")
    (told,) = to_data(cells)["comparisons"]
    assert (told["a"], told["b"], told["label_a"], told["label_b"]) == ("l1", SG, "l1", "ours")


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        (
            FOUND,
            f"{SG} lowers lpips_alex on Set14 with edsr-tiny by 0.0970 (27.0%; "
            "95% confidence interval 0.0890 to 0.1050; "
            "3 seeds × 14 images): significant, better.",
        ),
        (
            replace(
                FOUND,
                metric="psnr_y",
                direction="higher",
                mean_a=25.21,
                mean_b=24.14,
                recipe="steps=1200",
                overall=Estimate(Interval(-1.254, -0.8), 0.001),
            ),
            f"{SG} lowers psnr_y on Set14 with edsr-tiny (steps=1200) by 1.07 (4.2%; "
            "95% confidence interval 0.80 to 1.25; "
            "3 seeds × 14 images): significant, worse.",
        ),
        (
            replace(
                FOUND,
                mean_b=0.3697,
                overall=Estimate(Interval(-0.01, 0.03), 0.3),
                p=0.3,
                verdict=NOT_SIGNIFICANT,
            ),
            f"{SG} raises lpips_alex on Set14 with edsr-tiny by 0.0100 (2.8%; "
            "95% confidence interval −0.0100 to 0.0300; "
            "3 seeds × 14 images): not significant (corrected p 0.3).",
        ),
        (
            replace(FOUND, mean_a=0.0, mean_b=0.0, family=1, p=1.0, verdict=NOT_SIGNIFICANT),
            f"{SG} changes lpips_alex on Set14 with edsr-tiny by 0.0000 (95% confidence interval −0.1050 to −0.0890; "
            "3 seeds × 14 images): not significant (p 1).",
        ),
        (
            replace(OF_SETS, left_out=(f"failed: loss is NaN at step 812 ({SG}, seed 3)",)),
            f"{SG} lowers fid on Set14 with edsr-tiny by 5.73 (9.4%; "
            "95% confidence interval over seeds alone 4.00 to 7.50; "
            f"3 seeds): significant, better. Left out: failed: loss is NaN at step 812 ({SG}, seed 3).",
        ),
        (
            Comparison(
                **{**vars(NO_PAIRS), "mean_a": 0.4, "mean_b": 0.3, "seeds": (0,), "images": 1, "reason": "one seed"}
            ),
            f"{SG} lowers lpips_alex on Set5 with edsr-tiny by 0.1000 (25.0%; 1 seed × 1 image): "
            "inconclusive (one seed).",
        ),
        (
            NO_PAIRS,
            f"{SG} cannot be compared with l1 by lpips_alex on Set5 with edsr-tiny: no seed has both scores: "
            f"no run ({SG}, seeds 0, 1).",
        ),
        (
            replace(FOUND, direction=None, metric="my_metric", alpha=0.01),
            f"{SG} lowers my_metric on Set14 with edsr-tiny by 0.097 (27.0%; 99% confidence interval 0.089 to 0.105; "
            "3 seeds × 14 images): significant.",
        ),
    ],
    ids=["better", "worse", "not shown", "no change", "sets", "one seed", "no pairs", "no direction"],
)
def test_a_sentence_says_what_was_found(cell: Comparison, told: str) -> None:
    assert sentence(cell) == told


def test_a_wide_table_has_a_line_for_each_cell() -> None:
    lines = printed([FOUND, NO_PAIRS], 200).splitlines()
    assert lines[0] == f"A is l1, B is {SG}."
    assert lines[2] == "lpips_alex ↓"
    (line,) = [line for line in lines if line.startswith("Set14 ")]
    assert " ".join(line.split()) == (
        "Set14 edsr-tiny 0.3597 0.2627 −0.0970 −27.0% −0.1050 −0.0890 1.2e-05 0.00012 (0.00012) "
        "−0.1000 −0.0940 0.0021 0.0042 significant, better"
    )
    (line,) = [line for line in lines if line.startswith("Set5 ")]
    assert line.split() == ["Set5", "edsr-tiny", "inconclusive"]


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_narrow_terminal_nothing_is_cut(width: int) -> None:
    cells = [replace(FOUND, backbone="swinir-light"), replace(NO_PAIRS, backbone="swinir-light")]
    shown = printed(cells, width)
    assert max(map(len, shown.splitlines())) <= width
    for text in ("0.3597", "0.2627", "−27.0%", "1.2e-05", "(0.00012)", "−0.0940", "0.0042", "swinir-light"):
        assert text in shown
    assert "…" not in shown


def test_in_a_pipe_each_sentence_and_note_is_one_line() -> None:
    lines = printed([FOUND, NO_PAIRS], None).splitlines()
    assert f"- {sentence(FOUND)}" in lines
    assert set(notes([FOUND])) <= set(lines)
    assert not any("\x1b" in line for line in lines)


def test_each_metric_and_recipe_has_a_table_without_columns_that_are_empty() -> None:
    cells = [replace(cell, recipe=recipe) for cell in (OF_SETS, FOUND) for recipe in ("steps=1200", "steps=2400")]
    shown = printed(cells, 200)
    heads = [line for line in shown.splitlines() if line.endswith(("steps=1200", "steps=2400"))]
    assert heads == ["fid ↓ steps=1200", "fid ↓ steps=2400", "lpips_alex ↓ steps=1200", "lpips_alex ↓ steps=2400"]
    assert shown.count("by image  ") == shown.count("(floor)  ") == 2


def test_without_a_number_there_is_a_sentence_and_no_table() -> None:
    shown = printed([NO_PAIRS], 80)
    assert "test set" not in shown
    assert "no run" in shown
    assert notes([NO_PAIRS]) == []


def test_nothing_to_show_is_told() -> None:
    assert printed([], 80) == "There is nothing to show.\n"


def test_the_notes_name_floors_and_families() -> None:
    said = " ".join(notes([FOUND, replace(FOUND, seeds=(0, 1, 2, 3, 4)), OF_SETS, NO_PAIRS]))
    assert "10,000 resamples" in said
    assert "not give a p below 0.25 with 3 seeds, 0.0625 with 5 seeds" in said
    assert "fid: one value per test set and none per image" in said
    assert "(2 by lpips_alex, 1 by fid), shown or not, is at most 0.05" in said
    assert "drawn at random" not in said
    assert "above 14 images 10,000 drawn at random" in " ".join(notes([replace(FOUND, images=100)]))
    assert not any("flip of the signs of the images" in note for note in notes([OF_SETS]))


def test_json_has_every_digit_and_what_follows_from_it() -> None:
    data: dict[str, Any] = json.loads(json.dumps(to_data([FOUND, NO_PAIRS]), allow_nan=False))
    first, second = data["comparisons"]
    assert first["difference"] == 0.2627 - 0.3597
    assert first["overall"] == {"interval": {"low": -0.105, "high": -0.089}, "p": 0.0000123}
    assert first["by_image"] == {"p": 2 / 2**14, "floor": 2 / 2**14}
    assert (first["verdict"], first["better"], first["seeds"]) == ("significant", True, [0, 1, 2])
    assert first["sentence"] == sentence(FOUND)
    assert (second["verdict"], second["difference"], second["p"]) == ("inconclusive", None, None)
    assert data["notes"] == notes([FOUND])


def test_a_choice_of_cells_leaves_their_p_as_it_is() -> None:
    other = replace(FOUND, backbone="rdn-tiny", dataset="Set5", p=1.0)
    assert choose([FOUND, other]) == [FOUND, other]
    assert choose([FOUND, other], backbones=["rdn-tiny"]) == [other]
    assert choose([FOUND, other], datasets=["Set14"]) == [FOUND]
    assert choose([FOUND, other], datasets=["Set14"], backbones=["rdn-tiny"]) == []


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"backbones": ["edsr-tny"]}, "unknown backbone 'edsr-tny': did you mean 'edsr-tiny'?"),
        ({"datasets": ["Set15"]}, "unknown test set 'Set15': did you mean 'Set14'?"),
    ],
)
def test_a_choice_of_what_is_not_there_is_refused(filters: dict[str, list[str]], message: str) -> None:
    with pytest.raises(InputError) as error:
        choose([FOUND], **filters)
    assert str(error.value).startswith(message)


LOOKS = (3, 5, 7, 10, 14, 20)
DECLARED = SeedSequence((20, 21, 22), 4.0, LOOKS, 0.05, 20, "48409b30ee5d", "2026-11-28T08:19:42+00:00")
IN_LOOKS = replace(FOUND, sequences=(DECLARED,), seeds=(20, 21, 22), family=8)
TOO_EARLY = replace(
    IN_LOOKS,
    seeds=(20, 21),
    overall=Estimate(Interval(-math.inf, math.inf), 1.0),
    by_seed=Estimate(Interval(-math.inf, math.inf), 0.4),
    p=1.0,
    verdict=NOT_SIGNIFICANT,
)


def test_a_confidence_sequence_stands_where_the_interval_stands() -> None:
    assert sentence(IN_LOOKS) == (
        f"{SG} lowers lpips_alex on Set14 with edsr-tiny by 0.0970 (27.0%; 95% confidence sequence 0.0890 to 0.1050; "
        "3 of at most 20 seeds × 14 images): significant, better."
    )
    assert sentence(TOO_EARLY) == (
        f"{SG} lowers lpips_alex on Set14 with edsr-tiny by 0.0970 (27.0%; 2 of at most 20 seeds × 14 images): "
        "not significant (corrected p 1)."
    )


def test_what_is_judged_otherwise_has_a_table_of_its_own() -> None:
    lines = printed([FOUND, IN_LOOKS, replace(IN_LOOKS, alpha=0.01)], 200).splitlines()
    assert [line for line in lines if "lpips_alex ↓" in line] == [
        "lpips_alex ↓",
        *["lpips_alex ↓ anytime-valid"] * 2,
    ]
    heads = [line for line in lines if line.startswith("test set")]
    assert [("95% CI" in head, "95% CS" in head, "99% CS" in head) for head in heads] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


def test_the_notes_say_what_was_declared() -> None:
    said = notes([IN_LOOKS])
    assert said[0].startswith("Anytime-valid: p values and confidence sequences (CS) hold however often")
    assert said[1] == (
        "Declared on 2026-11-28, before the first look (declared/48409b30ee5d.json): lpips_alex, at most 20 seeds, "
        "α = 0.05, g = 4."
    )
    assert "tested only after 3, 5, 7, 10, 14 and 20 seeds" in said[2]
    assert said[3].startswith("By seed: evidence of the t e-process")
    assert "(8 by lpips_alex), shown or not, is at most 0.05" in said[4]
    assert len(said) == 5
    assert not any("resamples" in note or "sign flips, which do not" in note for note in said)


def test_the_notes_say_of_what_nothing_was_declared() -> None:
    asked = SeedSequence((0, 1, 2, 3, 4), 4.0, LOOKS, rounds=(5,))
    added = SeedSequence((0, 1, 2, 3, 4), 4.0, LOOKS, rounds=(2, 3, 5))
    together = replace(IN_LOOKS, dataset="all sets", sets=("Set5", "Set14"), sequences=(asked,))
    said = notes([IN_LOOKS, together, replace(OF_SETS, sequences=(added,)), FOUND])
    (nothing,) = [note for note in said if note.startswith("Nothing was declared")]
    assert nothing == (
        "Nothing was declared for lpips_alex on all sets and fid, so that g = 4 may have been chosen after a look. "
        "Seeds count in the order in which they were asked for, here in 3 rounds."
    )
    assert any("10,000 resamples" in note for note in said)  # of the comparison of a fixed number of seeds


def test_the_notes_say_how_the_evidence_of_two_labs_is_one() -> None:
    other = replace(DECLARED, seeds=(40, 41), declaration="0123456789ab", most=10)
    cell = replace(IN_LOOKS, sequences=(DECLARED, other), seeds=(20, 21, 22, 40, 41))
    assert "5 of at most 30 seeds × 14 images" in sentence(cell)
    assert "by seed, the evidence of each is multiplied" in " ".join(notes([cell]))


def test_json_has_no_infinite_number_and_says_how_it_was_judged() -> None:
    data = json.loads(json.dumps(to_data([TOO_EARLY]), allow_nan=False))
    (cell,) = data["comparisons"]
    assert (cell["overall"], cell["by_seed"]["p"]) == ({"interval": {"low": None, "high": None}, "p": 1.0}, 0.4)
    (sequence,) = cell["sequences"]
    assert (sequence["declaration"], sequence["g"], sequence["most"]) == ("48409b30ee5d", 4.0, 20)
    assert shown([TOO_EARLY]).to_pandas()["overall_low"].isna().all()
    assert "inf" not in printed([TOO_EARLY], 200)
