"""A results folder that is renamed, deleted or replaced during a training ends the command, and is not made again."""

from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[str, str]]

LOSS = """
import shutil
from pathlib import Path
from torch import nn

class Mover(nn.Module):
    '''L1 that does something to the store once.'''

    steps = 0

    def forward(self, sr, hr):
        Mover.steps += 1
        if Mover.steps == {step}:
            {what}
        return (sr - hr).abs().mean()
"""

TRAIN = ("train", "quick", "--train", "mine=train", "--test", "few=test", "--backbone", "edsr-tiny", "--seeds", "0")
TRAIN += ("--metric", "psnr_y", "--set", "recipe.batch=2", "--set", "recipe.patch=8", "--set", "recipe.steps=20")


@pytest.mark.parametrize(
    ("name", "what", "there"),
    [
        ("renamed", "Path('store').rename('elsewhere')", []),
        ("deleted", "shutil.rmtree('store')", []),
        ("replaced", "Path('store').rename('elsewhere'); Path('store').mkdir()", ["store"]),
    ],
)
def test_it_ends_in_a_sentence(run: Run, place: Path, name: str, what: str, there: list[str]) -> None:
    run(*TRAIN, "--loss", "l1", "--results", "store")
    module = f"mover_{name}"
    (place / f"{module}.py").write_text(LOSS.format(step=12, what=what))  # a rehearsal takes steps too
    _, err = run(*TRAIN, "--loss", f"{module}:Mover", "--results", "store", code=1)
    (last,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert str(place / "store") in last
    assert "Traceback" not in err
    assert [str(path.relative_to(place)) for path in place.glob("store*")] == there
    assert list(place.glob("store/*")) == []
    if name != "deleted":
        run("results", "verify", "elsewhere")
