"""``sgbench backbones``, ``losses`` and ``metrics``: what there is, also when a plug-in is broken."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sgbench.assets.catalogue import NETWORKS
from sgbench.backbones import build_backbone, count_parameters
from sgbench.backbones.cost import measure
from sgbench.core.registry import BACKBONES, LOSSES, METRICS
from sgbench.spec import backbone_sizes, check_loss, expression

Run = Callable[..., tuple[str, str]]

PLUG_INS = '''
from torch import nn, zeros


class Net(nn.Module):
    """One layer, defined by a user.

    More about it.
    """

    def __init__(self, *, scale: int) -> None:
        super().__init__()
        linear, conv = nn.Linear(48, 48, bias=False), nn.Conv2d(3, 3 * scale**2, 1)
        self.layers = nn.Sequential(linear, conv, nn.PixelShuffle(scale))
        self.first = zeros(1).item()  # cannot be read on the device that counts

    def forward(self, lr):
        return self.layers(lr)


class Unbuilt(Net):
    def __init__(self, *, scale: int) -> None:
        raise OSError("its file is not here\\nsecond line")


class Shapeless(Net):
    def forward(self, lr):
        return lr[:, 3] @ lr


class Loss(nn.Module):
    def __init__(self, *, sigma, on: bool = False, kind: str = "soft", **more) -> None:
        super().__init__()
'''

ENTRY_POINTS = """
[sgbench.backbones]
plain = plug_ins:Net
unbuilt = plug_ins:Unbuilt
shapeless = plug_ins:Shapeless
function = plug_ins:zeros
gone = plug_ins:Gone

[sgbench.losses]
own = plug_ins:Loss
gone = plug_ins:Gone

[sgbench.metrics]
wrong = plug_ins:Net
gone = no_such_module:metric
"""


@pytest.fixture
def plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package some of whose entry points are broken; of the built-in backbones only EDSR, for speed."""
    (tmp_path / "plug_ins.py").write_text(PLUG_INS)
    metadata = tmp_path / "plug_ins-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-ins\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(BACKBONES, "_targets", {"edsr": BACKBONES._targets["edsr"]})
    for registry in (BACKBONES, LOSSES, METRICS):
        monkeypatch.setattr(registry, "_loaded", {})


def by_name(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in rows}


# Backbones


def test_every_size_of_every_backbone_has_a_row(run: Run) -> None:
    listed = json.loads(run("backbones", "--json", "--scale", "3")[0])
    assert (listed["scale"], listed["input"]) == (3, [48, 48])
    rows = by_name(listed["backbones"])
    assert list(rows) == [f"{family}-{size}" for family in BACKBONES.names() for size in backbone_sizes(family)]
    for name, row in rows.items():
        assert row["error"] is None
        assert row["source"]
        if not name.endswith("-paper"):
            assert row["parameters"] == count_parameters(build_backbone(name, 3))
    assert rows["edsr-paper"]["mean_shift"] is True
    assert rows["rdn-paper"]["mean_shift"] is False
    pytest.importorskip("spandrel")
    assert {"spandrel:SwinIR", "spandrel:ESRGAN"} <= set(listed["spandrel"])


def conv(inputs: int, outputs: int, side: int) -> int:
    """Multiplications of a 3×3 convolution that keeps a square's side."""
    return 9 * inputs * outputs * side**2


@pytest.mark.parametrize(("name", "blocks", "channels"), [("edsr-paper", 32, 256), ("edsr-tiny", 4, 16)])
def test_operations_are_those_that_one_counts_by_hand(name: str, blocks: int, channels: int) -> None:
    body = conv(3, channels, 48) + (2 * blocks + 1) * conv(channels, channels, 48)
    twice = conv(channels, 4 * channels, 48) + conv(channels, 3, 96)
    assert measure(name, 2, 48).macs == body + twice
    thrice = conv(channels, 9 * channels, 48) + conv(channels, 3, 144)
    assert measure(name, 3, 48).macs == body + thrice
    four_times = conv(channels, 4 * channels, 48) + conv(channels, 4 * channels, 96) + conv(channels, 3, 192)
    assert measure(name, 4, 48).macs == body + four_times


@pytest.mark.usefixtures("plug_ins")
def test_a_backbone_that_cannot_be_used_is_a_row_with_the_reason(run: Run) -> None:
    rows = by_name(json.loads(run("backbones", "--json")[0])["backbones"])
    assert list(rows) == ["edsr-paper", "edsr-light", "edsr-tiny", "function", "gone", "plain", "shapeless", "unbuilt"]
    assert rows["plain"] == {
        "name": "plain",
        "parameters": 48 * 48 + 3 * 48 + 48,
        "macs": 3 * 48 * 48 * 48 + 3 * 48 * 48 * 48,
        "mean_shift": False,
        "source": "One layer, defined by a user.",
        "error": None,
    }
    errors = {name: row["error"] for name, row in rows.items() if row["error"]}
    assert errors.keys() == {"function", "gone", "shapeless", "unbuilt"}
    assert errors["gone"].startswith("backbone 'gone' cannot be imported from 'plug_ins:Gone': ")
    assert errors["unbuilt"] == "backbone 'unbuilt': OSError: its file is not here."
    assert errors["shapeless"].startswith("IndexError: ")

    out, _ = run("backbones")
    assert "its file is not here" in out
    assert "43,089,923   115.78   yes" in out
    assert out.count("Lim et al.") == 1  # once a family


@pytest.mark.usefixtures("plug_ins")
@pytest.mark.parametrize(
    ("installed", "said"),
    [(True, "(installed; --json lists them)"), (False, "(not installed: pip install 'sgbench[spandrel]')")],
)
def test_a_line_says_whether_spandrel_is_there(
    run: Run, monkeypatch: pytest.MonkeyPatch, installed: bool, said: str
) -> None:
    if installed:
        pytest.importorskip("spandrel")
    else:
        monkeypatch.setitem(sys.modules, "spandrel", None)
        assert json.loads(run("backbones", "--json")[0])["spandrel"] is None
    _, err = run("backbones")
    assert err.startswith("Parameters and GMACs are for ×4, GMACs for an input of 48×48 pixels.\n")
    assert (
        f"Also: spandrel:ARCH, an architecture of the library spandrel {said}, and your own as my_module:MyNet" in err
    )


# Losses


def test_every_loss_is_listed_with_options_that_an_expression_takes(run: Run) -> None:
    rows = json.loads(run("losses", "--json")[0])
    assert [row["name"] for row in rows] == LOSSES.names()
    for row in rows:
        assert (bool(row["summary"]), bool(row["source"]), row["error"]) == (True, True, None)
        written = expression.Term(row["name"], options=row["options"]).call
        assert str(check_loss(written)) == row["name"]  # for these are the defaults
    assert by_name(rows)["l1"]["options"] == {}
    assert by_name(rows)["sg"]["options"] == {"operator": "central", "order": 2, "eps": 1e-8}
    listed = run("losses")[0]
    assert "sg(eps=1e-08, operator=central," in listed
    assert "pytorch-msssim 1.0.0: ≤ 2e-05" in listed


@pytest.mark.usefixtures("plug_ins")
def test_a_loss_that_cannot_be_imported_is_a_row_with_the_reason(run: Run) -> None:
    rows = by_name(json.loads(run("losses", "--json")[0]))
    assert rows["gone"]["error"].startswith("loss 'gone' cannot be imported from 'plug_ins:Gone': ")
    assert rows["own"] == {
        "name": "own",
        "options": {"sigma": None, "on": False, "kind": "soft"},
        "summary": None,
        "source": None,
        "networks": [],
        "reference": None,
        "difference": None,
        "error": None,
    }
    out, err = run("losses")
    assert "own(kind=soft, on=false," in out
    assert "loss 'gone' cannot be imported" in out
    assert err == (
        "Also: your own as my_module:MyLoss.\n"
        "Discriminators of gan: patch, unet, vgg, or your own as my_module:MyDiscriminator.\n"
    )


# Metrics


def test_every_metric_is_listed_with_what_it_needs(run: Run) -> None:
    rows = json.loads(run("metrics", "--json")[0])
    assert [row["name"] for row in rows] == METRICS.names()
    for row in rows:
        metric = METRICS.load(row["name"])
        for key in ("direction", "version", "unit", "digits", "rank", "description", "source"):
            assert row[key] == getattr(metric, key)
        assert row["protocol"] == dict(metric.protocol)
        assert list(row["networks"]) == list(metric.networks)
        assert row["error"] is None
    assert {name: by_name(rows)[name]["of"] for name in ("psnr_y", "fid")} == {"psnr_y": "image", "fid": "set"}


def test_a_metric_says_whether_its_network_is_here(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sgbench.assets.locator.Locator.find", lambda self, name: tmp_path if name == "alexnet" else None
    )
    rows = by_name(json.loads(run("metrics", "--json")[0]))
    assert rows["lpips_alex"]["networks"] == {"alexnet": "here"}
    assert rows["fid"]["networks"] == {"inception": "not here"}
    monkeypatch.setattr("sgbench.cli.output._WIDE", 500)  # no cell is broken
    out, err = run("metrics")
    assert "inception: not here" in out
    assert out.index("lpips_alex ↓") < out.index("dists ↓") < out.index("psnr_y ↑")
    assert "psnr_y ↑" in out
    assert err.startswith("Networks: 'sgbench weights list' gives their sources.\n")
    assert "\nAlso torchmetrics:NAME (installed): ms_ssim, uqi, vif.\nAlso pyiqa:NAME (" in err
    assert "\nShort names: lpips is lpips_alex, psnr is psnr_y, ssim is ssim_y.\n" in err
    assert err.endswith("\nAnd your own as my_module:metric.\n")


def test_one_metric_is_shown_with_its_whole_protocol(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgbench.assets.locator.Locator.find", lambda self, name: None)
    out, err = run("metrics", "show", "fid", "psnr", "torchmetrics:vif")
    first, second, third = out.strip().split("\n\n")
    assert first.splitlines()[0] == "fid ↓               Fréchet inception distance, pytorch-fid's protocol"
    assert "networks: inception: not here" in first
    assert "resize: 299×299, bilinear, no antialias, aspect ignored" in first
    assert second.splitlines()[1:3] == [" " * 20 + line for line in ("better: higher values, in dB", "of each: image")]
    assert "border crop: scale" in second
    assert "resize: none" in second
    assert "implementation: torchmetrics.functional.image.visual_information_fidelity" in third
    assert "metric 'psnr' is psnr_y" in err
    shown = json.loads(run("metrics", "show", "fid", "--json")[0])
    assert shown == [by_name(json.loads(run("metrics", "--json")[0]))["fid"]]
    assert "unknown metric 'fib': did you mean 'fid'" in run("metrics", "show", "fib", code=2)[1]


def test_a_network_whose_file_is_not_sound_is_said_to_be_so(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGBENCH_WEIGHTS", str(tmp_path))
    (tmp_path / NETWORKS.load("inception").file).write_bytes(b"half a file")
    (where,) = by_name(json.loads(run("metrics", "--json")[0]))["fid"]["networks"].values()
    assert "is needed; delete it" in where


@pytest.mark.usefixtures("plug_ins")
def test_a_metric_that_cannot_be_used_is_a_row_with_the_reason(run: Run) -> None:
    rows = by_name(json.loads(run("metrics", "--json")[0]))
    assert rows["gone"]["error"].startswith("metric 'gone' cannot be imported from 'no_such_module:metric': ")
    assert rows["wrong"]["error"] == (
        "metric 'wrong' is a Net; a metric, such as '@sgbench.metric(direction=…)' makes of a function, is needed."
    )
    assert "metric 'gone' cannot be imported" in run("metrics")[0]
