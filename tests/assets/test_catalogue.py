import dataclasses
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from torch import nn

from sgbench.assets.catalogue import NETWORKS, Network, known_networks, register_network
from sgbench.assets.needs import networks_of, users_of_networks
from sgbench.core.errors import InputError
from sgbench.core.registry import LOSSES, METRICS
from sgbench.metrics.distortion import psnr_y
from sgbench.spec import expression

FIELDS = {
    "name": "theirs",
    "file": "theirs.pth",
    "url": "https://example.org/theirs.pth",
    "sha256": "0" * 64,
    "size": 5,
    "licence": "MIT",
}


NO_HASH_IN_NAME = {"dinov2", "niqe"}
"""Networks whose publishers leave the hash out of the file's name."""


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (NETWORKS, METRICS, LOSSES):
        monkeypatch.setattr(registry, "_loaded", {})


def test_every_built_in_network_is_needed_and_known_by_its_hash() -> None:
    users = users_of_networks()
    for name in NETWORKS.names():
        network = NETWORKS.load(name)
        assert users[name]
        assert network.sha256[:8] in network.file or name in NO_HASH_IN_NAME
        assert network.url.endswith(network.file)


@pytest.mark.parametrize(
    ("field", "value", "needed"),
    [
        ("file", "../theirs.pth", "the name of a file"),
        ("file", ".theirs", "the name of a file"),
        ("file", "", "the name of a file"),
        ("url", "theirs.pth", "an address"),
        ("sha256", "abc", "64 hexadecimal digits, in lower case,"),
        ("sha256", "A" * 64, "64 hexadecimal digits, in lower case,"),
        ("size", 0, "a number of bytes"),
        ("size", "5 MB", "a number of bytes"),
    ],
)
def test_what_the_catalogue_says_of_a_network_is_checked(field: str, value: object, needed: str) -> None:
    with pytest.raises(InputError, match=f"pretrained network 'theirs': {field} is .*; {needed} is needed"):
        Network(**{**FIELDS, field: value})


@pytest.mark.usefixtures("registries")
def test_a_registered_network_is_one_of_the_catalogue() -> None:
    network = register_network(Network(**FIELDS))
    assert NETWORKS.load("theirs") is network
    assert network in known_networks()
    with pytest.raises(InputError, match="the pretrained network name 'vgg16' is taken"):
        register_network(Network(**{**FIELDS, "name": "vgg16"}))
    with pytest.raises(InputError, match="is a str; a Network is needed"):
        register_network("theirs")
    with pytest.raises(
        InputError, match="pretrained network 'other': its attribute 'name' is 'theirs'; 'other' is needed"
    ):
        NETWORKS.register("other")(network)


@pytest.mark.usefixtures("registries")
def test_a_network_of_an_installed_package_is_found_and_a_broken_one_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "theirs-1.0.dist-info"
    metadata.mkdir()
    (tmp_path / "their_networks.py").write_text(
        f"from sgbench.assets.catalogue import Network\ntheirs = Network(**{FIELDS})\n"
    )
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[sgbench.networks]\ntheirs = their_networks:theirs\nbroken = their_networks:broken\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert {"theirs", "broken", "alexnet"} <= set(NETWORKS.names())
    assert {network.name for network in known_networks()} == {
        "alexnet",
        "dinov2",
        "dists",
        "inception",
        "niqe",
        "squeezenet",
        "vgg16",
        "vgg19",
        "theirs",
    }


class WithNetwork(nn.Module):
    networks = ("vgg16", "theirs")


@pytest.mark.usefixtures("registries")
def test_metrics_and_losses_need_what_they_name() -> None:
    register_network(Network(**FIELDS))
    LOSSES.register("perceptual")(WithNetwork)
    METRICS.register("mine")(dataclasses.replace(psnr_y, name="mine", networks=("alexnet",)))
    loss = expression.parse("l1 + 0.1*perceptual")
    assert networks_of() == networks_of(["psnr_y"], [expression.parse("l1")]) == []
    assert networks_of(["mine", "fid", "lpips_alex"], [loss]) == ["alexnet", "inception", "theirs", "vgg16"]
    assert users_of_networks()["alexnet"] == ["fd_alex", "lpips_alex", "mine", "ntire2025", "lpips"]
    assert users_of_networks()["theirs"] == ["perceptual"]
    with pytest.raises(InputError, match="unknown metric 'fidd'"):
        networks_of(["fidd"])


@pytest.mark.usefixtures("registries")
def test_a_network_that_is_not_in_the_catalogue_is_refused_by_the_name_of_who_needs_it() -> None:
    with pytest.raises(InputError, match="metric 'mine': unknown pretrained network 'alexnett': did you mean"):
        METRICS.register("mine")(dataclasses.replace(psnr_y, name="mine", networks=("alexnett",)))
    with pytest.raises(InputError, match="loss 'perceptual': unknown pretrained network 'theirs'; valid: alexnet"):
        LOSSES.register("perceptual")(WithNetwork)
    for wrong in ("alexnet", ["alexnet"], (1,)):
        with pytest.raises(InputError, match=r"metric 'mine': networks is .*; a tuple of names is needed"):
            METRICS.register("mine")(dataclasses.replace(psnr_y, name="mine", networks=wrong))


def test_neither_the_catalogue_nor_finding_a_file_imports_torch(tmp_path: Path) -> None:
    code = f"""
        import os, sys
        os.environ["TORCH_HOME"] = os.environ["SGBENCH_CACHE"] = {str(tmp_path)!r}
        os.environ.pop("SGBENCH_WEIGHTS", None)
        from sgbench.assets.locator import Locator
        from sgbench.assets.needs import networks_of, users_of_networks
        from sgbench.spec import expression
        users_of_networks(), networks_of(["fid"], [expression.parse("l1 + sg")])
        folder = {str(tmp_path)!r} + "/hub/checkpoints"
        os.makedirs(folder)
        open(folder + "/vgg16-397923af.pth", "w").close()
        print([status.problem and "has the SHA-256" in status.problem for status in Locator(download=False).status()])
        print("torch" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[None, None, None, None, None, None, True, None]", "False"]
