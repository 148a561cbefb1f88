"""What published code computes of feature maps, and how `published_perceptual.json` was made.

    python tests/losses/published_perceptual.py FOLDER CONTEXTUAL

FOLDER is that of `references.py`, with the losses of basicsr 1.4.2, and CONTEXTUAL a clone of
github.com/S-aiueo32/contextual_loss_pytorch at commit c886571. The files are used as they are. Numbers that go in are
made here, from seeds alone.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import references
import torch
from references import uniform, value_and_slopes

FILE = Path(__file__).with_suffix(".json")


def maps():
    """Return feature maps of an SR and of an HR image, as after an activation, in the place of both."""
    hr, noise = (torch.relu(uniform(seed, 1, 12, 7, 6) - 0.3) for seed in (5, 6))
    return replace(references.batch(32), sr=hr + 0.5 * noise, hr=hr)


def result(function):
    """Return a function's value for the maps, and its slopes."""
    given = maps()
    value, slopes = value_and_slopes(lambda sr: function(sr, given.hr), given)
    return {"value": value, "slopes": slopes}


def main(folder, contextual):
    """Write `published_perceptual.json`."""
    sys.path += [contextual]
    from contextual_loss.functional import contextual_loss

    basicsr, _ = references._of_repositories(Path(folder))

    def gram(maps):
        return basicsr.PerceptualLoss._gram_mat(None, maps)

    rows = {
        "style": result(lambda sr, hr: (gram(sr) - gram(hr)).abs().mean()),
        "contextual": result(lambda sr, hr: contextual_loss(sr, hr, band_width=0.5)),
        "contextual(h=0.1)": result(lambda sr, hr: contextual_loss(sr, hr, band_width=0.1)),
    }
    FILE.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
