import torch
from torch import nn

from sgbench.backbones import build_backbone
from sgbench.backbones.rdn import DenseLayer


def test_weights_for_8_bit_values_become_weights_for_unit_values_by_dividing_biases():
    network = build_backbone("rdn-tiny", 4).double()
    image = torch.rand(1, 3, 5, 6, dtype=torch.float64)
    on_8_bits = network(255 * image) / 255
    assert (on_8_bits - network(image)).abs().max() > 1e-3
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.data /= 255
    torch.testing.assert_close(network(image), on_8_bits)


def test_a_dense_layer_appends_to_what_it_is_given():
    layer, x = DenseLayer(4, 3), torch.randn(2, 4, 5, 5)
    out = layer(x)
    assert out.shape == (2, 7, 5, 5)
    assert torch.equal(out[:, :4], x)
    assert torch.equal(out[:, 4:], layer.conv(x).relu())


def test_every_block_is_fused():
    """With all but one block's share of the fusion zeroed, that block still reaches the output."""
    for kept in range(3):
        network = build_backbone("rdn-tiny", 2)
        weight = network.gff[0].weight.data
        for block in range(3):
            if block != kept:
                weight[:, 16 * block : 16 * (block + 1)] = 0
        image = torch.rand(1, 3, 4, 4)
        before = network(image)
        nn.init.zeros_(network.rdbs[kept].lff.weight)
        assert not torch.equal(network(image), before)
