"""How much closer to the HR image one run is than another, at each pixel of an image."""

from collections.abc import Iterable, Iterator

import numpy as np

from sgbench.assets.base import MissingWeights
from sgbench.assets.locator import Locator
from sgbench.core.errors import InputError
from sgbench.metrics import Image, Pair, Runtime
from sgbench.metrics.lpips import lpips_alex
from sgbench.report.figures.regions import Map
from sgbench.report.figures.saved_images import SavedImages


def lpips_differences(saved: SavedImages, a: str, b: str, indices: Iterable[int]) -> Iterator[tuple[int, Map, Map]]:
    """Yield images of a set, each with LPIPS (AlexNet) of a run less that of another, on a CPU, and with their error.

    Args:
        saved: The set, and what the runs made of it.
        a: Id of the run whose LPIPS is subtracted.
        b: Id of the run that is better where the difference is negative.
        indices: Of the images, of at least 31×31 pixels.

    Yields:
        The index, and at each pixel, [H, W], the difference, and |SR − HR| of the run where it is larger, 0 to 255.

    Raises:
        InputError: If the weights of AlexNet are not on this machine, or an image cannot be read.
    """
    runtime = _runtime()
    for index in indices:
        hr = Image(saved.images.hr(index).transpose(2, 0, 1))
        pairs = [Pair(saved.name(index), saved.sr(run, index).transpose(2, 0, 1), hr, 0) for run in (a, b)]
        of_a, of_b = (lpips_alex.map(pair, runtime) for pair in pairs)
        errors = [np.abs(pair.sr.pixels.astype(np.int16) - hr.pixels).mean(axis=0) for pair in pairs]
        yield index, of_b - of_a, np.maximum(*errors)


def _runtime() -> Runtime:
    locator = Locator(download=False)
    try:
        return Runtime({name: locator.load(name) for name in lpips_alex.networks})
    except MissingWeights as reason:
        networks = " ".join(lpips_alex.networks)
        raise InputError(
            f"parts are chosen by LPIPS, and the {networks} weights are not on this machine; "
            f"`sgbench weights fetch {networks}` brings them, or choose a part with --image and --box."
        ) from reason
