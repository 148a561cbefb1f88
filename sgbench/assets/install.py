"""Files of pretrained networks that were brought by hand."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from sgbench.assets.base import networks_folder
from sgbench.assets.catalogue import NETWORKS, Network, known_networks
from sgbench.assets.locator import sha256_of
from sgbench.core.errors import InputError
from sgbench.core.files import replacing


def install(file: Path, name: str | None = None) -> Path:
    """Copy a file that was brought by hand into sgbench's cache, under the name by which it is found there.

    Args:
        file: A network's usual file, or the converted one from another machine's cache; it may have any name.
        name: The network that it must hold; any by default.

    Returns:
        The path of the copy.

    Raises:
        InputError: If there is no such file or network, or the file does not hold the network.
    """
    known = known_networks() if name is None or not NETWORKS.is_provided(name) else [NETWORKS.load(name)]
    wanted = known if name is None else [NETWORKS.load(name)]
    if file.is_dir():
        raise InputError(f"'{file}' is a folder; a file is needed.")
    if not file.is_file():
        raise InputError(f"there is no file '{file}'.")
    digest = sha256_of(file)
    if (found := recognised(file, known)) is None:
        sizes = {each.name: f", {each.size:,} bytes" if name and each.size else "" for each in wanted}
        needed = " or ".join(f"{each.sha256[:8]}… ({each.name}{sizes[each.name]})" for each in wanted)
        received = f"{digest[:8]}… ({file.stat().st_size:,} bytes)"
        raise InputError(f"'{file.name}' has the SHA-256 {received}, but {needed} is needed.")
    network, target = found
    if network not in wanted:
        raise InputError(f"'{file}' holds the weights of {network.name}, but those of {name} are needed.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as part:
        shutil.copyfile(file, part)
    return target


def recognised(file: Path, known: Sequence[Network]) -> tuple[Network, Path] | None:
    """Return which of some networks a file holds and where it belongs, or None if it holds none of them."""
    digest = sha256_of(file)
    for network in known:
        if digest.startswith(network.sha256):
            return network, networks_folder() / network.file
    from sgbench.assets.tensors import fingerprint, tensors_in  # a converted file is known by its tensors

    with contextlib.suppress(InputError):  # not a file of tensors
        tensors = fingerprint(tensors_in(file))
        for network in known:
            if network.converted and tensors == network.converted.tensors_sha256:
                return network, networks_folder() / network.converted.file
    return None
