import copy
import pickle

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

from sgbench.backbones import build_backbone, recompute_activations
from sgbench.core.errors import InputError

FAMILIES = ["edsr", "rdn", "rcan", "swinir"]


class Noisy(nn.Module):
    """A block with noise of its own, which counts how often it is computed."""

    def __init__(self):
        super().__init__()
        self.gain, self.calls = nn.Parameter(torch.ones(())), 0

    def forward(self, x, *, share=0.5):
        self.calls += 1
        return functional.dropout(torch.exp(self.gain * x), share, self.training)


class Network(nn.Module):
    recomputed = (Noisy,)

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Noisy(), Noisy())

    def forward(self, x):
        return self.blocks[1](self.blocks[0](x), share=0.25)


def train_step(network, image):
    """Return the output, all gradients, and the bytes that were kept for the backward pass."""
    kept = {}

    def keep(tensor):
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    torch.manual_seed(0)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(image)
    output.square().sum().backward()
    return output, [parameter.grad for parameter in network.parameters()], sum(kept.values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_numbers_are_the_same_and_less_is_kept(family, memory_format):
    plain = build_backbone(f"{family}-tiny", 2).to(memory_format=memory_format)
    thrifty = copy.deepcopy(plain)
    recompute_activations(thrifty)
    assert thrifty.state_dict().keys() == plain.state_dict().keys()
    image = torch.rand(2, 3, 9, 8).to(memory_format=memory_format)
    output, gradients, kept = train_step(plain, image)
    output_again, gradients_again, kept_again = train_step(thrifty, image)
    assert torch.equal(output, output_again)
    assert all(torch.equal(*pair) for pair in zip(gradients, gradients_again, strict=True))
    assert kept_again < 0.75 * kept


@pytest.mark.parametrize("frozen", ["eval", "no_grad"])
def test_nothing_is_computed_twice_where_there_is_nothing_to_keep(frozen):
    network = Network()
    recompute_activations(network)
    network.train(frozen != "eval")
    with torch.set_grad_enabled(frozen != "no_grad"):
        output = network(torch.rand(3))
    if frozen == "eval":
        output.sum().backward()
    assert [block.calls for block in network.blocks] == [1, 1]


def test_noise_and_options_of_a_block_are_the_same_the_second_time():
    plain = Network()
    thrifty = copy.deepcopy(plain)
    recompute_activations(thrifty)
    x = torch.rand(50)
    output, gradients, _ = train_step(plain, x)
    output_again, gradients_again, _ = train_step(thrifty, x)
    assert [block.calls for block in thrifty.blocks] == [2, 2]
    assert torch.equal(output, output_again)
    assert gradients == gradients_again


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_recomputes_with_its_own_weights(duplicate):
    network, image = build_backbone("edsr-tiny", 2), torch.rand(1, 3, 6, 6)
    recompute_activations(network)
    twin = duplicate(network)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    output, gradients, kept = train_step(twin, image)
    assert not torch.equal(output, network(image))
    assert all(gradient is not None for gradient in gradients)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert kept == train_step(network, image)[2]


def test_a_network_that_names_no_blocks_is_bad_input():
    with pytest.raises(InputError, match="backbone 'Linear' does not name its 'recomputed' blocks"):
        recompute_activations(nn.Linear(1, 1))
