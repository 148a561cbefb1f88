"""The parts of Ray that are private, undocumented or have to be switched off, and why sgbench relies on them.

``tests/cluster/test_ray_internals.py`` tests each of them, so that a version of Ray that changes one fails there.
Importing this module does not import Ray.
"""

import contextlib
import importlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import psutil

from sgbench.core.environment import variables

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths are absolute, and nothing is relative to a trial's folder
    "RAY_AIR_NEW_OUTPUT": "0",  # or Tune prints a table of its configuration, whatever `verbose` is
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # Train's controller polls; 2 s a poll is most of a short run
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # or each trial writes its results in three formats
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `sgbench.cluster.sweep` has its own
    "MLFLOW_DISABLE_TELEMETRY": "true",  # Tune imports it, where it is installed, and it writes to the home folder
    "MALLOC_ARENA_MAX": "1",  # runs have a thread of their own, and `sgbench.training.memory` needs this there
}
"""Environment of the driver and of every worker; what is already set stays."""

STOP_WAIT_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
"""In the environment of a job: the seconds between the request to stop and the kill. Ray's default is 3."""

_RECONNECT_VARIABLE = "RAY_gcs_rpc_server_reconnect_timeout_s"

RECONNECT_SECONDS = float(os.environ.get(_RECONNECT_VARIABLE) or 60)
"""How long the ``gcs_server`` of a Ray may not answer before Ray ends every process that is connected to it."""

DRIVER_RESOURCES = {"CPU": 0, "memory": 1}
"""What a trial takes that leaves all computing to a worker group: a byte, as a trial that takes nothing is refused."""

TOKEN_VARIABLE = "RAY_AUTH_TOKEN"
"""Holds the token that all processes of a Ray have, in their environment."""

RAYLET_VARIABLE = "RAY_RAYLET_PID"
"""Holds, in the environment of what a raylet starts, its number.

These processes outlive it if orphans get another parent than process 1, and then do not notice that it is gone; or for
a minute, in which they try to tell the ``gcs_server``, if that is gone too.
"""

VITAL = ("gcs_server", "raylet")
"""Processes of a Ray, children of the command that started it; the death of one is the end of the sweep.

Neither Tune nor Ray tells of it: without its raylet a Ray begins no run and Tune goes on waiting for one, and without
its ``gcs_server`` Ray ends the command after a minute, with a page of its own log.
"""


def silence_raylets() -> None:
    """Keep the warnings of raylets off the screen, which ``log_to_driver=False`` does not."""
    import ray

    ray._private.worker._worker_logs_enabled = False


@contextlib.contextmanager
def on_loopback() -> Iterator[None]:
    """Let all processes of a Ray that is started in this context listen on loopback only.

    Ray does so where it makes no clusters, on Windows and macOS. No public name asks for it: the address of a node that
    is given as 127.0.0.1 becomes that of the machine, and other addresses mean all interfaces.
    """
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def own_token() -> Iterator[str]:
    """Yield a token for a Ray that is started with it in `TOKEN_VARIABLE`, which this process uses in this context.

    Without any, Ray would write one to ``~/.ray/auth_token``, which all other Rays of that user then require.
    """
    token = secrets.token_hex(32)
    with variables(RAY_AUTH_MODE="token", **{TOKEN_VARIABLE: token}):
        _read_token()
    try:
        yield token
    finally:
        _read_token()


def _read_token() -> None:
    """Let Ray read from the environment again whether there is a token, and which; it does so once."""
    raylet: Any = importlib.import_module("ray._raylet")  # which declares few of its names

    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def session_folder() -> str:
    """Return the folder in which the connected Ray keeps its files on this machine."""
    import ray

    return str(ray._private.worker.global_worker.node.get_session_dir_path())


def node_check() -> Callable[[float], bool]:
    """Return a function that asks the connected Ray whether it takes this process's node for alive.

    It takes the seconds within which Ray is to answer, and raises an exception if Ray does not. No public function has
    a limit of time: all wait for an answer until Ray ends the process.
    """
    import ray

    node = ray.get_runtime_context().get_node_id()
    if ray.util.client.ray.is_connected():  # through ray://, where only the connection can be asked
        return lambda seconds: bool(ray.util.client.ray.is_connected())
    asked = ray._private.worker.global_worker.gcs_client
    return lambda seconds: bool(asked.check_alive([ray.NodeID.from_hex(node)], timeout=seconds)[0])


def asks_for_token() -> bool:
    """Return whether the Ray of this process requires a token, which no public name tells."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    return bool(is_token_auth_enabled())


def anywhere() -> Any:
    """Return the scheduling strategy of a task that may run wherever there is room.

    By default a task of a trial is placed in the trial's own placement group, which has no room for one.
    """
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    return PlacementGroupSchedulingStrategy(None)


def is_leaving(node: str) -> bool:
    """Return whether Ray was told that a node, given by its id, will be taken away, like a spot instance."""
    import ray

    return node in ray._private.state.state.get_draining_nodes()


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process still does something; one that has ended is kept until its parent asks for it."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Raylet(NamedTuple):
    """A process that makes this machine a node of a cluster."""

    process: psutil.Process
    node: str
    """Its id."""
    address: str
    """Of the cluster."""


def own_raylets() -> list[Raylet]:
    """Return the raylets of this user on this machine, which may be nodes of several clusters."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == "raylet" and process.uids().real == os.getuid():
                flags = dict(word[2:].split("=", 1) for word in process.cmdline() if word[:2] == "--" and "=" in word)
                found.append(Raylet(process, flags["node_id"], flags["gcs-address"]))
    return found


def announce_end(raylet: Raylet, seconds: float) -> None:
    """Tell Ray that a node will be taken away, so that nothing starts there and `is_leaving` is true of it.

    The raylet ends by itself when nothing runs there any more.

    Args:
        raylet: Of the node.
        seconds: Until that happens.

    Raises:
        ConnectionError: If the cluster does not answer or refuses.
    """
    import ray
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline = int((time.time() + seconds) * 1000)
    try:
        accepted, why = ray._raylet.GcsClient(address=raylet.address).drain_node(
            raylet.node, reason, PREEMPTED, deadline
        )
    except Exception as error:  # of several kinds, some of them Ray's
        raise ConnectionError(str(error)) from error
    if not accepted:
        raise ConnectionError(why)


PREEMPTED = "its node is being taken away"
"""What `preemption` says; Tune does not count it among the failures of a trial."""


def preemption() -> Exception:
    """Return an exception for a trial to raise that leaves its node: Tune starts it on another, however often."""
    from ray.exceptions import RayActorError

    error: Exception = RayActorError(error_msg=PREEMPTED, preempted=True)
    return error


def error_of(trial: Any) -> str:
    """Return the last line of the error that ended a trial of Tune, also if its process died without an exception."""
    text = str(trial.get_error() or "").strip()
    return text.splitlines()[-1] if text else "its process died"


def set_failures(trial: Any, count: int) -> None:
    """Say how many failures of a trial of Tune count among those after which it is not started again."""
    trial.run_metadata.num_failures = count


def is_lost_machine(reason: str) -> bool:
    """Return whether Ray's words for the death of a process say that its node died, or had no memory left."""
    return "its node has died" in reason or "running low on memory" in reason


def is_unreached(reason: str) -> bool:
    """Return whether Ray's words for a call that failed say that the network failed, not the process (gRPC's code 14).

    Tune takes that for a failure of the trial, and starts another process for it.
    """
    return "is unavailable: " in reason and "rpc_code: 14" in reason


class Unsaved:
    """A part of a sweep that is left out of the state that Tune saves to restore sweeps, which sgbench never does.

    Tune copies and pickles its callbacks and stoppers for that; ours hold locks, loggers and the screen.
    """

    _SAVED_AS: ClassVar[type]
    """What is saved in its place; it is made without arguments."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return self._SAVED_AS, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self
