"""Questions, and what a sweep must have to be asked them."""

from typing import Any

import pytest

from sgbench.core.errors import InputError
from sgbench.spec import SweepSpec, build
from sgbench.spec.decisions import Question


def sweep(*questions: str, **fields: Any) -> SweepSpec:
    losses = ["l1", "ours=l1 + 0.5*l2", "l1 + 1.0*ssim"]
    grids = [{"backbones": ["edsr-tiny", "rdn-tiny"], "losses": losses, "seeds": [4, 2]}]
    decide = {"questions": list(questions), **fields.pop("decide", {})}
    given = {"grids": grids, "train": "mine=a", "tests": ["b=b", "c=c"], "metrics": ["psnr_y", "fd_alex"]}
    return build({**given, "decide": decide, **fields}, "mine")


@pytest.mark.parametrize(
    "text",
    [
        "l1 vs l1 + 1.0*sg on lpips_alex",
        "l1 vs ours on psnr_y of Set5, Set14 within 0.1",
        "l1 + 0.1*vgg(conv1=1, relu=true) vs l2 on psnr_y of all sets",
    ],
)
def test_a_question_is_read_as_it_is_written(text: str) -> None:
    assert str(Question.read(text)) == text


def test_a_question_is_asked_with_all_that_it_leaves_open() -> None:
    (asked,) = sweep("l1 vs ours on psnr_y", decide={"max_seeds": 4}).asked()
    assert str(asked.question) == "l1 vs l1 + 0.5*l2 on psnr_y of b, c"
    assert (asked.backbones, asked.seeds, asked.named) == (("edsr-tiny", "rdn-tiny"), (4, 2, 5, 6), 2)
    (asked,) = sweep("0.5*l2 + l1 vs l1 + ssim on psnr of all sets, c within 1e-1").asked()
    assert str(asked.question) == "l1 + 0.5*l2 vs l1 + 1.0*ssim on psnr_y of all sets, c within 0.1"
    assert asked.seeds == (4, 2, *range(5, 23))


def test_a_set_without_hr_images_is_asked_about_only_by_metrics_that_need_none() -> None:
    (asked,) = sweep("l1 vs ours on psnr_y", tests=["b=b", "real=none,lr=c"], metrics=["psnr_y", "niqe"]).asked()
    assert asked.question.sets == ("b",)


def test_a_question_is_asked_of_the_backbones_that_have_both_losses() -> None:
    grids = [
        {"backbones": ["edsr-tiny", "rdn-tiny"], "losses": ["l1"]},
        {"backbones": ["rdn-tiny", "rcan-tiny"], "losses": ["l2"]},
    ]
    (asked,) = sweep("l1 vs l2 on psnr_y", grids=grids).asked()
    assert asked.backbones == ("rdn-tiny",)


@pytest.mark.parametrize(
    ("question", "fields", "said"),
    [
        ("l1 on psnr_y", {}, "'l1 on psnr_y' is no question; 'A vs B on METRIC', such as"),
        ("l1 vs theirs on psnr_y", {}, "unknown loss 'theirs'; valid: l1, l1 + 0.5*l2, l1 + 1.0*ssim, ours."),
        ("ours vs l1 + 0.5*l2 on psnr_y", {}, "compares l1 + 0.5*l2 with itself; two different losses are needed."),
        ("l1 vs ours on ssim_y", {}, "unknown metric 'ssim_y'; valid: fd_alex, psnr_y."),
        ("l1 vs ours on psnr_y of d", {}, "unknown test set 'd'; valid: all sets, b, c."),
        ("l1 vs ours on psnr_y of all sets", {"tests": ["b=b"]}, "takes all sets together, and there is only b."),
        ("l1 vs ours on psnr_y within 0", {}, "the margin of 'l1 vs ours on psnr_y within 0' is '0'; a number above 0"),
        ("l1 vs λ*ssim on psnr_y", {}, "a question names losses without λ"),
        ("l1 vs ours on psnr_y", {"decide": {"max_seeds": 1}}, "decide.max_seeds is 1: input should be greater than"),
        ("l1 vs ours on psnr_y", {"decide": {"max_seeds": 10**9}}, "input should be less than or equal to 1000"),
        ("l1 vs ours on psnr_y", {"decide": {"alpha": 0}}, "decide.alpha is 0: input should be greater than"),
        ("l1 vs ours on psnr_y", {"decide": {"g": 0}}, "decide.g is 0: input should be greater than 0"),
        (
            "l1 vs ours on psnr_y",
            {"decide": {"goal": 1}},
            "unknown key 'goal'; valid: alpha, g, max_seeds",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(question: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        sweep(question, **fields)
    assert said in str(refused.value)


def test_the_losses_of_a_question_have_the_same_seeds_everywhere() -> None:
    def grids(*seeds: Any, **second: Any) -> list[dict[str, Any]]:
        first = {"backbones": ["edsr-tiny"], "losses": ["l1"], "seeds": seeds[0]}
        return [first, {**first, "losses": ["l2"], "seeds": seeds[1]} | second]

    with pytest.raises(InputError, match="there are 0, 1 of l1 with edsr-tiny, and 0 of l2 with edsr-tiny"):
        sweep("l1 vs l2 on psnr_y", grids=grids([0, 1], [0]))
    with pytest.raises(InputError, match="no backbone has both losses; name both in one grid"):
        sweep("l1 vs l2 on psnr_y", grids=grids([0], [0], backbones=["rdn-tiny"]))
    with pytest.raises(InputError, match=r"decide\.max_seeds is 2, and the grids have 3 seeds"):
        sweep("l1 vs l2 on psnr_y", grids=grids("0-2", "0-2"), decide={"max_seeds": 2})
    with pytest.raises(InputError, match="after seed 9223372036854775807 there are no 19 more; name smaller ones"):
        sweep("l1 vs l2 on psnr_y", grids=grids([2**63 - 1], [2**63 - 1]))
