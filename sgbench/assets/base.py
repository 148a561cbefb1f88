"""The weights of a pretrained network as they are loaded, the error if they are missing, and their folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sgbench.core.errors import InputError
from sgbench.core.files import cache_folder


class MissingWeights(Exception):  # noqa: N818 - an outcome, not a fault
    """A network's weights are not available; the message says which file to bring and where to put it."""


@dataclass(frozen=True)
class LoadedWeights:
    """The weights of one network, compared and hashed by the values of the tensors."""

    sha256: str
    """Hash of the tensors, not of the file; see `sgbench.assets.tensors.fingerprint`."""
    path: Path = field(compare=False)
    """The file they were read from."""
    state: Mapping[str, Any] = field(compare=False, repr=False)
    """Tensors on the CPU, by their names in torchvision."""


def networks_folder() -> Path:
    """Return the folder of sgbench's cache in which pretrained networks are kept."""
    return cache_folder() / "weights"


def wrong_hash(what: str, received: str, needed: str) -> InputError:
    """Build the error for a file whose content is not what its name says."""
    return InputError(f"'{what}' has the SHA-256 {received}, but {needed} is needed; delete it.")
