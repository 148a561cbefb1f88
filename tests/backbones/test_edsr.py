import torch
from torch import nn

from sgbench.backbones import build_backbone
from sgbench.backbones.layers import MeanShift


def test_the_mean_shift_is_undone():
    shift, image = MeanShift().double(), torch.rand(1, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(shift.leave(shift.enter(image)), image)
    mean = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)
    torch.testing.assert_close(MeanShift().enter(mean + 0.1), torch.full((1, 3, 1, 1), 25.5))


def test_blocks_add_a_scaled_residual():
    """With res_scale 0.1 the last convolution of a block counts a tenth of what it counts with 1.0."""
    network = build_backbone("edsr-light", 2)
    block = network.body[0]
    x = torch.rand(1, 64, 5, 5)
    whole = block(x) - x
    block.res_scale = 0.1
    torch.testing.assert_close(block(x) - x, 0.1 * whole, rtol=1e-4, atol=1e-6)
    with torch.device("meta"):
        assert build_backbone("edsr-paper", 2).body[0].res_scale == 0.1


def test_without_weights_the_output_is_the_mean_colour():
    network = build_backbone("edsr-tiny", 2)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(network(torch.rand(1, 3, 4, 4)), network.shift.mean.expand(1, 3, 8, 8))
