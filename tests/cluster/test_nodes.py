"""What nodes answer, and what is made of it; no Ray is started."""

import sys
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from sgbench.cluster import nodes as module
from sgbench.cluster.nodes import NOT_INSTALLED, Node, Wanted, examine, refuse_unfit, versions
from sgbench.cluster.registered import Sent, pack
from sgbench.cluster.sweep import _lock_that_all_see
from sgbench.core.errors import InputError
from sgbench.core.lock import LEASES
from sgbench.core.registry import LOSSES
from sgbench.core.storage import Storage
from sgbench.data import PackedImages
from sgbench.runs.delivery import Packed
from sgbench.store.layout import SCRATCH, discard_scratch


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Makes this process answer for some nodes, each with changes to what it says."""
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module.torch.cuda, "device_count", lambda: 0)

    def says(*changes: dict[str, Any], gpus: float = 0) -> None:
        resources = {"CPU": 4.0, **({"GPU": gpus} if gpus else {})}
        there = [
            {
                "NodeID": n,
                "Alive": True,
                "NodeName": f"n{n}",
                "NodeManagerAddress": f"10.0.0.{n}",
                "Resources": resources,
            }
            for n in reversed(range(len(changes)))
        ]
        monkeypatch.setattr(module.ray, "nodes", lambda: [*there, {"NodeID": 99, "Alive": False}])
        monkeypatch.setattr(module, "_ask", lambda n, question, mark: module._answer(question, mark) | changes[n])
        monkeypatch.setattr(module, "_gather", list)

    return says


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def test_a_node_that_has_all_has_nothing_to_mend(cluster: Any, store: str, test_images: PackedImages) -> None:
    cluster({}, {})
    found = examine(Wanted(store, (Packed.of(test_images),)))
    assert [node.name for node in found] == ["n0 (10.0.0.0)", "n1 (10.0.0.1)"]
    assert all((node.problems, node.remarks) == ((), ()) for node in found)
    assert found[0].facts["CPU"] == "4"
    assert "torch " in found[0].facts["versions"]
    assert found[0].facts["cache"].endswith(" GiB free")
    refuse_unfit(found)


def test_a_node_must_have_the_packages_of_plugins_in_the_version_of_this_machine(cluster: Any, store: str) -> None:
    cluster({}, {"versions": {**versions(["hypothesis"]), "hypothesis": NOT_INSTALLED, "pytest": "1.0"}})
    fit, unfit = examine(Wanted(store, sent=Sent(packages=("hypothesis", "pytest"))))
    assert fit.problems == ()
    assert unfit.problems == (
        f"hypothesis is not installed, and {hypothesis.__version__} on this machine: install the same version on all "
        "nodes (--with cannot send it: it has compiled files).",
        f"pytest is 1.0, and {pytest.__version__} on this machine: send it with --with pytest, or install the same "
        "version on all nodes.",
    )
    assert versions(["no-such-package"])["no-such-package"] == NOT_INSTALLED


def test_a_node_must_be_able_to_import_the_plugins(
    cluster: Any, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_a_node.py").write_text("from torch.nn import L1Loss\n")
    monkeypatch.syspath_prepend(tmp_path)
    LOSSES.load("of_a_node:L1Loss")
    fine = pack([(LOSSES, "l1"), (LOSSES, "of_a_node:L1Loss")], remote=True)
    monkeypatch.delitem(LOSSES._loaded, "of_a_node:L1Loss")
    cluster({})
    assert examine(Wanted(store, sent=fine))[0].problems == ()
    monkeypatch.delitem(LOSSES._loaded, "of_a_node:L1Loss")
    monkeypatch.setitem(sys.modules, "of_a_node", None)  # as if a package were not there that it imports
    (node,) = examine(Wanted(store, sent=fine))
    (problem,) = node.problems
    assert problem.startswith("loss 'of_a_node:L1Loss' cannot be imported from 'of_a_node:L1Loss': ModuleNotFoundError")
    assert problem.endswith(", although this machine can import it.")


def test_asking_writes_where_the_store_is_or_will_be_and_leaves_nothing(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = Storage.write
    monkeypatch.setattr(
        Storage, "write", lambda self, name, content: written.append(self.root) or write(self, name, content)
    )
    cluster({})
    before = sorted(tmp_path.rglob("*"))
    (node,) = examine(Wanted(str(tmp_path / "results" / "quick")))
    assert (node.facts["store"], node.problems) == (str(tmp_path / "results" / "quick"), ())
    assert set(written) == {str(tmp_path)}
    assert sorted(path for path in tmp_path.rglob("*") if path.name not in ("cache", "data")) == before
    written.clear()
    (tmp_path / "results" / "quick").mkdir(parents=True)
    examine(Wanted(f"file://{tmp_path}/results/quick"))
    assert set(written) == {str(tmp_path / "results" / "quick")}
    assert list((tmp_path / "results" / "quick").iterdir()) == []


def test_what_a_killed_sweep_wrote_for_nodes_is_deleted_by_the_next(cluster: Any, store: str) -> None:
    cluster({})
    storage = Storage(store)
    storage.write(f"{SCRATCH}/0123abcd/probe-0123abcd", b"")  # by a node whose process was killed
    assert examine(Wanted(store), f"{SCRATCH}/0123abcd")[0].problems == ()
    assert list(storage.sizes(SCRATCH)) == [f"{SCRATCH}/0123abcd/probe-0123abcd"]
    discard_scratch(storage)
    assert list(Path(store).iterdir()) == []


def test_a_node_that_has_another_set_at_the_path_of_the_driver_s_lacks_it(
    cluster: Any, store: str, test_images: PackedImages
) -> None:
    cluster({})
    (node,) = examine(Wanted(store, (Packed(str(test_images.path), "0" * 64),)))
    assert (node.problems, node.lacks) == ((), (str(test_images.path),))


def test_what_has_to_be_mended_is_said(cluster: Any, store: str) -> None:
    other = versions() | {"torch": "1.0"}
    cluster({"versions": other}, {"store": "no such folder"}, gpus=2)
    first, second = examine(Wanted(store))
    assert (
        first.problems[0]
        == f"torch is 1.0, and {versions()['torch']} on this machine: install the same version on all nodes."
    )
    assert "cannot be used (no such folder): give a folder that all nodes share" in second.problems[0]
    for node in (first, second):
        assert node.problems[1] == "Ray has 2 GPU and torch sees 0: check the driver and the build of torch."
    with pytest.raises(
        InputError, match=r"node n0 \(10.0.0.0\): torch is 1.0, .* nodes \(2 of 2 nodes have problems\)"
    ):
        refuse_unfit([first, second])


def test_a_node_that_does_not_see_this_machine_s_lock_is_found_and_a_sweep_then_holds_a_lease_too(
    cluster: Any, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster({}, {"sees_lock": False})
    seeing, blind = nodes = examine(Wanted(store))
    assert (seeing.sees_lock, seeing.remarks) == (True, ())
    assert (blind.sees_lock, len(blind.remarks), blind.problems) == (False, 1, ())
    assert "a sweep from here holds a lease in the store too" in blind.remarks[0]
    storage = Storage(store)
    for asked, leased in (([seeing], False), ([], False), (nodes, True)):
        with storage.lock("sgbench sweep x"), _lock_that_all_see("sgbench sweep x", storage, asked):
            assert storage.exists(LEASES) == leased
    monkeypatch.setattr(module, "is_locked", lambda file: False)
    assert examine(Wanted(store))[0].sees_lock  # there is no kernel lock any more
    monkeypatch.setattr(module, "is_locked", lambda file: file.stat().st_size == 0)
    assert not examine(Wanted(str(Path(store).parent)))[0].sees_lock


def test_what_a_sweep_can_do_without_is_a_remark(cluster: Any, store: str, tmp_path: Path) -> None:
    cluster({"networks": {"inception": "not available locally"}, "free": 2**30})
    (node,) = examine(Wanted(store, (Packed(nothing := str(tmp_path / "nothing"), "0" * 64),), ("inception",)))
    assert (node.problems, node.lacks) == ((), (nothing,))
    assert [remark.partition(":")[0] for remark in node.remarks] == [
        f"it does not see the packed images in '{nothing}'; a sweep sends them to its cache through the store (0 B).",
        "the pretrained network inception is not available locally",
        f"the disk of '{node.facts['cache'].partition(',')[0]}' has only 1.0 GiB free.",
    ]


def test_of_a_machine_alone_no_nodes_are_told(cluster: Any, store: str) -> None:
    cluster({"networks": {"inception": "not available locally"}, "token": False}, gpus=2)
    (machine,) = examine(Wanted(store, networks=("inception",), alone=True))
    assert machine.name == "this machine"
    assert machine.remarks == (
        "the pretrained network inception is not available locally: if it cannot be downloaded, its metrics will be "
        "'no weights'.",
    )
    said = " ".join([*machine.facts.values(), *machine.problems, *machine.remarks])
    assert [word for word in ("node", "cluster", "there") if word in said] == []


@pytest.mark.parametrize(("asked", "said"), [(True, "required"), (False, "not required: anyone who reaches its ports")])
def test_whether_a_node_asks_for_a_token_is_said(cluster: Any, store: str, asked: bool, said: str) -> None:
    cluster({"token": asked})
    (node,) = examine(Wanted(store))
    assert node.facts["token"].startswith(said)


def test_a_node_that_does_not_answer_is_a_problem(cluster: Any, store: str) -> None:
    cluster({"silent": "it did not answer within 120 s"})
    assert examine(Wanted(store)) == [Node("n0 (10.0.0.0)", problems=("it did not answer within 120 s.",))]


def test_a_store_that_keeps_something_else_is_refused(store: str) -> None:
    Storage(store).write("mark", b"mark")
    module._use(Storage(store), "mark")
    Storage(store).write("mark", b"other")
    with pytest.raises(OSError, match="another file than this machine wrote"):
        module._use(Storage(store), "mark")


def test_a_store_that_cannot_be_written_is_refused_here(monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Storage, "write", full)
    with pytest.raises(InputError, match=r"cannot be written to: .*No space left on device"):
        examine(Wanted(store))
