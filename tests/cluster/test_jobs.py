"""Sweeps as jobs: what is asked of Ray, what is made of its answers, and one that is stopped and submitted again."""

import contextlib
import datetime
import functools
import http.server
import json
import re
import shlex
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from place import PATIENCE_SECONDS, Place, wait_until
from raylets import Nodes

import sgbench
from sgbench.cluster import jobs as module
from sgbench.cluster.jobs import Jobs
from sgbench.core.errors import InputError
from sgbench.core.modules import Module
from sgbench.core.packages import to_send
from sgbench.core.sources import Source

BEGAN = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


@dataclass
class Client:
    """Stands for Ray's client, which `Jobs` calls by these names."""

    there: list[SimpleNamespace] = field(default_factory=list)
    sent: dict[str, Any] = field(default_factory=dict)
    file: dict[str, str] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    fault: Exception | None = None

    def add(self, job: str | None, status: str, began: int = 0, **told: str) -> None:
        started = int(BEGAN.timestamp() + began) * 1000
        self.there.append(
            SimpleNamespace(
                submission_id=job,
                status=status,
                entrypoint="sgbench sweep",
                start_time=started,
                end_time=None,
                message="m",
                metadata=told or None,
            )
        )

    def submit_job(self, **sent: Any) -> None:
        if self.fault:
            raise self.fault
        self.sent = sent
        folder = Path(sent["runtime_env"]["working_dir"])
        files = (path for path in folder.rglob("*") if path.is_file())
        self.file = {str(path.relative_to(folder)): path.read_text() for path in files}

    def list_jobs(self) -> list[SimpleNamespace]:
        return self.there

    def get_job_logs(self, job: str) -> str:
        return f"log of {job}"

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for text in ("first\n", "second\n"):
            yield text
        self.there[0].status = "SUCCEEDED"

    def stop_job(self, job: str) -> bool:
        self.stopped.append(job)
        threading.Timer(0.2, lambda: setattr(self.there[0], "status", "STOPPED")).start()
        return True


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    client = Client()
    monkeypatch.setattr(module, "_knock", lambda address, headers, flag: None)
    monkeypatch.setattr(module, "_connect", lambda address, headers: client)
    return client


def test_a_job_is_the_command_on_the_head_and_only_its_sweep_modules_and_packages_are_sent(
    client: Client,
) -> None:
    mine = Module("parts.mine", "/here/parts/mine.py", b"VALUE = 1\n", is_package=False)
    (theirs,) = to_send(["sortedcontainers"], "--with")
    asked = {"flags": "--seeds 0,1 --retry", "modules": [mine], "packages": [theirs]}
    job = Jobs().submit("my sweep", "train: demo\n", "s3://bucket/my results", ["--retry"], **asked)
    assert job.startswith("sgbench-my-sweep-20")
    assert client.sent["submission_id"] == job
    assert shlex.split(client.sent["entrypoint"]) == [
        *("sgbench", "sweep", "my sweep.yaml", "--results", "s3://bucket/my results", "--retry", "--address", "auto")
    ]
    told = {"sweep": "my sweep", "flags": "--seeds 0,1 --retry", "results": "s3://bucket/my results"}
    assert client.sent["metadata"] == told
    installed = {f"packages/{file}": (theirs.folder / file).read_text() for file in theirs.files}
    assert client.file == {
        "my sweep.yaml": f"# {job}\ntrain: demo\n",  # Ray must not take it for an earlier one
        "parts/mine.py": "VALUE = 1\n",
        **installed,
    }
    assert client.sent["runtime_env"]["env_vars"]["PYTHONPATH"] == "packages"
    assert not Path(client.sent["runtime_env"]["working_dir"]).exists()


def test_a_job_has_time_to_write_its_checkpoints(client: Client) -> None:
    Jobs().submit("quick", "", "s3://bucket/results")
    assert client.sent["runtime_env"]["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "600"}


def test_a_head_that_has_just_started_is_asked_again(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    submit, said = client.submit_job, "Request failed with status code 500: No available agent to submit job."
    answers = iter([RuntimeError(said), RuntimeError(said), None])

    def once_ready(**sent: Any) -> None:
        client.fault = next(answers)
        submit(**sent)

    monkeypatch.setattr(client, "submit_job", once_ready)
    assert client.sent == {}
    job = Jobs().submit("quick", "", "s3://bucket/results")
    assert client.sent["submission_id"] == job

    client.fault = RuntimeError(said)
    monkeypatch.setattr(client, "submit_job", submit)
    monkeypatch.setattr(module, "BEGIN_SECONDS", 0.0)
    with pytest.raises(InputError, match="says: Request failed with status code 500: No available agent to submit job"):
        Jobs().submit("quick", "", "s3://bucket/results")


def test_jobs_are_listed_last_first_and_those_of_others_are_not(client: Client) -> None:
    client.add("sgbench-a", "SUCCEEDED", began=0)
    client.add("raysubmit_1", "RUNNING", began=5)
    client.add(None, "RUNNING", began=6)
    client.add("sgbench-b", "RUNNING", began=7, sweep="b", flags="--rerun", results="/r")
    assert [(job.id, job.status) for job in Jobs().list()] == [("sgbench-b", "running"), ("sgbench-a", "succeeded")]
    job = Jobs().get("sgbench-a")
    assert (job.command, job.started, job.ended, job.message) == ("sgbench sweep", BEGAN, None, "m")
    assert (job.sweep, job.flags, job.results) == (None, None, None)
    job = Jobs().get("sgbench-b")
    assert (job.sweep, job.flags, job.results) == ("b", "--rerun", "/r")


def test_an_unknown_job_is_refused_with_the_nearest(client: Client) -> None:
    with pytest.raises(InputError, match="unknown job 'x': no sweep was submitted to http"):
        Jobs().get("x")
    client.add("sgbench-quick-1", "RUNNING")
    client.add("raysubmit_1", "RUNNING")
    for ask in (Jobs().logs, Jobs().stop, lambda job: Jobs().follow(job, print)):
        with pytest.raises(InputError, match="unknown job 'sgbench-quick-2': did you mean 'sgbench-quick-1'"):
            ask("sgbench-quick-2")
    with pytest.raises(InputError, match="unknown job 'raysubmit_1'"):
        Jobs().stop("raysubmit_1")
    assert client.stopped == []


def test_logs_are_what_ray_has_and_following_ends_with_the_job(client: Client) -> None:
    client.add("sgbench-a", "RUNNING")
    said: list[str] = []
    assert Jobs().logs("sgbench-a") == "log of sgbench-a"
    assert Jobs().follow("sgbench-a", said.append).status == "succeeded"
    assert said == ["first\n", "second\n"]


def test_a_job_that_died_before_it_could_print_says_why(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(job: str) -> AsyncIterator[str]:
        for text in ():
            yield text

    client.add("sgbench-a", "FAILED")
    monkeypatch.setattr(client, "get_job_logs", lambda job: "")
    monkeypatch.setattr(client, "tail_job_logs", nothing)
    said: list[str] = []
    assert Jobs().logs("sgbench-a") == "m\n"
    assert Jobs().follow("sgbench-a", said.append).status == "failed"
    assert said == ["m\n"]


def test_stop_waits_until_the_job_has_ended_and_leaves_one_that_has(client: Client) -> None:
    client.add("sgbench-a", "RUNNING")
    assert Jobs().stop("sgbench-a").status == "stopped"
    assert Jobs().stop("sgbench-a").status == "stopped"
    assert client.stopped == ["sgbench-a"]


def test_what_the_cluster_refuses_is_one_sentence(client: Client) -> None:
    said = "Request failed with status code 400: already used."
    for fault in (RuntimeError(f"{said}\nTraceback: many lines"), aiohttp.ClientError(said), ConnectionError(said)):
        client.fault = fault
        with pytest.raises(InputError) as refused:
            Jobs("head:1234").submit("quick", "", "s3://bucket/results")
        assert str(refused.value) == f"--address: the cluster at 'http://head:1234' says: {said}"


def test_without_the_extra_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'sgbench\[service\]'"):
        Jobs()


@dataclass
class Answer:
    status: int = 200
    body: bytes = b'{"ray_version": "2.60.0"}'
    seconds: float = 0.0
    headers: list[str | None] = field(default_factory=list)


@pytest.fixture
def dashboard() -> Iterator[tuple[str, Answer]]:
    """The address of a server and what it answers."""
    answer = Answer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer.headers.append(self.headers["Authorization"])
            time.sleep(answer.seconds)
            self.send_response(answer.status)
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", answer
        server.shutdown()


@pytest.fixture
def no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    return tmp_path


def test_the_token_is_looked_for_where_ray_looks(
    dashboard: tuple[str, Answer], no_token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, answer = dashboard
    connected: list[Any] = []
    monkeypatch.setattr(module, "_connect", lambda *arguments: connected.append(arguments))
    Jobs(address)
    (no_token / ".ray").mkdir()
    (no_token / ".ray" / "auth_token").write_text("of-home\n")
    Jobs(f"{address}/")
    (no_token / "token").write_text("of-file")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(no_token / "token"))
    Jobs(address.removeprefix("http://"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-environment")
    Jobs(address)
    assert answer.headers == [None, "Bearer of-home", "Bearer of-file", "Bearer of-environment"]
    assert [where for where, _ in connected] == [address] * 4
    assert connected[-1][1] == {"Authorization": "Bearer of-environment"}


@pytest.mark.parametrize(
    ("answer", "token", "sentence"),
    [
        (
            Answer(401),
            None,
            "requires a token, and none is set here; it belongs in RAY_AUTH_TOKEN or ~/.ray/auth_token",
        ),
        (Answer(403), "old", "has a different token"),
        (Answer(404), None, "is not a Ray dashboard"),
        (Answer(body=b"<html>"), None, "is not a Ray dashboard"),
        (Answer(body=b"[]"), None, "is not a Ray dashboard"),
        (Answer(seconds=1.0), None, "no Ray dashboard answers at '.*': timed out"),
    ],
    ids=["no-token", "wrong-token", "other-server", "no-json", "other-json", "silence"],
)
@pytest.mark.usefixtures("no_token")
def test_a_dashboard_that_cannot_be_used_is_refused_at_once(
    dashboard: tuple[str, Answer],
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    token: str | None,
    sentence: str,
) -> None:
    address, answers = dashboard
    vars(answers).update(vars(answer))
    monkeypatch.setattr(module, "KNOCK_SECONDS", 0.3)
    if token:
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    with pytest.raises(InputError, match=sentence):
        Jobs(address)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("http://127.0.0.1:1", "no Ray dashboard answers at 'http://127.0.0.1:1': .*refused"),
        ("127.0.0.1:1", "no Ray dashboard answers at 'http://127.0.0.1:1'"),
        ("http://no-such-host.invalid:8265", "no Ray dashboard answers"),
        ("http://127.0.0.1:port", "not a Ray dashboard"),
        (
            "ray://127.0.0.1:10001",
            "--address is 'ray://127.0.0.1:10001'; the address of a Ray dashboard is needed, such as",
        ),
        ("file:///etc/hostname", "the address of a Ray dashboard is needed"),
    ],
)
def test_an_address_that_is_no_dashboards_is_refused(address: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Jobs(address)


def test_where_no_address_is_given_the_default_is_not_laid_to_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ADDRESS", "http://127.0.0.1:1")
    with pytest.raises(InputError, match=r"^--address is not given, and no Ray dashboard answers at 'http"):
        Jobs()


def test_a_port_that_speaks_no_http_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: server.accept()[0].sendall(b"\x00\x01 no HTTP\r\n"), daemon=True).start()
        with pytest.raises(InputError, match=r"what answers at 'http://127.0.0.1:.*' is not a Ray dashboard"):
            Jobs(f"http://127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_is_submitted_stopped_and_submitted_again(place: Place, head: Nodes) -> None:
    sets = ("--train", f"mine={place.folder / 'train'}", "--test", f"few={place.folder / 'test'}")
    (place.folder / "of_two.py").write_text("import odd_losses\n\nclass Slow(odd_losses.Slow):\n    pass\n")
    sweep = ("tiny.yaml", "--loss", "of_two:Slow", "--seeds", "0", *sets, "--set", "recipe.steps=60")
    store = place.folder / "submitted"
    call = functools.partial(place.call, slow=0.1)

    def submit(*flags: str) -> str:
        said = call("submit", *sweep, "--results", str(store), *flags, *there)
        assert re.findall("sent along: (.*) [(][0-9,]+ bytes[)]", said.stderr) == ["odd_losses.py", "of_two.py"]
        return said.stdout.strip()

    there = ("--address", head.dashboard)
    home = place.folder / "home"
    home.mkdir()
    wrong = place.run("status", *there, code=2, RAY_AUTH_TOKEN="wrong", HOME=str(home))
    assert "has a different token" in wrong.stderr
    place.run("status", *there, HOME=str(home))
    assert not list(home.iterdir())  # no token is made, nor anything else
    first = submit()
    wait_until(lambda: "step 1/60" in call("logs", first, *there).stdout, PATIENCE_SECONDS, pause=0.5)
    assert call("stop", first, *there).stderr == f"{first}: stopped\n"
    assert "Interrupted; run the same command to resume." in call("logs", first, *there).stdout
    assert len(list((store / "checkpoints").rglob("*.pt"))) == 1
    assert call("stop", first, *there).stderr == f"{first}: stopped\n"  # it has ended, and is left as it is
    refused = call("stop", f"{first}1", *there, code=2).stderr
    assert refused == f"error: unknown job '{first}1': did you mean '{first}'? Valid: {first}.\n"

    second = submit("--retry")
    followed = place.call("logs", second, "--follow", *there)
    assert "step 1/60" not in followed.stdout
    assert "done edsr-tiny · of_two:Slow · seed 0 (1 of 1)" in followed.stdout
    assert followed.stderr == f"{second}: succeeded\n"
    assert call("stop", second, *there).stderr == f"{second}: succeeded\n"
    jobs = json.loads(call("status", "--json", *there).stdout)
    asked = shlex.join(word for word in sweep if word != "tiny.yaml")
    assert [(job["id"], job["status"], job["sweep"], job["results"], job["flags"]) for job in jobs] == [
        (second, "succeeded", "tiny", str(store), f"{asked} --retry"),
        (first, "stopped", "tiny", str(store), asked),
    ]
    (row,) = sgbench.load_results(str(store)).runs.to_pylist()
    source = Source.here("of_two:Slow", [str(place.folder)])
    assert (row["status"], json.loads(row["code"])) == ("done", {"loss of_two:Slow": source and source.digest})
    head.assert_idle()
