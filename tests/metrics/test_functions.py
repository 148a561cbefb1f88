import pickle
import re
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

import sgbench
from sgbench.core.errors import InputError
from sgbench.core.registry import METRICS
from sgbench.losses.pixel import L2
from sgbench.metrics import Pair, Runtime, Score, Undefined
from sgbench.metrics.distortion import psnr_rgb

SR, HR = np.random.default_rng(0).integers(0, 256, (2, 3, 20, 24), np.uint8)
PAIR = Pair("a", SR, HR, crop=4, lr=SR[:, ::4, ::4])


@sgbench.metric(direction="lower", unit="levels", digits=2)
def mae(sr, hr):
    """Mean absolute difference.

    Of all values.
    """
    return 255 * (sr - hr).abs().mean()


def value_of(metric, pair=PAIR):
    return metric.score(pair, Runtime())


def test_a_function_is_a_metric_by_its_name_and_its_first_line():
    assert METRICS.load(f"{__name__}:mae") is mae
    assert (mae.name, mae.description, mae.source) == (f"{__name__}:mae", "Mean absolute difference.", mae.name)
    assert (mae.unit, mae.digits, mae.version, mae.needs_hr) == ("levels", 2, "1", True)
    assert mae.protocol == {
        "implementation": f"{__name__}:mae",
        "colour_space": "RGB",
        "value_range": [0, 1],
        "border_crop": None,
        "resize": None,
    }
    assert value_of(mae) == pytest.approx(np.abs(SR.astype(float) - HR).mean())
    assert mae(torch.ones(1), torch.zeros(1)) == 255


def test_a_function_gets_what_a_loss_gets():
    given = []

    @sgbench.metric(direction="lower")
    def look(sr, hr):
        given.extend((sr, hr))
        return sr.requires_grad_().mean().requires_grad

    assert value_of(look) == 0
    for image, pixels in zip(given, (SR, HR), strict=True):
        assert (image.dtype, image.shape) == (torch.float32, (1, 3, 20, 24))
        assert torch.equal(image[0].detach(), torch.from_numpy(pixels) / 255)


def test_a_loss_of_the_catalogue_is_a_metric():
    mse = sgbench.metric(name=f"{__name__}:mse", direction="lower")(L2())
    assert mse.protocol["implementation"] == "sgbench.losses.pixel:L2"
    cropped = sgbench.metric(name="mse", direction="lower", crop=True)(L2())
    assert -10 * np.log10(value_of(cropped)) == pytest.approx(psnr_rgb.score(PAIR), abs=1e-5)
    assert value_of(mse) == pytest.approx(np.mean((SR / 255 - HR / 255) ** 2))


def test_a_module_is_evaluated_without_gradients():
    class Network(nn.Module):
        networks = ("alexnet",)

        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 1, 3), nn.Dropout(0.5))

        def forward(self, sr):
            assert not self.training
            return self.layers(sr).mean()

    metric = sgbench.metric(name="network", direction="higher")(Network())
    assert (metric.needs_hr, metric.networks) == (False, ("alexnet",))
    assert value_of(metric) == value_of(metric)
    assert pickle.loads(pickle.dumps(sgbench.metric(name="l2", direction="lower")(L2()))).score(PAIR, Runtime()) > 0


def test_arrays_and_the_border_are_options():
    @sgbench.metric(direction="lower", uint8=True, crop=True)
    def first(sr, hr):
        assert (sr.dtype, sr.shape, sr.flags.c_contiguous, sr.flags.writeable) == (np.uint8, (12, 16, 3), True, True)
        sr[:] = 0
        return np.float32(hr[0, 0, 1])

    assert value_of(first) == HR[1, 4, 4]
    assert PAIR.sr.pixels.any()
    assert first.protocol["value_range"] == [0, 255]
    assert first.protocol["border_crop"] == "scale"
    with pytest.raises(Undefined, match="nothing is left of 24×20 pixels"):
        value_of(first, Pair("a", SR, HR, crop=10))


def test_a_function_of_one_image_needs_no_reference():
    @sgbench.metric(direction="higher", name="mean")
    def mean(sr, power=1):
        return sr.mean() ** power

    assert mean.name == "mean"
    assert not mean.needs_hr
    assert value_of(mean, PAIR.seen_by(mean)) == pytest.approx(SR.mean() / 255)


@pytest.mark.parametrize("uint8", [False, True])
def test_lr_and_the_scale_are_keywords_as_in_losses(uint8):
    @sgbench.metric(direction="lower", uint8=uint8)
    def blocks(sr, *, lr, scale=1):
        return abs((sr[::scale, ::scale] if uint8 else sr[..., ::scale, ::scale]) - lr).max()

    assert (blocks.needs_hr, blocks.needs_lr, mae.needs_lr) == (False, True, False)
    assert value_of(blocks, PAIR.seen_by(blocks)) == 0


@pytest.mark.parametrize(
    ("returned", "score"),
    [
        (2, Score(2.0)),
        (np.array([[2.5]]), Score(2.5)),
        (torch.full((1, 1, 1, 1), 2.0), Score(2.0)),
        (torch.tensor(float("nan")), Score(None, "failed", "the value is NaN")),
        (torch.ones(2, 3), Score(None, "failed", "it returns a Tensor of shape [2, 3]; one number is needed")),
        (None, Score(None, "failed", "it returns a NoneType; one number is needed")),
        ("2", Score(None, "failed", "it returns a str; one number is needed")),
        ((1.0, 2.0), Score(None, "failed", "it returns a tuple; one number is needed")),
    ],
)
def test_one_number_is_returned(returned, score):
    metric = sgbench.metric(direction="lower", name="one")(lambda sr, hr: returned)
    assert Score.of(lambda: value_of(metric)) == score


@pytest.mark.parametrize(
    ("compute", "said"),
    [
        (L2, "sgbench.metric is given the class L2; a function or an object of torch.nn.Module is needed."),
        (3, "sgbench.metric is given a int; a function or an object of torch.nn.Module is needed."),
        (lambda: 1, "metric 'mine' asks for (); (sr, hr), or (sr) without a reference, with lr and scale as keywords "),
        (lambda sr, hr, x: 1, "metric 'mine' asks for (sr, hr, x); (sr, hr), or (sr) without a reference"),
        (lambda sr, hr, *, lr, step: 1, "metric 'mine' asks for (sr, hr, lr, step); (sr, hr), or (sr)"),
        (lambda *images: 1, "metric 'mine' asks for (*images); (sr, hr), or (sr) without a reference"),
        (max, "metric 'mine': ValueError: "),
    ],
)
def test_what_no_metric_can_be_made_of_is_refused(compute, said):
    with pytest.raises(InputError, match=re.escape(said)):
        sgbench.metric(direction="lower", name="mine")(compute)


def test_a_module_needs_a_name_and_every_metric_a_valid_declaration():
    with pytest.raises(InputError, match="is given a L2, which has no name; name='module:attribute' is needed"):
        sgbench.metric(direction="lower")(L2())
    with pytest.raises(InputError, match="metric 'mse': direction is 'down'; 'lower' or 'higher' is needed"):
        sgbench.metric(direction="down", name="mse")(L2())


def test_a_function_that_is_no_metric_is_refused_with_what_makes_it_one():
    made = r"is a function; a metric, such as '@sgbench\.metric\(direction=…\)' makes of a function, is needed\."
    with pytest.raises(InputError, match=f"metric '{__name__}:value_of' {made}"):
        METRICS.load(f"{__name__}:value_of")
    with pytest.raises(InputError, match=f"metric 'value_of' {made}"):
        sgbench.register_metric(value_of)


def test_the_metric_of_a_module_is_pickled_by_reference():
    copied = pickle.loads(pickle.dumps(mae))
    assert copied.compute is mae.compute
    fsim = np.linalg.norm
    sgbench.metric(direction="lower", name="theirs")(fsim)
    assert pickle.loads(pickle.dumps(fsim)) is fsim


CELL = """
@sgbench.register_metric
@sgbench.metric(direction="lower")
def distance(sr, hr):
    return {factor} * (sr - hr).abs().mean()
"""


def test_a_cell_may_be_run_again_and_its_code_counts(monkeypatch):
    """In a notebook, where a metric is called by the name of its function."""
    main = ModuleType("__main__")
    main.sgbench, main.In = sgbench, []
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(METRICS, "_loaded", {})
    digests = []
    for factor in (1, 2, 2):
        main.In.append(CELL.format(factor=factor))
        exec(main.In[-1], vars(main))
        digests.append(METRICS.source("distance").digest)
        assert METRICS.load("distance") is main.distance
        assert value_of(main.distance) == pytest.approx(factor * np.abs(SR / 255 - HR / 255).mean())
    assert digests[0] != digests[1] == digests[2]


def test_what_a_variable_of_a_notebook_holds_counts_whole(monkeypatch):
    """With the options of the loss that it is made of."""
    main = ModuleType("__main__")
    main.sgbench, main.In = sgbench, ["from sgbench.losses.pixel import Charbonnier"]
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(METRICS, "_loaded", {})
    exec(main.In[-1], vars(main))
    digests = []
    for eps in (0.1, 0.2):
        main.In.append(f"near = sgbench.metric(direction='lower', name='near')(Charbonnier(eps={eps}))")
        exec(main.In[-1], vars(main))
        sgbench.register_metric(main.near)
        digests.append(METRICS.source("near").digest)
    assert digests[0] != digests[1]
