"""Sweeps that add seeds until their questions are decided; runs are made up, as only their scores matter."""

import contextlib
import datetime
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgbench.analysis.decisions import fewest_seeds
from sgbench.analysis.sequential import t_e_process
from sgbench.cli.output import print_outcome
from sgbench.cli.status import status
from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.data import write_png
from sgbench.metrics import METRICS
from sgbench.runs.delivery import open_packed
from sgbench.runs.execute import Job, Watcher
from sgbench.runs.plan import Choices, read_sweep
from sgbench.runs.shards import Shard
from sgbench.runs.sweep import Outcome, Quiet, Runner, Summary, carry_out, look
from sgbench.spec import Question, RunSpec, SweepSpec, canonical_json
from sgbench.store import Declaration, Store, identity_columns

IMAGES = 12
QUESTION = "l1 vs l2 on psnr_y"
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

Scores = Callable[[RunSpec], Any]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, random = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for name, count in {"train": 2, "many": IMAGES, "more": IMAGES, "few": 3}.items():
        for at in range(count):
            write_png(folder / name / f"{at}.png", random.integers(0, 256, (32, 32, 3), np.uint8))
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def quick(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache of rounds"))
    monkeypatch.setattr("sgbench.runs.sweep.rehearse", lambda sweep: None)  # which takes longer than all else here


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "store"))


@pytest.fixture
def asked(folders: dict[str, Path]) -> Callable[..., SweepSpec]:
    def asked(*questions: str, backbones: Sequence[str] = ("edsr-tiny",), **choices: Any) -> SweepSpec:
        fields = {"grids": [{"backbones": list(backbones), "losses": ["l1", "l2"]}], "metrics": ["psnr_y"]}
        fields |= {"train": f"Mine={folders['train']}", "tests": [f"Many={folders['many']}"]}
        fields |= {"recipe": {"steps": 1, "batch": 1, "patch": 8}}
        return read_sweep(fields, Choices(questions=questions or (QUESTION,), **choices))[1]

    return asked


def differing(effect: float, sd: float = 1.0) -> Scores:
    """Return scores of which those by L2 are larger, by an effect that varies over seeds."""

    def value(run: RunSpec) -> Any:
        number = int(hashlib.sha256(f"{run.backbone} {run.seed}".encode()).hexdigest(), 16) % 2**32
        noise = np.random.default_rng(number).normal(0, sd)
        base = 25 + np.random.default_rng(run.seed).normal(0, 1)
        return base + (effect + noise if str(run.loss) == "l2" else 0) + np.linspace(-0.1, 0.1, 100)

    return value


class MadeUp:
    """A runner that makes up scores; some runs fail, and it is stopped or killed before more than so many are done."""

    def __init__(
        self,
        value: Scores,
        fails: Callable[[RunSpec], bool] = lambda run: False,
        most: int = 999,
        *,
        killed: bool = True,
    ) -> None:
        self.value, self.fails, self.most, self.killed = value, fails, most, killed
        self.done: list[tuple[str, str, int]] = []

    def __call__(self, name: str, jobs: Sequence[Job], sweep: SweepSpec, storage: Storage, watcher: Watcher) -> Summary:
        summary, store = Summary(), Store(storage)
        for job in jobs:
            if len(self.done) >= self.most and self.killed:
                raise KeyboardInterrupt
            if len(self.done) >= self.most:
                summary.interrupted = True
                break
            run = job.spec
            self.done.append((run.backbone, str(run.loss), run.seed))
            row = identity_columns(run) | {"step": 1, "finished": NOW}
            if self.fails(run):
                store.write_run({**row, "status": "failed", "error": "loss is NaN"})
                summary.failed[job.run_id] = "loss is NaN"
                continue
            metric = METRICS.load("psnr_y")
            for test in (open_packed(packed, storage) for packed in job.tests):
                values = self.value(run)[: len(test)]
                columns = {"run_id": job.run_id, "dataset": test.name, "dataset_sha256": test.sha256}
                columns |= {"metric": metric.name, "metric_version": metric.version}
                columns |= {"protocol": canonical_json({**metric.protocol, "direction": metric.direction})}
                columns |= {"n_images": len(values), "status": "ok", "scored": NOW}
                rows = [{**columns, "image": f"{at}", "value": float(each)} for at, each in enumerate(values)]
                store.write_scores([*rows, {**columns, "image": None, "value": float(values.mean())}])
            store.write_run({**row, "status": "done"})
        return summary


def decide(sweep: SweepSpec, storage: Storage, runner: Runner, **choices: Any) -> Outcome:
    return carry_out("asked", sweep, storage, contextlib.nullcontext(runner), Quiet(), **choices)


def stands(outcome: Outcome) -> dict[str, tuple[str, int]]:
    return {each.backbone: (str(each.state), each.used) for each in outcome.decisions}


TWO = ("edsr-tiny", "rdn-tiny")


def mixed(run: RunSpec) -> Any:
    """Return scores that show much with one backbone, and nothing with the other."""
    return differing({"edsr-tiny": 5.0, "rdn-tiny": 0.0}[run.backbone])(run)


def test_seeds_are_added_where_a_comparison_is_undecided(asked: Callable[..., SweepSpec], storage: Storage) -> None:
    sweep, runner = asked(backbones=TWO, seeds=[3], max_seeds=6), MadeUp(mixed)
    planned = look("asked", sweep, storage, Quiet())
    assert (len(planned.pending), len(planned.undeclared), planned.decisions) == (16, 1, ())
    outcome = decide(sweep, storage, runner)
    assert stands(outcome) == {"edsr-tiny": ("decided", 4), "rdn-tiny": ("undecided", 6)}
    seeds = {backbone: sorted(seed for name, loss, seed in runner.done if name == backbone) for backbone in TWO}
    assert seeds == {"edsr-tiny": sorted([*range(3, 7)] * 2), "rdn-tiny": sorted([*range(3, 9)] * 2)}
    (declared,) = Store(storage).declarations()
    assert str(declared.question) == "l1 vs l2 on psnr_y of Many"
    assert (declared.seeds, declared.looks, declared.sweep) == ((*range(3, 9),), (3, 5, 6), "asked")
    assert len(outcome.plan.runs) == len(runner.done) == 20
    again = MadeUp(mixed)
    assert (stands(decide(sweep, storage, again)), again.done) == (stands(outcome), [])
    planned = look("asked", sweep, storage, Quiet())
    assert (planned.count("done"), planned.pending, planned.undeclared) == (20, [], ())
    assert planned.decisions == outcome.decisions


def test_what_is_equivalent_within_the_margin_needs_no_more_seeds(
    asked: Callable[..., SweepSpec], storage: Storage
) -> None:
    outcome = decide(asked(f"{QUESTION} within 0.5", max_seeds=7), storage, MadeUp(differing(0.0, sd=0.05)))
    assert stands(outcome) == {"edsr-tiny": ("equivalent", 4)}
    (cell,) = (each.comparison for each in outcome.decisions)
    assert cell is not None
    assert cell.equivalence is not None
    assert (cell.margin, cell.verdict, cell.equivalence.p <= 0.05) == (0.5, "equivalent", True)


@pytest.mark.parametrize(
    ("margin", "used"), [(1.3, 4), (1.04, 5)], ids=["worse, but within", "worse, and perhaps by more"]
)
def test_a_significant_harm_near_the_margin_needs_more_seeds(
    asked: Callable[..., SweepSpec], storage: Storage, margin: float, used: int
) -> None:
    outcome = decide(asked(f"{QUESTION} within {margin}", max_seeds=5), storage, MadeUp(differing(-1.0, sd=0.05)))
    (cell,) = outcome.decisions
    assert cell.comparison is not None
    assert (cell.used, cell.comparison.verdict) == (used, "significant")
    assert (cell.state == "undecided") == (used == 5)


def test_whatever_ends_a_sweep_and_however_it_is_shared_it_asks_for_the_same_runs(
    asked: Callable[..., SweepSpec], storage: Storage, tmp_path: Path
) -> None:
    sweep, whole, shared = asked(backbones=TWO, max_seeds=5), MadeUp(mixed), Storage(f"{tmp_path}/shared")
    expected = stands(decide(sweep, storage, whole))
    assert expected == {"edsr-tiny": ("decided", 5), "rdn-tiny": ("undecided", 5)}
    stopped, killed = MadeUp(mixed, most=5, killed=False), MadeUp(mixed, most=3)
    first, second = MadeUp(mixed), MadeUp(mixed)
    assert decide(sweep, shared, stopped).interrupted
    with pytest.raises(KeyboardInterrupt):
        decide(sweep, shared, killed, shard=Shard(2, 2))
    assert stands(decide(sweep, shared, first, shard=Shard(1, 2))) == expected  # it does what no other has begun
    assert stands(decide(sweep, shared, second, shard=Shard(2, 2))) == expected
    assert sorted(stopped.done + killed.done + first.done) == sorted(whole.done)
    assert second.done == []
    digests = [[each.digest for each in Store(there).declarations()] for there in (storage, shared)]
    assert digests[0] == digests[1]


def test_a_seed_whose_run_failed_is_left_out_until_it_is_retried(
    asked: Callable[..., SweepSpec], storage: Storage
) -> None:
    def fails(run: RunSpec) -> bool:
        return run.seed == 1 and str(run.loss) == "l2"

    sweep = asked(max_seeds=6)
    outcome = decide(sweep, storage, MadeUp(differing(5.0), fails))
    (decision,) = outcome.decisions
    assert (str(decision.state), decision.used, list(outcome.failed.values())) == ("decided", 5, ["loss is NaN"])
    assert decision.comparison is not None
    assert decision.comparison.seeds == (0, 2, 3, 4, 5)
    assert any("loss is NaN (l2, seed 1)" in why for why in decision.comparison.left_out)
    (decision,) = decide(sweep, storage, MadeUp(differing(5.0)), retry=True).decisions
    assert (decision.used, str(decision.state)) == (6, "decided")


def test_a_loss_that_always_fails_ends_the_rounds(asked: Callable[..., SweepSpec], storage: Storage) -> None:
    runner = MadeUp(differing(5.0), lambda run: str(run.loss) == "l2")
    assert stands(decide(asked(), storage, runner)) == {"edsr-tiny": ("undecided", 0)}
    assert len(runner.done) == 8


def test_a_round_whose_runs_have_not_all_ended_is_the_last(asked: Callable[..., SweepSpec], storage: Storage) -> None:
    def stops(name: str, jobs: Sequence[Job], *rest: Any) -> Summary:
        summary = made_up(name, jobs[1:], *rest)
        return replace(summary, exhausted={jobs[0].run_id: "its budget of hours is used up"})

    made_up = MadeUp(differing(0.0))
    assert decide(asked(), storage, stops).out_of_budget() == "1 run is not done: its budget of hours is used up."
    assert len(made_up.done) == 7


def test_what_is_decided_is_told(
    asked: Callable[..., SweepSpec], storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = decide(asked(), storage, MadeUp(differing(5.0)))
    print_outcome(outcome, storage.root, as_json=False, again="")
    (declared,) = Store(storage).declarations()
    said = capsys.readouterr().err.splitlines()
    fixed = f"{declared.digest}: α 0.05, g 4, at most 20 seeds from 0 on"
    assert said[0] == f"{QUESTION} of Many, declared {declared.declared:%Y-%m-%d %H:%M} UTC ({fixed}):"
    assert said[1].startswith("- l2 raises psnr_y on Many with edsr-tiny by ")
    assert said[1].endswith("4 of at most 20 seeds × 12 images): significant, better. Decided.")
    print_outcome(outcome, storage.root, as_json=True, again="")
    (told,) = json.loads(capsys.readouterr().out)["decisions"]
    expected = {"declaration": declared.digest, "dataset": "Many", "state": "decided", "seeds": 4, "max_seeds": 20}
    assert expected.items() <= told.items()
    assert f"- {told['sentence']}" == said[1]
    status(results=storage.root, as_json=False)
    assert "4 of 20" in capsys.readouterr().out
    status(results=storage.root, as_json=True)
    assert json.loads(capsys.readouterr().out)["decisions"] == [{k: v for k, v in told.items() if k != "sentence"}]


def test_what_was_declared_is_not_declared_otherwise(asked: Callable[..., SweepSpec], storage: Storage) -> None:
    runner = MadeUp(differing(5.0))
    decide(asked(max_seeds=6), storage, runner)
    when = Store(storage).declarations()[0].declared
    for other, before, now in (
        (asked(max_seeds=7), "seeds 0-5", "seeds 0-6"),
        (asked(max_seeds=6, settings={"decide.g": 9}), "decide.g=4", "decide.g=9"),
        (asked("l2 vs l1 on psnr_y", max_seeds=6), "l1 first", "l2 first"),
        (asked(f"{QUESTION} within 0.1", max_seeds=6), "no margin", "a margin of 0.1"),
    ):
        with pytest.raises(InputError) as refused:
            decide(other, storage, runner)
        said = f"was declared on {when:%Y-%m-%d at %H:%M} UTC with {before}, and is asked with {now}; ask as declared"
        assert said in str(refused.value)
    assert len(Store(storage).declarations()) == 1
    decide(asked(seeds=[6], max_seeds=6), storage, runner)
    assert len(Store(storage).declarations()) == 2


def test_nothing_is_declared_of_what_somebody_may_have_seen(asked: Callable[..., SweepSpec], storage: Storage) -> None:
    runner = MadeUp(differing(5.0))
    decide(asked().model_copy(update={"decide": None}), storage, runner)
    said = (
        "has to be declared before the first look, and edsr-tiny · l1 · seed 0 has a score already; choose fresh seeds"
    )
    with pytest.raises(InputError, match=said):
        decide(asked(), storage, runner)
    assert Store(storage).declarations() == []
    decide(asked(seeds=[1]), storage, runner)


def test_a_run_of_another_question_may_be_compared_once_more(asked: Callable[..., SweepSpec], storage: Storage) -> None:
    runner, both = MadeUp(differing(5.0)), ["l1", "l2", "charbonnier"]
    decide(asked(), storage, runner)
    more = asked("l1 vs charbonnier on psnr_y", losses=both)
    decide(more, storage, runner)
    with pytest.raises(InputError, match="has a score already"):
        decide(asked("l2 vs charbonnier on psnr_y", losses=both), storage, runner)


def test_a_question_that_images_cannot_decide_is_refused(
    asked: Callable[..., SweepSpec], storage: Storage, folders: dict[str, Path]
) -> None:
    few = asked(tests=[f"Few={folders['few']}"])
    with pytest.raises(InputError, match=r"no number of seeds can decide .*: its test sets have only 3 images; name"):
        look("asked", few, storage, Quiet())
    sweep = asked(tests=[f"Few={folders['few']}", f"Many={folders['many']}"])
    outcome = decide(sweep, storage, MadeUp(differing(5.0)))
    assert {each.dataset: str(each.state) for each in outcome.decisions} == {
        "Few": "undecidable by seeds",
        "Many": "decided",
    }


@pytest.mark.parametrize(("family", "g", "alpha"), [(1, 4.0, 0.05), (8, 4.0, 0.05), (4, 1.0, 0.01), (80, 100.0, 0.05)])
def test_fewer_seeds_than_the_first_round_has_could_decide_nothing(family: int, g: float, alpha: float) -> None:
    question = Question("l1", "l2", "psnr_y", ("Many",))
    backbones = tuple(map(str, range(family)))
    declaration = Declaration(question, alpha, g, (*range(20),), (20,), backbones, (), "", "", NOW)
    fewest = fewest_seeds(declaration)
    evidence = t_e_process(1 + 1e-9 * np.random.default_rng(0).normal(size=20), g)
    assert evidence[fewest - 2] < family / alpha <= evidence[fewest - 1]
