"""`sgbench submit`: what is checked here, and what reaches the cluster."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import hypothesis
import pytest

from sgbench.core.modules import Module
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


class Jobs:
    """Stands for a cluster: remembers what was submitted, by address."""

    submitted: dict[str | None, Submitted]
    modules: Sequence[Module]

    def __init__(self, address: str | None) -> None:
        self.address = address

    def submit(
        self, name: str, sweep: str, results: str, words: Sequence[str], *, flags: str, modules: Sequence[Module]
    ) -> str:
        type(self).modules = modules
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
    beside = "import hypothesis\nfrom torch.nn import L1Loss\n\nclass Mine(L1Loss):\n    pass\n"
    (tmp_path / "submitted_losses.py").write_text("from submitted_beside import Mine\n")
    (tmp_path / "submitted_beside.py").write_text(beside)
    monkeypatch.syspath_prepend(tmp_path)
    _, err = run("submit", "tiny.yaml", "--results", "s3://bucket/results", "--loss", "submitted_losses:Mine")
    assert len(submitted) == 1
    assert [(each.file, each.content.decode()) for each in Jobs.modules] == [
        ("submitted_beside.py", beside),
        ("submitted_losses.py", "from submitted_beside import Mine\n"),
    ]
    assert err.splitlines()[:3] == [
        f"sent along: submitted_beside.py ({len(beside)} bytes)",
        "sent along: submitted_losses.py (34 bytes)",
        f"every node must have hypothesis {hypothesis.__version__}, which the job checks before its runs start",
    ]


@pytest.mark.parametrize("preset", presets.names())
def test_every_preset_arrives_as_it_is(
    tmp_path: Path, run: Run, submitted: dict[str | None, Submitted], preset: str
) -> None:
    run("submit", preset, "--results", "/shared/results", "--rerun", "--address", "http://head:8265")
    name, sweep, results, words, asked = submitted["http://head:8265"]
    assert (results, words, asked) == ("/shared/results", ["--rerun"], "--rerun")
    (tmp_path / f"{name}.yaml").write_text(sweep)
    assert read_sweep(str(tmp_path / f"{name}.yaml")) == read_sweep(preset)


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
        (("--results", "/r", "--train", "mine=train"), "data set 'mine=train' has a relative path; a job"),
        (
            ("--results", "/r", "--test", "mine=/test,lr=LR"),
            "data set 'mine=/test,lr=LR' has a relative path",
        ),
        (("--results", "/r", "--backbone", "edrs"), "did you mean 'edsr'"),
        (("--results", "/r", "--set", "recipe.stpes=1"), "recipe: unknown key 'stpes'"),
    ],
    ids=["no-store", "relative-store", "home", "relative-images", "relative-lr", "backbone", "key"],
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
