"""What the documentation says of the variants of metrics is what they give."""

import re
from pathlib import Path

import pytest

from sgbench.assets.base import networks_folder
from sgbench.assets.locator import Locator
from sgbench.calibration.pictures import photograph
from sgbench.calibration.variants import VARIANTS, values
from sgbench.core.registry import METRICS

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"

WEIGHTS = networks_folder()
"""Where this machine has networks, if it has any."""

SLOW = ("lpips_vgg", "lpips_squeeze")


def documented() -> dict[tuple[str, str], str]:
    """Return the values in the table of `docs/metrics.md`, by name and variant."""
    section = PAGE.read_text(encoding="utf-8").partition("## Where public numbers disagree")[2].partition("\n## ")[0]
    rows = [re.split(r"(?<!\\) \| ", line.strip("| \n")) for line in section.splitlines() if line.startswith("| ")]
    return {(row[0], row[1].replace("\\", "")): row[-1] for row in rows[2:]}


def test_every_variant_is_documented_and_no_other():
    assert set(documented()) == {(each.called, each.text) for each in VARIANTS}
    for each in VARIANTS:
        if isinstance(each.compute, str) and not METRICS.is_provided(each.compute):
            assert METRICS.load(each.compute)


@pytest.mark.parametrize("name", ["PSNR", "SSIM", "LPIPS", "NIQE", "FID"])
def test_what_is_documented_is_what_they_give(name, cache):
    table = documented()
    chosen = [each for each in VARIANTS if each.called == name and each.compute not in SLOW]
    for value in values(photograph(), Locator(WEIGHTS, download=False), chosen):
        if value.value is not None:
            assert f"{value.value:.{value.variant.digits}f}" == table[name, value.variant.text]
        elif not re.search("weights|pyiqa", str(value.reason)):
            pytest.fail(f"{value.variant.text}: {value.reason}")
