"""What is searched in losses: how it is written, and which values it has."""

import math

import pytest

from sgbench.core.errors import InputError
from sgbench.spec import check_loss
from sgbench.spec.space import RATE, Searched, Space, read_range


def read(written: object) -> Space:
    space = Space.read(written)
    assert space is not None
    return space


@pytest.mark.parametrize(
    ("written", "values", "loss"),
    [
        ("l1 + 0.01:10*ssim", {"λ": 0.5}, "l1 + 0.5*ssim"),
        ("charbonnier(eps=1e-4:0.1)", {"charbonnier.eps": 0.002}, "charbonnier(eps=0.002)"),
        ("0:1*l1 + 0.1:1*fft", {"λ of l1": 0.25, "λ of fft": 0.5}, "0.5*fft + 0.25*l1"),
        ("0.5*sg(operator=central|sobel) + l1", {"sg.operator": "sobel"}, "l1 + 0.5*sg(operator=sobel)"),
        ("1:9*sg(order=1:2) + l1", {"λ": 4.0, "sg.order": 1}, "l1 + 4.0*sg(order=1)"),
        ("0.1:1*sg + 1:2*sg(order=1)", {"λ of sg": 0.5, "λ of sg (2)": 1.5}, "0.5*sg + 1.5*sg(order=1)"),
    ],
)
def test_a_setting_is_written_in_place_of_its_value(written: str, values: dict[str, float], loss: str) -> None:
    space = read(written)
    assert [each.name for each in space.searched] == list(values)
    assert space.loss(values) == check_loss(loss)


def test_what_nobody_searches_is_the_default() -> None:
    assert read("l1 + 0.01:10*sg(order=1:2)").default == {"λ": 1.0, "sg.order": 2}
    assert read("charbonnier(eps=1e-4:0.1)").start == check_loss("charbonnier")
    outside = read("l1 + 0.01:0.1*sg")
    assert (outside.default, str(outside.start)) == (None, "l1 + 0.01*sg")


def test_a_label_is_that_of_all_its_losses() -> None:
    space = read("ours=l1 + 0.01:10*sg")
    assert (space.text, space.label, space.loss({"λ": 2.0}).label) == ("l1 + 0.01:10*sg", "ours", "ours")
    assert read({"loss": "l1 + 0.01:10*sg", "label": "ours"}) == space


def test_a_loss_of_a_sweep_with_lambda_has_its_values_to_choose_from() -> None:
    family, plain = check_loss("l1 + λ*sg"), check_loss("l1")
    space = Space.of(family, (0.0, 0.1, 1.0))
    assert (space.count, space.default, space.loss({"λ": 0.0})) == (3, {"λ": 1.0}, plain)
    assert Space.of(plain) == Space("l1")
    assert Space.read("l1 + 0.5*sg") is None


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("l1 + 10:0.01*ssim", r"the range of a coefficient is 10:0\.01; a smaller and a larger number"),
        ("charbonnier(eps=1:1)", "the range of 'eps' is 1:1"),
        ("l1 + -1:1*ssim", "both at least 0"),
        ("l1 + λ*ssim + 0.1:1*sg", "has λ and a range"),
        ("charbonnier(epsilon=1e-4:0.1)", "option of loss 'charbonnier'"),
        ("l1 + 0.1:1*nothing", "loss 'nothing'"),
        ("charbonnier(eps=a|b)", "a number is needed"),
        ("l2 = l1 + 0.1:1*sg", "is itself a loss"),
    ],
)
def test_what_cannot_be_searched_is_refused(written: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        Space.read(written) or check_loss(written)


def test_in_a_loss_of_a_sweep_a_range_is_refused() -> None:
    with pytest.raises(InputError, match=r"has a range, 0\.01:10, in which 'sgbench tune' searches"):
        check_loss("l1 + 0.01:10*ssim")


def test_a_range_is_searched_on_a_logarithmic_scale_unless_it_begins_at_0_or_is_of_whole_numbers() -> None:
    log, linear = Searched.ranged("λ", 0.01, 100, 1.0), Searched.ranged("λ", 0, 10)
    assert [log.at(share) for share in (0, 0.25, 0.5, 1)] == [0.01, 0.1, 1.0, 100]
    assert [linear.at(share) for share in (0, 0.123456, 1)] == [0, 1.235, 10]
    whole = Searched.ranged("order", 1, 3.5, whole=True)
    assert ([whole.at(share) for share in (0, 0.32, 0.34, 0.99, 1)], whole.count) == ([1, 1, 2, 3, 3], 3)
    assert math.isinf(log.count)
    assert [log.is_at_edge(value) for value in (0.01, 0.014, 0.1, 90)] == [True, True, False, True]
    assert [linear.is_at_edge(value) for value in (0, 1, 9.9)] == [True, False, True]


def test_a_range_may_be_of_the_learning_rate() -> None:
    assert read_range("1e-4:1e-2") == (1e-4, 1e-2)
    for wrong in ("1e-4", "1e-2:1e-4", "a:b", "1:1e999"):
        with pytest.raises(ValueError, match="a range such as 1e-4:1e-2 is needed"):
            read_range(wrong)
    assert Searched.ranged(RATE, 1e-4, 1e-2, 1e-3).default == 1e-3
