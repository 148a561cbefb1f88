import random

import numpy as np
import timm
import torch
from torch import nn

from pyiqa.utils.download_util import load_file_from_url


class PSNR(nn.Module):
    def __init__(self, test_y_channel=False, crop_border=0, eps=1e-8):
        super().__init__()
        self.crop_border, self.eps = crop_border, eps

    def forward(self, x, y):
        assert x.shape == y.shape
        assert x.dtype == torch.float32
        return 10 * torch.log10(1 / ((x - y).square().mean((1, 2, 3)) + self.eps))


class Contrast(nn.Module):
    def forward(self, x):
        if x.shape[-1] < 16:
            raise RuntimeError("Padding size should be less than the input")
        return x.std() / x.std()


class RandomCrop(nn.Module):
    def forward(self, x):
        row, column = np.random.randint(0, 8), random.randrange(8)
        return x[..., row : row + 8, column : column + 8].mean() + torch.rand(1)


class Weighted(nn.Module):
    def __init__(
        self, file, backbone=False, test_y_channel=False, color_space="yiq", crop_border=0, test_img_size=None
    ):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(3))
        if backbone:
            self.backbone = timm.create_model("vit_base_patch8_224", pretrained=True)
        path = load_file_from_url(f"https://huggingface.co/somebody/{file}")
        if file.endswith(".mat"):
            self.scale.data.fill_(float(open(path).read()))  # noqa: PTH123, SIM115
        else:
            self.load_state_dict(torch.load(path, weights_only=False), strict=False)

    def forward(self, x):
        weighted = (x * self.scale.view(1, 3, 1, 1)).mean()
        return weighted + self.backbone(x.mean((2, 3))).mean() if hasattr(self, "backbone") else weighted
