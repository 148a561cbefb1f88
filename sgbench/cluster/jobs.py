"""Sweeps as jobs of a running cluster, through Ray Jobs, whose clients need only the dashboard of the head.

A job is the command ``sgbench sweep`` on the head. Nothing is kept on this machine; its results go to a store.
"""

import asyncio
import contextlib
import datetime
import http.client
import importlib.util
import json
import logging
import os
import re
import shlex
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgbench.cluster.ray_internals import STOP_WAIT_VARIABLE
from sgbench.core.errors import InputError, unknown
from sgbench.core.modules import Module
from sgbench.core.packages import Package, put

ADDRESS = "http://127.0.0.1:8265"
"""Address of a head's dashboard, on the head itself and at the local end of a tunnel to it."""

KNOCK_SECONDS = 5.0
"""How long a dashboard may take to answer."""

STOP_SECONDS = 600
"""How long a job that is asked to stop may take to write its checkpoints before it is killed; Ray's default is 3 s."""

BEGIN_SECONDS = 30.0
"""How long a head that has just started may take until it can start jobs."""

PREFIX = "sgbench-"
"""Ids of jobs begin with it; other jobs of the cluster are not sgbench's."""

LIVE = ("pending", "running")
"""Of `Submitted.status`: the job has not ended."""


@dataclass(frozen=True)
class Submitted:
    """A sweep that was submitted."""

    id: str
    status: str
    """``pending``, ``running``, ``succeeded``, ``failed`` or ``stopped``."""
    command: str
    sweep: str | None
    """Name of the sweep; this and the next two are None if an older sgbench submitted it."""
    flags: str | None
    """What the person asked for besides, such as ``--seeds 0,1 --rerun``."""
    results: str | None
    """The results store."""
    started: datetime.datetime | None
    ended: datetime.datetime | None
    message: str | None
    """What Ray says of it, with the end of the log if the command failed."""

    @property
    def took(self) -> datetime.timedelta | None:
        """How long it has run, so far if it has not ended."""
        if self.started is None:
            return None
        return (self.ended or datetime.datetime.now(datetime.UTC)) - self.started

    @classmethod
    def of(cls, details: Any) -> "Submitted":
        """Return what Ray calls ``JobDetails``."""
        return cls(
            id=details.submission_id,
            status=str(getattr(details.status, "value", details.status)).lower(),
            command=details.entrypoint,
            **{key: (details.metadata or {}).get(key) for key in ("sweep", "flags", "results")},
            started=_time(details.start_time),
            ended=_time(details.end_time),
            message=details.message,
        )


class Jobs:
    """The jobs of sgbench on one cluster. Any call raises `InputError` if the cluster refuses it.

    Args:
        address: Address of the dashboard of the cluster's head; `ADDRESS` by default.

    Raises:
        InputError: If Ray's dashboard is not installed here, does not answer there, or wants another token.
    """

    def __init__(self, address: str | None = None) -> None:
        if importlib.util.find_spec("aiohttp") is None:
            raise InputError("jobs need the extra 'service': pip install 'sgbench[service]'.")
        self._flag = "--address:" if address else "--address is not given, and"
        address = address or ADDRESS
        self._address = (address if "://" in address else f"http://{address}").rstrip("/")
        headers = _headers()
        _knock(self._address, headers, self._flag)
        with self._asking():
            self._client = _connect(self._address, headers)

    def submit(
        self,
        name: str,
        sweep: str,
        results: str,
        words: Sequence[str] = (),
        *,
        flags: str = "",
        modules: Sequence[Module] = (),
        packages: Sequence[Package] = (),
    ) -> str:
        """Start ``sgbench sweep`` on the head.

        Args:
            name: Name of the sweep.
            sweep: All of it, as YAML.
            results: The results store.
            words: Further arguments of the command.
            flags: What the person asked for, to distinguish the job from others of that sweep.
            modules: Of plug-ins; they, the packages and the sweep are the only files that are sent along.
            packages: For all processes of the job, on every node.

        Returns:
            The job's id.
        """
        now = datetime.datetime.now(datetime.UTC)
        job = f"{PREFIX}{re.sub('[^A-Za-z0-9._]+', '-', name)}-{now:%Y%m%d-%H%M%S}"
        command = ["sgbench", "sweep", f"{name}.yaml", "--results", results, *words, "--address", "auto"]
        with tempfile.TemporaryDirectory() as folder, self._asking():
            # The id makes it another file for each job: one that Ray has by its hash may be gone when the job starts.
            (Path(folder) / f"{name}.yaml").write_text(f"# {job}\n{sweep}", encoding="utf-8")
            for module in modules:
                path = Path(folder) / module.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(module.content)
            environment = {STOP_WAIT_VARIABLE: str(STOP_SECONDS), **put(packages, Path(folder))}
            self._start(
                entrypoint=shlex.join(command),
                submission_id=job,
                metadata={"sweep": name, "flags": flags, "results": results},
                runtime_env={"working_dir": folder, "env_vars": environment},
            )
        return job

    def _start(self, **job: Any) -> None:
        """Start a job as soon as the head can; Ray refuses one, and wants to be asked again, before that."""
        deadline = time.monotonic() + BEGIN_SECONDS
        while True:
            try:
                self._client.submit_job(**job)
            except RuntimeError as error:
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
            else:
                return

    def list(self) -> list[Submitted]:
        """Return all jobs, also those that have ended, the last one first."""
        with self._asking():
            there = [each for each in self._client.list_jobs() if (each.submission_id or "").startswith(PREFIX)]
        return [Submitted.of(each) for each in sorted(there, key=lambda each: each.start_time or 0, reverse=True)]

    def get(self, job: str) -> Submitted:
        """Return one job.

        Raises:
            InputError: If there is no job of that id.
        """
        there = {each.id: each for each in self.list()}
        if not there:
            raise InputError(f"unknown job '{job}': no sweep was submitted to {self._address}.")
        if job not in there:
            raise unknown("job", job, there)
        return there[job]

    def logs(self, job: str) -> str:
        """Return what a job has printed so far or, if it died before it could, what Ray says of that."""
        state = self.get(job)
        with self._asking():
            return str(self._client.get_job_logs(job)) or _last_words(state)

    def follow(self, job: str, write: Callable[[str], None]) -> Submitted:
        """Pass on what a job has printed and will print, until it ends; see `logs`.

        Returns:
            The job as it ended.
        """
        silent = True

        async def tail() -> None:
            nonlocal silent
            async for text in self._client.tail_job_logs(job):
                silent = False
                write(text)

        self.get(job)
        with self._asking():
            asyncio.run(tail())
        state = self._ended(job, time.monotonic() + KNOCK_SECONDS)  # the log ends a moment before the job does
        if silent:
            write(_last_words(state))
        return state

    def stop(self, job: str) -> Submitted:
        """Ask a job to write its checkpoints and end, and wait for that; one that has ended is left alone.

        Returns:
            The job as it ended.
        """
        if self.get(job).status in LIVE:
            with self._asking():
                self._client.stop_job(job)
        return self._ended(job, time.monotonic() + STOP_SECONDS + KNOCK_SECONDS)

    def _ended(self, job: str, deadline: float) -> Submitted:
        while (state := self.get(job)).status in LIVE and time.monotonic() < deadline:
            time.sleep(0.5)
        return state

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        import aiohttp

        try:
            yield
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"{self._flag} the cluster at '{self._address}' says: {said.rstrip('.')}.") from error


def _connect(address: str, headers: dict[str, str]) -> Any:
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # or an address in the environment would win over this one
    from ray.job_submission import JobSubmissionClient

    logging.disable(logging.WARNING)  # or Ray tells of each file that it sends, and of each that it finds large
    return JobSubmissionClient(address, headers=headers)


def _headers() -> dict[str, str]:
    """Return the headers that authenticate to a cluster: the token from where Ray itself looks for one."""
    token = os.environ.get("RAY_AUTH_TOKEN")
    if not token:
        path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
        token = path.read_text(encoding="utf-8") if path.is_file() else ""
    return {"Authorization": f"Bearer {token.strip()}"} if token.strip() else {}


def _knock(address: str, headers: dict[str, str], flag: str) -> None:
    """Refuse an address at which no dashboard answers; Ray's own client would wait for one forever.

    Args:
        address: Address of the dashboard.
        headers: Headers of the request.
        flag: Where the address comes from; messages begin with it.

    Raises:
        InputError: If there is none, or it wants another token.
    """
    if not re.match("https?://", address):
        raise InputError(f"--address is '{address}'; the address of a Ray dashboard is needed, such as {ADDRESS}.")
    try:
        request = urllib.request.Request(f"{address}/api/version", headers=headers)
        with urllib.request.urlopen(request, timeout=KNOCK_SECONDS) as answer:
            json.load(answer)["ray_version"]
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):
            raise InputError(f"{flag} what answers at '{address}' is not a Ray dashboard.") from error
        fault = "has a different token" if headers else "requires a token, and none is set here"
        raise InputError(
            f"{flag} the cluster at '{address}' {fault}; it belongs in RAY_AUTH_TOKEN or ~/.ray/auth_token."
        ) from error
    except (ValueError, KeyError, TypeError, http.client.HTTPException) as error:
        raise InputError(f"{flag} what answers at '{address}' is not a Ray dashboard.") from error
    except OSError as error:
        why = getattr(error, "reason", None) or error
        raise InputError(f"{flag} no Ray dashboard answers at '{address}': {why}.") from error


def _last_words(state: Submitted) -> str:
    return f"{state.message}\n" if state.status == "failed" and state.message else ""


def _time(milliseconds: int | None) -> datetime.datetime | None:
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC) if milliseconds else None
