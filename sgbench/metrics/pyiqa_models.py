"""The models of pyiqa: made from files that were found and checked here, never from downloads, and called.

pyiqa looks for its files in folders of torch hub, and downloads what is not there without checking it. So a model is
made while these folders are a temporary one with links to the checked files, and while downloads are refused.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import random
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from sgbench.assets import tensors
from sgbench.assets.base import LoadedWeights, MissingWeights
from sgbench.assets.catalogue import NETWORKS, Network
from sgbench.core.errors import InputError, described, lacks_memory
from sgbench.metrics.base import Pair, Runtime, Undefined

if TYPE_CHECKING:
    from sgbench.metrics.from_pyiqa import PyiqaMetric

_FOLDERS = ("checkpoints", "clip", "pyiqa")
"""Those of torch hub in which torchvision, pyiqa's CLIP and pyiqa look for files."""

_ROUNDING = 1e-6
"""By how much two calls may differ, relatively, as sums on a GPU do that are added in another order."""

_making = threading.Lock()


def value(metric: PyiqaMetric, pair: Pair, runtime: Runtime) -> float:
    """Return a metric's value for one pair of images, or, without ``needs_hr``, for its SR.

    Raises:
        Undefined: If pyiqa cannot compute it for images of that size, or the value is NaN.
        InputError: If it has another value when it is called again.
        MissingWeights: If pyiqa asks for a file that the metric does not declare.
    """
    given = {name: runtime.weights[name] for name in metric.networks}
    with _making:
        model = _made(metric.model, tuple(given.items()), runtime.device)
    images = [pair.sr, pair.hr] if metric.needs_hr else [pair.sr]
    return model(*(torch.tensor(image.pixels, device=runtime.device)[None] / 255 for image in images))


class _Model:
    """A model of pyiqa, which one thread at a time may call, as some keep features between their layers."""

    def __init__(self, name: str, metric: nn.Module) -> None:
        self._name = name
        self._metric = metric
        self._lock = threading.Lock()
        self._is_steady = False

    def __call__(self, *images: Tensor) -> float:
        with self._lock, _apart():
            found = self._value(*images)
            if not self._is_steady:
                again = self._value(*images)
                if not np.isclose(found, again, rtol=_ROUNDING, atol=0):
                    raise InputError(
                        f"pyiqa:{self._name} is {found:.6g} and then {again:.6g} for one image, as it cuts out parts "
                        "at random; such a number cannot be compared"
                    )
                self._is_steady = True
            return found

    def _value(self, *images: Tensor) -> float:
        height, width = images[0].shape[-2:]
        try:
            found = self._metric(*images)
        except Exception as error:
            if lacks_memory(error):
                raise
            raise Undefined(f"pyiqa cannot compute it for {width}×{height} pixels: {described(error)}") from error
        if np.isnan(number := float(found)):
            raise Undefined(f"pyiqa's value for these {width}×{height} pixels is NaN")
        return number


@functools.lru_cache(maxsize=16)
def _made(name: str, files: tuple[tuple[str, LoadedWeights], ...], device: str) -> _Model:
    """Return a model that reads only the given files.

    Raises:
        InputError: If a file holds something else than tensors, or lacks some of those that the model needs.
        MissingWeights: If pyiqa asks for another file.
    """
    with _apart(), contextlib.redirect_stdout(io.StringIO()):  # pyiqa prints which file it loads
        import pyiqa
        import timm
        from pyiqa.utils import download_util

        logging.getLogger("pyiqa").setLevel(logging.WARNING)
        with tempfile.TemporaryDirectory(prefix="sgbench-") as folder, contextlib.ExitStack() as stack:
            _link(Path(folder), dict(files))
            kept = torch.hub.get_dir()
            torch.hub.set_dir(folder)
            stack.callback(torch.hub.set_dir, kept)
            for target, attribute, replacement in (
                (download_util, "DEFAULT_CACHE_DIR", str(Path(folder, "pyiqa"))),
                (download_util, "download_url_to_file", _refused(name)),
                (torch.hub, "download_url_to_file", _refused(name)),
                (timm, "create_model", _without_values(timm.create_model)),
            ):
                stack.enter_context(patch.object(target, attribute, replacement))
            metric = pyiqa.create_metric(name, device=torch.device(device))
    if lacking := [each for each, tensor in metric.state_dict().items() if tensor.isnan().any()]:
        raise InputError(f"the file of pyiqa:{name} lacks '{lacking[0]}', which pyiqa would take from another file")
    return _Model(name, metric.eval())


def _link(folder: Path, files: Mapping[str, LoadedWeights]) -> None:
    """Put links to files where pyiqa looks for them.

    Raises:
        InputError: If a file may hold code, and is not known by all of its hash.
        MissingWeights: If a file holds only a part of the network.
    """
    for each in _FOLDERS:
        (folder / each).mkdir()
    for name, loaded in files.items():
        network = NETWORKS.load(name)
        _refuse_code(loaded.path, network)
        for each in _FOLDERS:
            (folder / each / network.file).symlink_to(loaded.path.absolute())


def _refuse_code(path: Path, network: Network) -> None:
    """Refuse a pickle that is not known by its hash and would run code when pyiqa reads it."""
    if network.sha256[63:] or path.suffix == ".mat":
        return
    try:
        with path.open("rb") as file:
            tensors.load(file)
    except Exception as error:  # of any type
        raise InputError(f"'{path}' holds more than tensors, and is not read, as it might run code") from error


def _refused(name: str) -> Callable[..., None]:
    def refuse(url: str, *_: object, **__: object) -> None:
        raise MissingWeights(f"pyiqa:{name} asks for '{url}', which sgbench does not know for this version of pyiqa.")

    return refuse


def _without_values(create: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Return timm's function without its downloads: pyiqa's own file overwrites them, and NaN shows what it lacks."""

    def created(*arguments: Any, **options: Any) -> nn.Module:
        model = create(*arguments, **{**options, "pretrained": False})
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.fill_(torch.nan)
        return model

    return created


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Leave the random numbers of the process as they are; a model of pyiqa may draw from any of the generators."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())), torch.no_grad():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
