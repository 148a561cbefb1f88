"""What is known of the weights of a network once they are read, and what is raised where there are none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class MissingWeights(Exception):  # noqa: N818 - an outcome, not a fault
    """A network's weights are not within reach; the message says which file to bring and where to put it."""


@dataclass(frozen=True)
class LoadedWeights:
    """The weights of one network; equal, and a key of caches, by what is in the tensors."""

    sha256: str
    """Of the tensors, not of the file; see `sgbench.assets.weights.fingerprint`."""
    path: Path = field(compare=False)
    """The file they were read from."""
    state: Mapping[str, Any] = field(compare=False, repr=False)
    """Tensors on the CPU, by the name that torchvision gives them."""
