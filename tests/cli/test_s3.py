"""Commands on a store in S3, of a server in this process that can be told to fail."""

import contextlib
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from pyarrow import fs
from werkzeug.serving import make_server

from sgbench.core import lease, location
from sgbench.core import storage as storage_module

Run = Callable[..., tuple[str, str]]
Fault = tuple[int, str, str]

TRAIN = ("train", "quick", "--train", "mine=train", "--test", "few=test", "--backbone", "edsr-tiny", "--loss", "l1")
TRAIN += ("--seeds", "0", "--metric", "psnr_y", "--set", "recipe.batch=2", "--set", "recipe.patch=8")

SECRET = "hunter2"
"""The secret key of the tests, which no command shows or stores."""

DENIED: Fault = (403, "AccessDenied", "Access Denied")


class Server:
    """An S3 server in memory that answers with an error where a test says so."""

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._http = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.host = f"127.0.0.1:{self._http.server_port}"
        self.fault: Callable[[str, str], Fault | None] = lambda method, path: None
        self.seen: list[str] = []
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def uri(self, path: str = "bucket/store") -> str:
        return f"s3://{path}?endpoint_override={self.host}&scheme=http"

    def stop(self) -> None:
        self._http.shutdown()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.seen.append(f"{method} {path} {environ['QUERY_STRING']} {environ.get('HTTP_AUTHORIZATION')}")
        if (refused := self.fault(method, path)) is None:
            return self._moto(environ, start)
        status, code, message = refused
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        body = body if method != "HEAD" else b""
        start(f"{status} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def s3(server: Server, place: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server with an empty bucket called ``bucket``, and the rights to it."""
    for name, value in {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": SECRET}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(location, "ATTEMPTS", 1)
    monkeypatch.setattr(storage_module, "PAUSES_SECONDS", (0.1, 0.1))
    server.fault, server.seen = (lambda method, path: None), []
    bucket = fs.S3FileSystem(
        endpoint_override=server.host,
        scheme="http",
        region="us-east-1",
        allow_bucket_creation=True,
        allow_bucket_deletion=True,
    )
    with contextlib.suppress(OSError):
        bucket.delete_dir("bucket")
    bucket.create_dir("bucket")
    return server


def train(run: Run, uri: str, *more: str, steps: int = 3, code: int = 0) -> str:
    return run(*TRAIN, "--set", f"recipe.steps={steps}", "--results", uri, *more, code=code)[1]


def test_every_command_works_on_a_store_whose_uri_has_options(s3: Server, run: Run, place: Path) -> None:
    uri = s3.uri("bucket/a store/")
    train(run, uri)
    train(run, s3.uri("bucket/other"), steps=4)
    table = json.loads(run("table", "--results", uri, "--json")[0])
    assert table
    (runs,) = [json.loads(run("query", "SELECT run_id FROM runs", "--results", uri, "--format", "json")[0])]
    run_id = runs[0]["run_id"]
    _, err = run("status", "--results", uri, code=2)
    assert "has no record of a sweep" in err
    run("results", "verify", uri)
    run("report", "--results", uri, "--out", "page.html")
    run("results", "compact", "--results", uri)
    run("results", "verify", uri)
    run("results", "clean", "--results", uri, "--yes")
    run("results", "merge", uri, s3.uri("bucket/other"))
    _, err = run("results", "merge", uri, s3.uri("bucket/a%20store"), code=2)
    assert "cannot be merged into itself" in err
    run("results", "merge", "here", uri)
    assert Path("here/weights", f"{run_id}.pt").is_file()
    run("eval", run_id, "--test", "few=test", "--metric", "psnr_y", "--results", uri, "--save-images")
    run("report", "--results", uri, "--out", "page.html")
    run("results", "rm", run_id, "--results", uri, "--yes")
    _, err = run("logs", run_id, "--results", uri, code=2)
    assert "has no log" in err
    everything = " ".join(s3.seen)
    assert SECRET not in everything
    assert not [request for request in s3.seen if "endpoint_override" in request.partition("?")[0]]


READING = ("table", "status", "report", "compare l1 sg", "results compact", "results clean --yes", "query FROM.runs")

FAULTS: dict[str, tuple[Fault, str]] = {
    "no rights": ((403, "AccessDenied", "Access Denied"), "access is denied; check the credentials"),
    "wrong key": ((403, "InvalidAccessKeyId", "x"), "access is denied; check the credentials"),  # a HEAD has no reason
    "old token": ((400, "ExpiredToken", "expired"), "the server refuses the request, as with old credentials"),
    "broken server": ((500, "InternalError", "x"), "the server reports an error of its own"),
    "busy server": ((503, "SlowDown", "x"), "the server reports an error of its own"),
    "other region": ((301, "PermanentRedirect", "x"), "the bucket is in another region; give ?region=REGION"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_server_refuses_is_one_sentence_with_the_address_before_anything_starts(
    s3: Server, run: Run, fault: str
) -> None:
    answer, sentence = FAULTS[fault]
    s3.fault = lambda method, path: answer
    for command in (*READING, "train"):
        words = TRAIN if command == "train" else [word.replace(".", " ") for word in command.split(" ")]
        begun = time.monotonic()
        _, err = run(*words, "--results", s3.uri(), code=2)
        assert err.startswith("error: 's3://bucket/store"), err
        assert sentence in err
        assert len(err.splitlines()) == 1
        assert "127.0.0.1" in err
        assert time.monotonic() - begun < 20
    assert run("results", "verify", s3.uri(), code=2)[1].count("\n") == 1


def test_a_server_that_is_not_there_and_a_bucket_that_is_not_there_are_told(s3: Server, run: Run) -> None:
    for where in ("127.0.0.1:9", "nowhere.invalid"):
        uri = f"s3://bucket/store?endpoint_override={where}&scheme=http"
        for words in (["table"], ["results", "compact"], list(TRAIN)):
            _, err = run(*words, "--results", uri, code=2)
            assert err.startswith("error: 's3://bucket/store/"), err
            assert err.endswith(f"?endpoint_override={where}&scheme=http': no connection to the server.\n"), err
    _, err = run("table", "--results", s3.uri("no-bucket/store"), code=2)
    assert "holds no results" in err
    _, err = run(*TRAIN, "--results", s3.uri("no-bucket/store"), code=2)
    assert "no such bucket" in err


def test_credentials_that_expire_while_a_run_is_trained_end_it_with_a_sentence_and_it_resumes(
    s3: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = s3.uri("bucket/whole"), s3.uri("bucket/cut")
    train(run, whole, steps=20)
    s3.fault = lambda method, path: (
        (400, "ExpiredToken", "The provided token has expired.") if method == "PUT" and "/weights/" in path else None
    )
    err = train(run, cut, steps=20, code=1)
    (last,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "the credentials have expired" in last
    assert "run the same command again to resume" in last
    s3.fault = lambda method, path: None
    train(run, cut, steps=20)
    values = [run("query", "SELECT image, value FROM scores", "--results", uri)[0] for uri in (whole, cut)]
    assert values[0] == values[1]


def test_a_server_that_fails_for_a_while_is_waited_for(s3: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request of each kind fails: by its method, and by whether it is for a list, a lock or another file."""
    monkeypatch.setattr(location, "ATTEMPTS", 4)
    failed: set[str] = set()

    def sometimes(method: str, path: str) -> Fault | None:
        kind = f"{method} {'list' if path.count('/') < 2 else 'lock' if '/.' in path else 'file'}"
        if kind in failed:
            return None
        failed.add(kind)
        return (503, "SlowDown", "Please reduce your request rate.")

    s3.fault = sometimes
    train(run, s3.uri())
    run("table", "--results", s3.uri())
    assert failed >= {f"{method} {what}" for method in ("GET", "HEAD", "PUT") for what in ("lock", "file")}


def test_outages_are_sat_out_by_whoever_holds_the_lock(s3: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "OUTAGE_PAUSES_SECONDS", (0.1,) * 20)
    moments = {"PUT .*/checkpoints/", "GET .*/weights/", "PUT .*/weights/", "PUT .*/runs/", "PUT .*/scores/"}
    moments |= {"PUT .*/history/", "GET /bucket$", "HEAD", "POST", "DELETE"}
    locked, until = 0, 0.0

    def fault(method: str, path: str) -> Fault | None:
        nonlocal locked, until
        if method == "PUT" and path.endswith(".lock"):
            locked += 1
        if locked < 3:  # a new claim is tried three times
            return None
        request = f"{method} {path}"
        if time.monotonic() > until and (begun := [moment for moment in moments if re.match(moment, request)]):
            moments.remove(begun[0])
            until = time.monotonic() + 0.3
        return (503, "SlowDown", "x") if time.monotonic() < until else None

    s3.fault = fault
    train(run, s3.uri())
    assert moments == set()
    run("results", "verify", s3.uri())


def test_after_a_longer_outage_the_same_command_resumes(s3: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "OUTAGE_PAUSES_SECONDS", (0.1, 0.1))
    for name, seconds in {"LEASE": 1.0, "SETTLE": 0.1}.items():
        monkeypatch.setattr(lease, f"{name}_SECONDS", seconds)
    gone: list[bool] = []

    def fault(method: str, path: str) -> Fault | None:
        if method == "PUT" and "/weights/" in path:
            gone.append(True)
        return (503, "SlowDown", "x") if gone else None

    s3.fault = fault
    last = train(run, s3.uri(), code=1).splitlines()[-1]
    assert "the server reports an error of its own" in last
    assert "run the same command again to resume" in last
    s3.fault = lambda method, path: None
    train(run, s3.uri())


TAKE_A_STORE = (
    *(
        "sweep tiny.yaml",
        " ".join(TRAIN),
        "submit tiny.yaml --train mine=/nowhere",
        "plan tiny.yaml",
        "doctor tiny.yaml",
        "eval bicubic --test few=test",
    ),
    *("table", "compare l1 sg", "report", "status", "logs abc", "figure curves --out x.png", "query FROM.runs"),
    *("results compact", "results clean --yes", "results rm abc --yes"),
)


@pytest.mark.parametrize("uri", [f"s3://AKIA:{SECRET}/more@bucket/x", f"s3://bucket/x?secret_key={SECRET}"])
def test_no_command_shows_or_keeps_credentials_of_a_uri(run: Run, place: Path, uri: str) -> None:
    for command in [*(f"{command} --results" for command in TAKE_A_STORE), "results verify", "results merge here"]:
        words = [word.replace("FROM.", "FROM ") for word in command.split()]
        out, err = run(*words, uri, code=2)
        assert "has credentials in it, which would be stored and shown" in err, err
        assert SECRET not in out + err
        assert len(err.splitlines()) == 1
    assert not [path for path in place.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


RIGHTS = {
    "nothing may be written": ("PUT", "access is denied", 2),
    "nothing but the lock may be written": ("PUT /(?!.*[.]lock)", "access is denied", 2),
    "no run may be recorded": ("PUT .*/(weights|runs)/", "run the same command again to resume", 1),
    "nothing may be read": ("GET /.*/", "access is denied", 2),
    "nothing may be listed": ("GET /bucket$", "access is denied", 2),
    "nothing may be deleted": ("POST|DELETE", "access is denied.*run the same command again to resume", 1),
}


@pytest.mark.parametrize("rights", RIGHTS)
def test_rights_that_are_missing_are_one_sentence(s3: Server, run: Run, rights: str) -> None:
    pattern, sentence, code = RIGHTS[rights]
    s3.fault = lambda method, path: DENIED if re.match(pattern, f"{method} {path}") else None
    err = train(run, s3.uri(), code=code)
    last = err.splitlines()[-1]
    assert last.startswith("error: "), err
    assert re.search(sentence, last), last
    assert "Traceback" not in err
