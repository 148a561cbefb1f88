"""`sgbench submit`: what is checked here, and what reaches the cluster."""

import dataclasses
import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from small_networks import STATE, as_file, put

from sgbench.assets.catalogue import NETWORKS
from sgbench.backbones import build_backbone
from sgbench.core.modules import Module
from sgbench.core.packages import Package
from sgbench.core.storage import Storage
from sgbench.runs.plan import Choices, read_sweep
from sgbench.spec import presets

Run = Callable[..., tuple[str, str]]

Submitted = tuple[str, str, str, Sequence[str], str]

SWEEP = """
extends: quick
grids:
- backbones: [edsr-tiny]
  losses: [l1, l1 + 1.0*sg]
train: photos=/data/photos
tests: [Set5, "few=/data/few,lr=/data/few LR"]
recipe: {steps: 3, optimizer: {eps: 1.0e-07}}
"""


PACKAGES = {
    "hypothesis": "",
    "iniconfig": "; --with iniconfig sends it",
    "pluggy": "; --with pluggy sends it",
    "pytest": "; --with pytest sends it",
    "sortedcontainers": "; --with sortedcontainers sends it",
}
"""What two packages require that is in use here, and whether it can be sent."""


class Jobs:
    """Stands for a cluster: remembers what was submitted, by address."""

    submitted: dict[str | None, Submitted]
    modules: Sequence[Module]
    packages: Sequence[Package]

    def __init__(self, address: str | None) -> None:
        self.address = address

    def submit(
        self,
        name: str,
        sweep: str,
        results: str,
        words: Sequence[str],
        *,
        flags: str,
        modules: Sequence[Module],
        packages: Sequence[Package],
    ) -> str:
        type(self).modules, type(self).packages = modules, packages
        self.submitted[self.address] = (name, sweep, results, words, flags)
        return f"sgbench-{name}-1"


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> dict[str | None, Submitted]:
    monkeypatch.setattr("sgbench.cluster.jobs.Jobs", Jobs)
    Jobs.submitted = {}
    return Jobs.submitted


@pytest.mark.usefixtures("place")
def test_the_sweep_goes_along_as_the_flags_have_made_it(
    tmp_path: Path, run: Run, submitted: dict[str | None, Submitted]
) -> None:
    flags = ("--set", "recipe.batch=4", "--lambda", "0,0.5", "--seeds", "1,2", "--metric", "psnr_y")
    out, err = run("submit", "tiny.yaml", "--results", "s3://bucket/results", "--retry", *flags)
    assert out == "sgbench-tiny-1\n"
    assert "sgbench logs sgbench-tiny-1 --follow" in err
    name, sweep, results, words, asked = submitted[None]
    assert (name, results, words) == ("tiny", "s3://bucket/results", ["--retry"])
    assert shlex.split(asked) == [*flags[2:6], *flags[6:], *flags[:2], "--retry"]
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "tiny.yaml").write_text(sweep)
    choices = Choices(settings={"recipe.batch": 4}, lambdas=[0, 0.5], seeds=[1, 2], metrics=["psnr_y"])
    assert read_sweep(str(tmp_path / "there" / "tiny.yaml")) == read_sweep("tiny.yaml", choices)


@pytest.mark.usefixtures("place")
def test_the_modules_of_plugins_go_along_and_are_named_with_what_else_the_cluster_must_have(
    tmp_path: Path, run: Run, submitted: dict[str | None, Submitted], monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = "import hypothesis, pytest\nfrom torch.nn import L1Loss\n\nclass Mine(L1Loss):\n    pass\n"
    (tmp_path / "submitted_losses.py").write_text("from submitted_beside import Mine\n")
    (tmp_path / "submitted_beside.py").write_text(beside)
    monkeypatch.syspath_prepend(tmp_path)
    words = ("submit", "tiny.yaml", "--results", "s3://bucket/results", "--loss", "submitted_losses:Mine")
    _, err = run(*words)
    assert len(submitted) == 1
    assert [(each.file, each.content.decode()) for each in Jobs.modules] == [
        ("submitted_beside.py", beside),
        ("submitted_losses.py", "from submitted_beside import Mine\n"),
    ]
    assert [line for line in err.splitlines() if line.startswith(("sent along", "every node"))] == [
        f"sent along: submitted_beside.py ({len(beside)} bytes)",
        "sent along: submitted_losses.py (34 bytes)",
        *(
            f"every node must have {name} {version(name)}, which the job checks before its runs start{hint}"
            for name, hint in PACKAGES.items()
        ),
    ]
    _, err = run(*words, "--with", "pytest")
    assert {"pytest", "pluggy", "iniconfig"} <= {each.name for each in Jobs.packages}
    assert f"sent along: pytest {version('pytest')} (" in err
    assert [line.split()[4] for line in err.splitlines() if line.startswith("every node")] == [
        "hypothesis",
        "sortedcontainers",
    ]
    _, err = run(*words, "--with", "hypothesis", code=2)
    assert "--with: package 'hypothesis' cannot be sent, because it has compiled files" in err


@pytest.mark.parametrize("preset", presets.names())
def test_every_preset_arrives_as_it_is(
    tmp_path: Path, run: Run, submitted: dict[str | None, Submitted], preset: str
) -> None:
    sets = ("--test", "Set5")  # of `paper`, Manga109 has no download
    run("submit", preset, "--results", "/shared/results", "--rerun", "--address", "http://head:8265", *sets)
    name, sweep, results, words, asked = submitted["http://head:8265"]
    assert (results, words, asked) == ("/shared/results", ["--rerun"], "--test Set5 --rerun")
    (tmp_path / f"{name}.yaml").write_text(sweep)
    assert read_sweep(str(tmp_path / f"{name}.yaml")) == read_sweep(preset, Choices(tests=["Set5"]))


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            (),
            "--results is not given; a job needs a store that all nodes can reach, such as s3://bucket/results or "
            "/shared/results",
        ),
        (("--results", "results/tiny"), "--results is 'results/tiny'; a job needs a store that all nodes can reach"),
        (("--results", "~/results"), "--results is '~/results'; a job needs"),
        (
            ("--results", "/r", "--train", "mine=train"),
            "data set 'mine=train' is in a folder of this machine: give --upload-data to send it, or the absolute path "
            "of a folder on the cluster.",
        ),
        (("--results", "/r", "--test", "mine=/test,lr=LR"), "data set 'mine=/test,lr=LR' is in a folder of this"),
        (("--results", "/r", "--test", "mine"), "unknown data set 'mine'"),
        (("--results", "/r", "--train", "Set5"), "Set5 has no train part"),
        (
            ("--results", "/r", "--test", "Manga109"),
            "Manga109 has no download from which the cluster could get it: give --upload-data to send it from a "
            "machine that has its images, a folder on the cluster as in 'Manga109=/DIR', or other sets.",
        ),
        (("--results", "/r", "--train", "demo", "--test", "Manga109", "--upload-data"), "Manga109 has no download"),
        (("--results", "/r", "--train", "mine=nowhere", "--upload-data"), "error: there is no folder '/"),
        (("--results", "/r", "--train", "BSDS500", "--test", "B100"), "training on test images is refused"),
        (("--results", "/r", "--train", "mine=packed:12"), "data set 'mine=packed:12': 'packed:' and 64 hexadecimal"),
        (
            ("--results", "/no/store", "--train", "mine=train", "--test", "few=test", "--upload-data"),
            "--upload-data: '/no' does not exist on this machine; give --results a store that it shares with the "
            "cluster, such as s3://bucket/results.",
        ),
        (("--results", "/r", "--backbone", "edrs"), "did you mean 'edsr'"),
        (("--results", "/r", "--set", "recipe.stpes=1"), "recipe: unknown key 'stpes'"),
    ],
    ids=[
        *("no-store", "relative-store", "home", "relative-images", "relative-lr", "unknown-set", "other-role"),
        *("no-download", "no-download-nor-images", "no-folder", "overlap", "short-digest", "store-of-others"),
        *("backbone", "key"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(
    run: Run,
    submitted: dict[str | None, Submitted],
    words: tuple[str, ...],
    sentence: str,
) -> None:
    out, err = run("submit", "tiny.yaml", *words, code=2)
    assert sentence in err
    assert (out, err.count("\n")) == ("", 1)
    assert submitted == {}


def test_a_cluster_that_does_not_answer_is_bad_input(run: Run) -> None:
    _, err = run("submit", "quick", "--results", "/r", "--address", "http://127.0.0.1:1", code=2)
    assert err.startswith("error: --address: no Ray dashboard answers at 'http://127.0.0.1:1': ")


def table(err: str) -> dict[str, list[str]]:
    """Return what is said of each thing that the cluster needs: what it is, how it gets there, its size, and where."""
    rows = [re.split(" {2,}", line.strip()) for line in err.splitlines() if line.startswith("  ")]
    return {" ".join(row[:2]): row[2:] for row in rows if len(row) > 1 and row[0] != "needed"}


@pytest.mark.usefixtures("place", "submitted")
def test_where_everything_comes_from_is_said(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SGBENCH_DATA", str(tmp_path / "data"))
    sets = (
        "--train",
        "mix=BSDS400+/data/more,recursive",
        "--test",
        "Set5,lr",
        "--test",
        "Set14",
        "--test",
        "demo",
        "--test",
        "photos=/data/photos",
        "--set",
        "validate={sets: [Urban100, own=/data/own], metrics: [lpips_vgg]}",
    )
    _, err = run("submit", "tiny.yaml", "--results", "s3://bucket/results", *sets)
    assert table(err) == {
        "BSDS400 training set": ["downloaded by the cluster", "71 MB", "www2.eecs.berkeley.edu"],
        "/data/more training set": ["folder on the cluster", "/data/more"],
        "Set5 test set": ["downloaded by the cluster", "250 MB", "cv.snu.ac.kr"],
        "Set14 test set": ["downloaded by the cluster", "with Set5"],
        "demo test set": ["part of scikit-image"],
        "photos test set": ["folder on the cluster", "/data/photos"],
        "Urban100 validation set": ["downloaded by the cluster", "with Set5"],
        "own validation set": ["folder on the cluster", "/data/own"],
        "alexnet network": ["downloaded by the cluster", "244 MB", "download.pytorch.org"],
        "inception network": ["downloaded by the cluster", "96 MB", "github.com"],
        "vgg16 network": ["downloaded by the cluster", "553 MB", "download.pytorch.org"],
    }
    assert not (tmp_path / "data").exists()


SETS = ("--train", "mine=train,split=1/3", "--test", "few=test", "--set", "validate.sets=[held-out]")
UPLOAD = ("submit", "tiny.yaml", *SETS, "--test", "Set5", "--upload-data")


@pytest.fixture
def alexnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The content of the one network that is on this machine, which is small."""
    content = as_file(STATE)
    entry = dataclasses.replace(NETWORKS.load("alexnet"), sha256=hashlib.sha256(content).hexdigest(), archive=None)
    monkeypatch.setitem(NETWORKS._loaded, "alexnet", entry)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    put(tmp_path / "cache" / "weights", content)
    return content


@pytest.mark.usefixtures("place", "alexnet")
def test_what_is_on_this_machine_is_put_into_the_store_once_and_is_what_the_job_uses(
    tmp_path: Path, run: Run, submitted: dict[str | None, Submitted], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = str(tmp_path / "store")
    _, err = run(*UPLOAD, "--results", store)
    told = table(err)
    assert told["mine training set"][:2] == ["sent from here", "13 kB"]
    assert told["few test set"][0] == told["alexnet network"][0] == "sent from here"
    assert told["Set5 test set"] == ["downloaded by the cluster", "250 MB", "cv.snu.ac.kr"]
    assert told["inception network"][0] == "downloaded by the cluster"
    (sending,) = [line for line in err.splitlines() if line.startswith("sending ")]
    assert re.fullmatch(rf"sending \d\d kB to '{store}'", sending)

    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "tiny.yaml").write_text(submitted[None][1])
    _, sent = read_sweep(str(tmp_path / "there" / "tiny.yaml"))
    train, few, set5, held_out = (reference for reference, _ in sent.sets())
    assert re.fullmatch("mine=packed:[0-9a-f]{64}", train)
    assert re.fullmatch("few=packed:[0-9a-f]{64}", few)
    assert set5 == "Set5"
    assert re.fullmatch("mine-held-out=packed:[0-9a-f]{64}", held_out)

    with monkeypatch.context() as patch:
        patch.delattr(Storage, "write")
        _, err = run(*UPLOAD, "--results", store)
    assert [how for _, (how, *_) in sorted(table(err).items())] == [
        *("downloaded by the cluster", "in the store", "in the store", "downloaded by the cluster"),
        *("in the store", "in the store"),
    ]
    assert "sending" not in err

    small = ("--set", "recipe.patch=8")
    here = run("plan", "tiny.yaml", *SETS, *small, "--json")[0]
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path / "head"))
    shutil.rmtree(tmp_path / "train")
    there = run("plan", "there/tiny.yaml", "--test", few, "--results", store, *small, "--json")[0]
    assert [row["run_id"] for row in json.loads(there)] == [row["run_id"] for row in json.loads(here)]

    run("submit", "there/tiny.yaml", "--results", store)
    _, err = run("submit", "there/tiny.yaml", "--results", str(tmp_path / "other"), code=2)
    assert f"{train[:20]}" in err
    assert "is not in the store" in err


@pytest.mark.usefixtures("place")
def test_the_weights_to_start_with_are_sent_once_and_are_those_of_the_job(
    tmp_path: Path, run: Run, submitted: dict[str | None, Submitted]
) -> None:
    torch.save(build_backbone("edsr-tiny", 4).state_dict(), tmp_path / "net.pt")
    store, sets = str(tmp_path / "store"), ("--train", "demo", "--test", "demo", "--metric", "psnr_y")
    init = ("--set", "recipe.init=net.pt")
    _, err = run("submit", "tiny.yaml", *sets, *init, "--results", store, code=2)
    assert err.startswith(
        "error: recipe.init 'net.pt' is a file of this machine: give --upload-data to send it, or the "
    )
    for how in (["sent from here", "169 kB", "net.pt"], ["in the store"]):
        _, err = run("submit", "tiny.yaml", *sets, *init, "--results", store, "--upload-data")
        assert table(err)["net.pt initial weights"] == how
    here = run("plan", "tiny.yaml", *sets, *init, "--json")[0]
    (tmp_path / "net.pt").unlink()
    (tmp_path / "sent.yaml").write_text(submitted[None][1])
    there = run("plan", "sent.yaml", "--results", store, "--json")[0]
    assert [row["run_id"] for row in json.loads(there)] == [row["run_id"] for row in json.loads(here)]
    cluster = {
        "/no/net.pt": ["file on the cluster", "/no/net.pt"],
        "s3://bucket/net.pt": ["read by the cluster", "s3://bucket/net.pt"],
        "https://a.org/net-0123abcd.pt": ["downloaded by the cluster", "a.org"],
        "run:0123": ["in the store"],
    }
    for name, how in cluster.items():
        _, err = run("submit", "tiny.yaml", *sets, "--set", f"recipe.init={name}", "--results", "s3://bucket/results")
        (told,) = (row for what, row in table(err).items() if what.endswith("initial weights"))
        assert told == how
    for name in ("s3://key:secret@bucket/net.pt", "https://user:secret@a.org/net-0123abcd.pt"):
        _, err = run("submit", "tiny.yaml", *sets, "--set", f"recipe.init={name}", "--results", "s3://b/c", code=2)
        assert err.startswith("error: recipe.init: ")
        assert "secret" not in err


@pytest.mark.usefixtures("place", "alexnet")
def test_an_upload_that_fails_submits_nothing_and_the_next_sends_the_rest(
    tmp_path: Path, run: Run, submitted: dict[str | None, Submitted], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, write = str(tmp_path / "store"), Storage.write

    def full(storage: Storage, name: str, content: bytes) -> None:
        if name.endswith("manifest.json"):
            raise OSError(28, "No space left on device")
        write(storage, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", full)
        _, err = run(*UPLOAD, "--results", store, code=1)
    assert "error: sending was interrupted: No space left on device; run the same command again to resume." in err
    assert submitted == {}
    _, err = run(*UPLOAD, "--results", store)
    assert table(err)["mine training set"][1] == "876 B"  # the manifest
    assert len(submitted) == 1


@pytest.mark.usefixtures("place", "submitted")
def test_a_network_that_nobody_has_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = dataclasses.replace(NETWORKS.load("alexnet"), url="file:///mine/alexnet.pth")
    monkeypatch.setitem(NETWORKS._loaded, "alexnet", entry)
    _, err = run("submit", "tiny.yaml", "--results", "/r", code=2)
    assert err == (
        "error: the pretrained network alexnet has no download from which the cluster could get it "
        "('file:///mine/alexnet.pth'): give --upload-data to send it from a machine that has it, as 'sgbench weights "
        "list' shows.\n"
    )
