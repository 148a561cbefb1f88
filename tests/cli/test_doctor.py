"""``sgbench doctor``: of what it speaks, and with what code it ends; the nodes are not asked."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from sgbench.cluster.nodes import Node, Wanted

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Wanted]:
    """What was asked for; there is one machine, with a remark, and in a cluster another one, with a problem."""
    wanted: list[Wanted] = []

    def examine(each: Wanted) -> list[Node]:
        wanted.append(each)
        fine = Node("this machine" if each.alone else "n0", {"CPU": "4"}, remarks=("its disk is nearly full.",))
        return [fine, *([] if each.alone else [Node("n1", problems=("it did not answer.",))])]

    monkeypatch.setattr("sgbench.cluster.connect", lambda address, say, packages: contextlib.nullcontext())
    monkeypatch.setattr("sgbench.cluster.nodes.examine", examine)
    return wanted


def test_without_an_address_it_speaks_of_this_machine_and_remarks_end_with_0(run: Run, asked: list[Wanted]) -> None:
    out, _ = run("doctor")
    assert [line.strip() for line in out.splitlines()] == ["this machine  CPU: 4", "! its disk is nearly full.", ""]
    assert [each.alone for each in asked] == [True]


def test_the_store_that_is_tried_is_the_one_that_the_sweep_would_use(
    run: Run, asked: list[Wanted], place: Path
) -> None:
    run("doctor", "tiny.yaml")
    run("doctor", "tiny.yaml", "--results", "mine")
    run("doctor")
    assert [each.storage for each in asked] == [str(place / name) for name in ("results/tiny", "mine", "results")]
    assert [Path(packed.folder).name.partition("-")[0] for packed in asked[0].packed] == ["mine", "few"]


def test_a_problem_of_any_node_ends_with_1(run: Run, asked: list[Wanted]) -> None:
    out, _ = run("doctor", "--address", "auto", code=1)
    assert "n1  ✗ it did not answer." in out
    assert [each.alone for each in asked] == [False]


def test_what_is_not_available_locally_is_said_with_what_a_sweep_downloads(
    run: Run, asked: list[Wanted], place: Path
) -> None:
    _, err = run("doctor", "paper-mini")
    assert "the train images of BSDS400 are not available locally" in err
    assert "a sweep with --address or --fetch downloads 71 MB." in err
    assert "a sweep with --address or --fetch downloads 250 MB." in err
    assert asked[0].packed == ()
