import torch
from torch import nn

from sgbench.backbones import build_backbone
from sgbench.backbones.rcan import ChannelAttention


def test_attention_scales_channels_by_a_function_of_their_means():
    attention, x = ChannelAttention(8, 4), torch.randn(2, 8, 5, 6)
    narrow, wide = attention.attention[1], attention.attention[3]
    assert narrow.weight.shape == (2, 8, 1, 1)
    hidden = (x.mean((2, 3)) @ narrow.weight[:, :, 0, 0].T + narrow.bias).relu()
    gains = (hidden @ wide.weight[:, :, 0, 0].T + wide.bias).sigmoid()
    torch.testing.assert_close(attention(x), x * gains[:, :, None, None])


def test_a_group_without_its_last_convolution_passes_its_input_on():
    group, x = build_backbone("rcan-tiny", 2).body[0], torch.randn(1, 16, 5, 5)
    assert not torch.equal(group(x), x)
    for parameter in group.conv.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(group(x), x)


def test_the_papers_network_has_ten_groups_of_twenty_blocks():
    with torch.device("meta"):
        body = build_backbone("rcan-paper", 4).body
    assert [len(group.residual_group) for group in body] == [20] * 10
