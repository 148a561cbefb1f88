"""Inception with random weights."""

from pathlib import Path

import pytest
import pytorch_fid.inception
import torch

from sgbench.assets.base import LoadedWeights
from sgbench.assets.tensors import fingerprint


@pytest.fixture(scope="session")
def inception_weights() -> LoadedWeights:
    """Random weights for pytorch-fid's Inception, of a size with which its features depend on the image."""
    torch.manual_seed(3)
    network = pytorch_fid.inception._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    network.Mixed_5b = pytorch_fid.inception.FIDInceptionA(192, pool_features=32)
    network.Mixed_5c = pytorch_fid.inception.FIDInceptionA(256, pool_features=64)
    network.Mixed_5d = pytorch_fid.inception.FIDInceptionA(288, pool_features=64)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    state = network.state_dict()
    return LoadedWeights(fingerprint(state), Path("random"), state)
