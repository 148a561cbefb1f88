"""The average of the weights is torch's."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sgbench.training.averaging import Average


class Network(nn.Module):
    """Has buffers, of numbers and of counts, and one that a step replaces."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls = self.calls + 1
        return self.layers(x)


def test_it_is_that_of_torch_to_the_bit_and_continues_from_what_was_saved():
    torch.manual_seed(0)
    network = Network().to(memory_format=torch.channels_last)
    theirs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    ours = Average(network, 0.9)
    for step in range(6):
        optimizer.zero_grad()
        network(torch.rand(2, 3, 5, 5)).square().mean().backward()
        optimizer.step()
        ours.update()
        theirs.update_parameters(network)
        if step == 3:
            saved = {name: value.clone() for name, value in ours.weights().items()}
            ours = Average(network, 0.9)
            ours.load(saved)
    expected = theirs.module.state_dict()
    averaged = ours.weights()
    assert averaged.keys() == expected.keys()
    assert all(torch.equal(averaged[name], expected[name]) for name in expected)
    assert not torch.equal(averaged["layers.0.weight"], network.layers[0].weight)
