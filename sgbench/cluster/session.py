"""Starting Ray in this process, or joining a cluster, without a word on the screen."""

import contextlib
import functools
import logging
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgbench.cluster.ray_internals import (
    ENVIRONMENT,
    TOKEN_VARIABLE,
    asks_for_token,
    node_check,
    on_loopback,
    own_token,
    silence_raylets,
)
from sgbench.core.environment import variables
from sgbench.core.errors import AGAIN, InputError, InterruptionError, described
from sgbench.core.files import temporary_folder
from sgbench.core.packages import Package, put

if TYPE_CHECKING:
    from sgbench.runs.measure import Measurer
    from sgbench.runs.sweep import Observer, Runner

KNOCK_SECONDS = 10.0
"""How long a cluster may take to accept a connection."""

SOCKET_CHARACTERS = 103
"""How long the path of a socket may be on macOS; Linux takes four more."""

_PREFIX = "sgb"
_BELOW = f"/{_PREFIX}-0000-00000000/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"

_HINTS = {
    True: "it may require another token than that in RAY_AUTH_TOKEN or ~/.ray/auth_token",
    False: "if it requires a token, put that into RAY_AUTH_TOKEN or ~/.ray/auth_token, and set RAY_AUTH_MODE=token",
}
"""By whether this process uses a token. For an address, Ray uses one only if it is told to, even if there is one."""

_SILENT: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}


@contextlib.contextmanager
def connect(
    address: str | None, say: Callable[[str], object] = lambda text: None, packages: Sequence[Package] = ()
) -> Iterator[threading.Event]:
    """Start Ray for as long as the context lasts, or join a cluster.

    Args:
        address: Of a running cluster, such as ``10.0.0.1:6379``, ``ray://head:10001`` or ``auto``; None starts Ray on
            this machine and ends it afterwards.
        say: Told what takes the next seconds, before it begins.
        packages: Sent to every node of the cluster, for processes that this one starts there.

    Yields:
        An event that is set when Ray is lost: it has died, or does not answer.

    Raises:
        InterruptionError: If it was lost before the context was left, or failed, as when a head was restarted.
        InputError: If there is no cluster at the address, Ray does not start on this machine, or this process is
            connected to a Ray already.
    """
    say("starting Ray…" if address is None else f"joining the Ray cluster at {address}…")
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    if address:
        _knock(address)
    import ray
    from ray.exceptions import RayError, RayTaskError

    from sgbench.cluster.watch import Watch

    if ray.is_initialized():
        raise InputError(
            "this process is already connected to a Ray; call ray.shutdown() first, and name the address of a cluster "
            "that is to be used."
        )
    with contextlib.ExitStack() as stack:
        folder, token = stack.enter_context(_alone()) if address is None else (None, "")
        watch = stack.enter_context(Watch(address, token))
        _start(address, folder, token, packages)
        watch.connected(node_check())
        try:
            yield watch.lost
        except BaseException as error:
            watch.look()  # as what Ray raises may come before the watch has looked
            if watch.lost.is_set():
                raise watch.error() from error
            if isinstance(error, RayError) and not isinstance(error, RayTaskError):  # the latter has an error of ours
                raise InterruptionError(f"Ray failed: {described(error)}; {AGAIN}.") from error
            raise
        finally:
            ray.shutdown()


def on_ray(
    address: str | None, observer: "Observer", packages: Sequence[Package] = ()
) -> contextlib.AbstractContextManager["Runner"]:
    """Return a context that starts Ray or joins a cluster, as `connect` does, and is a function to run a sweep there.

    Args:
        address: See `connect`.
        observer: Shows what happens.
        packages: See `connect`.

    Raises:
        InputError: If nothing listens at the address, which is found out before the context is entered.
    """
    if address:
        _knock(address)
    return _runner(address, observer, packages)


@contextlib.contextmanager
def _runner(address: str | None, observer: "Observer", packages: Sequence[Package]) -> Iterator["Runner"]:
    with connect(address, observer.say, packages) as lost:
        from sgbench.cluster.sweep import run_sweep  # imports Ray, whose environment is set by now

        yield functools.partial(run_sweep, lost=lost, sending=observer.sending if address else None)


@contextlib.contextmanager
def measuring(address: str, observer: "Observer", packages: Sequence[Package] = ()) -> Iterator["Measurer"]:
    """Join a cluster, as `connect` does, and yield a function that measures jobs there.

    Args:
        address: See `connect`.
        observer: Shows what happens.
        packages: See `connect`.
    """
    with connect(address, observer.say, packages):
        from sgbench.cluster.measure import measure_there

        yield functools.partial(measure_there, sending=observer.sending)


@contextlib.contextmanager
def _alone() -> Iterator[tuple[Path, str]]:
    """Yield the folder and the token of a Ray that is started here, which are its alone.

    Raises:
        InputError: If there is no room for its files.
    """
    parents = [Path(each) for each in (os.environ.get("RAY_TMPDIR"), tempfile.gettempdir(), "/tmp") if each]
    parent = next((each for each in parents if len(f"{each}{_BELOW}") <= SOCKET_CHARACTERS), parents[-1])
    with contextlib.ExitStack() as stack:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(temporary_folder(parent, _PREFIX))
        except OSError as error:
            raise InputError(f"Ray cannot be started here: {described(error)}.") from error
        token = stack.enter_context(own_token())
        yield folder / "ray", token  # a folder inside, as Ray lets everybody write to the one that it is given


def _start(address: str | None, folder: Path | None, token: str, packages: Sequence[Package]) -> None:
    """Start Ray, with its files in a folder and requiring a token, or join a cluster; see `connect`."""
    import ray

    try:
        if address is None:
            # "local" rather than nothing: a bare init would join whatever cluster was last started on this machine.
            with variables(**_environment(token)), on_loopback():
                ray.init(
                    "local",
                    include_dashboard=False,
                    object_store_memory=256 * 2**20,
                    _temp_dir=str(folder),
                    **_SILENT,
                )
        else:
            variables_there = {key: os.environ[key] for key in ENVIRONMENT}
            with tempfile.TemporaryDirectory() as sent:
                variables_there |= put(packages, Path(sent))
                working_folder = {"working_dir": sent} if packages else {}
                ray.init(address, runtime_env={"env_vars": variables_there, **working_folder}, **_SILENT)
    except Exception as error:  # Ray raises the class itself if its processes take too long to start
        what = f"--address: no Ray cluster can be reached at '{address}'" if address else "Ray cannot be started here"
        hint = f"; {_HINTS[asks_for_token()]}" if address else ""
        raise InputError(f"{what}: {str(error).splitlines()[0].rstrip('.')}{hint}.") from error
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # failures are reported once, by the run's row
    silence_raylets()


def _environment(token: str) -> dict[str, str]:
    """Return what the processes of a Ray that is started here have in their environment."""
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    return {
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),  # a loss beside the person
        "RAY_AUTH_MODE": "token",
        TOKEN_VARIABLE: token,
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
    }


def _knock(address: str) -> None:
    """Refuse an address at which nothing answers; Ray itself would keep trying for many minutes.

    Raises:
        InputError: If nothing listens there.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # such as "auto", which Ray looks up at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--address: no Ray cluster can be reached at '{address}': {error}.") from error
