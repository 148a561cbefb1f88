import dataclasses
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sgbench.metrics import METRICS, Display, display_of
from sgbench.metrics.distortion import psnr_y


@pytest.mark.parametrize(
    ("name", "unit", "shown"),
    [
        ("lpips_alex", "", "1.2346"),
        ("fid", "", "1.23"),
        ("kid_standard", "", "1.2346"),
        ("fd_alex", "", "1.235"),
        ("psnr_rgb", "dB", "1.23"),
        ("ssim_y", "", "1.2346"),
    ],
)
def test_a_built_in_metric_is_shown_as_it_declares(name: str, unit: str, shown: str) -> None:
    assert (display_of(name).unit, display_of(name).number(1.23456)) == (unit, shown)
    assert display_of(name).direction == METRICS.load(name).direction


def test_built_in_metrics_have_an_order_and_others_follow() -> None:
    names = [name for name in METRICS.names() if name in METRICS._targets]
    assert sorted(names, key=lambda name: display_of(name).rank) == [
        *("lpips_alex", "lpips_vgg", "lpips_squeeze", "dists", "flip", "ssimulacra2"),
        *("fid", "kid", "kid_standard", "fd_alex", "fd_dinov2"),
        *("psnr_y", "psnr_rgb", "ssim_y", "ssim_rgb", "niqe", "lr_psnr", "ntire2025"),
    ]
    assert len({display_of(name).rank for name in names}) == len(names)
    assert display_of("theirs").rank > max(display_of(name).rank for name in names)


@pytest.mark.parametrize("name", ["psnr_theirs", "no_such_module:metric", "torchmetrics:vif"])
def test_a_metric_whose_code_is_not_loaded_has_four_significant_digits_and_no_unit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METRICS, "_loaded", {})
    assert display_of(name) == Display()
    assert [display_of(name).number(value) for value in (0.000123456, 27.98765, -0.0)] == ["0.0001235", "27.99", "0"]
    assert display_of(name).number(0.5, "+") == "+0.5"


def test_what_a_plug_in_declares_counts_once_its_code_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METRICS, "_loaded", {})
    METRICS.register("mine")(dataclasses.replace(psnr_y, name="mine", unit="%", digits=1, rank=5))
    assert display_of("mine") == Display("%", 1, 5, "higher")
    assert display_of("mine").number(-0.04) == "0.0"


PLUGIN = """
raise SystemExit("nobody runs this")

import sgbench
DIGITS = 7

@sgbench.metric(direction="lower", unit="dB", digits=1)
def first(sr, hr):
    return 1

second = sgbench.metric(name="plain_text:second", direction="lower", rank=50, digits=DIGITS)(first)
third: object = Third(unit="a\\nb", digits=99, rank=5)
"""


def test_a_plug_in_that_is_not_loaded_is_read_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "plain_text.py").write_text(PLUGIN)
    (tmp_path / "no_text.py").write_text("first = metric(digits=1")
    shown = [display_of(f"plain_text:{name}") for name in ("first", "second", "third", "fourth")]
    assert shown == [Display("dB", 1), Display(rank=50), Display(rank=5), Display()]
    assert display_of("no_text:first") == Display()
    (tmp_path / "of_a_lab" / "inner").mkdir(parents=True)
    (tmp_path / "of_a_lab" / "inner" / "mine.py").write_text("first = Metric(digits=3)")
    assert display_of("of_a_lab.inner.mine:first") == Display(digits=3)
    assert "plain_text" not in sys.modules


def test_what_is_shown_loads_neither_torch_nor_a_plug_in() -> None:
    code = f"""
        import sys
        from sgbench.metrics import display_of
        for name in {[*METRICS.names(), "torchmetrics:vif", "this:that"]}:
            display_of(name)
        sys.exit(str(sorted({{"torch", "torchmetrics", "skimage", "this"}} & sys.modules.keys())))
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False, capture_output=True, text=True)
    assert ended.stderr == "[]\n"
