import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sgbench.core.errors import InputError
from sgbench.losses.pixel import EPS_FLOOR, L1, L2, Charbonnier

values = st.floats(-1, 2, width=32)
pairs = hnp.array_shapes(min_dims=4, max_dims=4, max_side=5).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.float64, shape, elements=values)] * 2)
)


@given(pair=pairs, eps=st.sampled_from([1e-3, 0.1]))
@pytest.mark.parametrize(
    ("loss", "of_differences"),
    [
        (lambda eps: L1(), lambda d, eps: np.abs(d)),
        (lambda eps: L2(), lambda d, eps: d**2),
        (lambda eps: Charbonnier(eps=eps), lambda d, eps: np.hypot(d, eps)),
    ],
    ids=["l1", "l2", "charbonnier"],
)
def test_it_is_its_formula_in_numpy(loss, of_differences, pair, eps):
    sr, hr = pair
    found = loss(eps)(torch.from_numpy(sr), torch.from_numpy(hr)).item()
    assert found == pytest.approx(of_differences(sr - hr, eps).mean(), rel=1e-12, abs=1e-300)


def test_charbonnier_is_l1_where_the_difference_is_large_and_has_no_slope_where_it_is_nothing():
    sr = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64).requires_grad_()
    hr = torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64)
    (slope,) = torch.autograd.grad(Charbonnier()(sr, hr), sr)
    torch.testing.assert_close(3 * slope, torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64), rtol=1e-5, atol=0)


@pytest.mark.parametrize("eps", [EPS_FLOOR, 1e-3])
def test_charbonnier_has_a_finite_gradient_at_equal_images(eps):
    sr = torch.full((1, 3, 4, 4), 0.7).requires_grad_()
    loss = Charbonnier(eps=eps)(sr, sr.detach())
    loss.backward()
    assert loss.item() == pytest.approx(eps)
    assert torch.equal(sr.grad, torch.zeros_like(sr))


@pytest.mark.parametrize("eps", [0.0, -1e-3, 1e-16, 1.0, math.inf, math.nan])
def test_an_eps_out_of_range_is_refused(eps):
    with pytest.raises(InputError, match=f"eps is {eps}; a number from 1e-15 to below 1 is needed"):
        Charbonnier(eps=eps)
