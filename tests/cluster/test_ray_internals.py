"""What sgbench relies on in Ray beyond its public names: a Ray that changes one fails here. None is started."""

import copy
import importlib
import inspect
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import tune
from ray.tune.experimental.output import get_air_verbosity
from ray.tune.logger import LoggerCallback
from ray.tune.tune import _setup_signal_catching
from ray.tune.utils.callback import _create_default_callbacks

from sgbench.cluster import ray_internals
from sgbench.cluster.ray_internals import DRIVER_RESOURCES, ENVIRONMENT, VITAL, error_of
from sgbench.cluster.sweep import _Events, _Waiting

RAY = Path(ray.__file__).parent


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def test_importing_it_imports_no_ray() -> None:
    modules = "sgbench.cluster.ray_internals, sgbench.cluster.watch, sgbench.cluster.jobs"
    code = f"import sys, {modules}; print('ray' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(ray_internals.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "False\n"


def test_only_this_module_uses_private_names_of_ray() -> None:
    folder = Path(ray_internals.__file__).parents[1]
    users = {path.name for path in folder.rglob("*.py") if "_private" in path.read_text(encoding="utf-8")}
    assert users == {"ray_internals.py"}


def test_tune_adds_neither_loggers_nor_its_display_nor_a_handler_of_ctrl_c() -> None:
    assert get_air_verbosity(0) is None
    assert not [each for each in _create_default_callbacks([], air_verbosity=None) if isinstance(each, LoggerCallback)]
    before, user = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGUSR1)
    try:
        _setup_signal_catching()
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGUSR1, user)


@pytest.mark.parametrize(
    ("variable", "reader"),
    [
        ("RAY_USAGE_STATS_ENABLED", "ray._common.usage.usage_constants"),
        ("RAY_CHDIR_TO_TRIAL_DIR", "ray.train.constants"),
        ("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "ray.train.v2._internal.constants"),
        ("RAY_AUTH_MODE", "ray._private.authentication.authentication_token_setup"),
        (ray_internals.STOP_WAIT_VARIABLE, "ray.dashboard.modules.job.job_supervisor"),
    ],
)
def test_a_variable_is_still_read_by_the_module_that_acts_on_it(variable: str, reader: str) -> None:
    assert f'"{variable}"' in inspect.getsource(importlib.import_module(reader))


def test_the_processes_that_are_watched_have_the_names_of_ray_s_programs() -> None:
    core = RAY / "core" / "src" / "ray"
    assert all(list(core.glob(f"*/{name}")) for name in VITAL)
    assert ray_internals.RAYLET_VARIABLE in ray._private.ray_constants.RAY_INTERNAL_FLAGS


@pytest.mark.parametrize(("mode", "asked"), [("token", "True"), ("disabled", "False")])
def test_whether_a_token_is_asked_for_is_what_ray_was_told(mode: str, asked: str) -> None:
    """In a process of its own, as Ray reads the variable once."""
    said = subprocess.run(
        [sys.executable, "-c", "from sgbench.cluster.ray_internals import *; print(asks_for_token())"],
        env={**os.environ, "RAY_AUTH_MODE": mode, "PYTHONPATH": str(Path(ray_internals.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == f"{asked}\n"


def test_a_trial_may_take_a_byte_of_memory_but_not_nothing() -> None:
    assert tune.PlacementGroupFactory([DRIVER_RESOURCES]).required_resources == {"memory": 1}
    with pytest.raises(ValueError, match="empty head"):
        tune.PlacementGroupFactory([{"CPU": 0}])


def test_what_tune_saves_of_a_sweep_is_a_part_of_its_own_that_does_nothing() -> None:
    events = _Events([], SimpleNamespace(), remote=False)
    waiting = _Waiting(events, *(SimpleNamespace(),) * 3)
    for part, saved in ((events, tune.Callback), (waiting, tune.stopper.NoopStopper)):
        assert copy.deepcopy(part) is part
        assert type(pickle.loads(pickle.dumps(part))) is saved


@pytest.mark.parametrize(
    ("text", "line"),
    [(None, "its process died"), ("", "its process died"), ("a traceback\nOSError: full\n", "OSError: full")],
)
def test_what_ended_a_trial_is_its_last_line(text: str | None, line: str) -> None:
    trial: Any = SimpleNamespace(get_error=lambda: text)
    assert error_of(trial) == line
    assert callable(tune.experiment.trial.Trial.get_error)
