import hashlib
import http.server
import resource
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from sgbench.core import download as module
from sgbench.core.download import DownloadError, download
from sgbench.core.errors import InputError

BODY = hashlib.shake_256(b"sgbench").digest(1_500_000)
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.fixture
def server(monkeypatch):
    """A loopback server of one file; its fields say how it behaves, and which ranges it was asked for."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    state = SimpleNamespace(body=BODY, status=200, ranges=True, cut=None, silent=False, headers={}, asked=[])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state.asked.append(self.headers["Range"])
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/file")
                self.end_headers()
                return
            if state.status != 200:
                self.send_error(state.status)
                return
            start = int(self.headers["Range"][6:-1]) if self.headers["Range"] and state.ranges else 0
            if start >= len(state.body):
                self.send_error(416)
                return
            rest = state.body[start:]
            self.send_response(206 if start else 200)
            for key, value in ({"Content-Length": len(rest)} | state.headers).items():
                if value is not None:
                    self.send_header(key, str(value))
            self.end_headers()
            self.wfile.write(rest[: state.cut])
            if state.silent:
                state.release.wait(20)

        def log_message(self, *_):
            pass

    state.release = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        state.url = f"http://127.0.0.1:{running.server_port}/file"
        yield state
        state.release.set()
        running.shutdown()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "file.bin"


@pytest.fixture
def part(target):
    target.parent.mkdir()
    return target.with_name("file.bin.part")


def names(target):
    return [path.name for path in target.parent.iterdir()]


@pytest.mark.parametrize("digest", [DIGEST, DIGEST[:15], f"md5:{hashlib.md5(BODY).hexdigest()}"])
def test_a_file_is_there_whole_and_alone(server, target, digest):
    seen = []
    download(server.url, target, digest=digest, progress=lambda *args: seen.append(args))
    assert target.read_bytes() == BODY
    assert names(target) == ["file.bin"]
    assert seen[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) > 2


def test_a_file_that_is_there_is_left_alone(server, target):
    target.parent.mkdir()
    target.write_bytes(b"mine")
    download(server.url, target, digest=DIGEST)
    assert target.read_bytes() == b"mine"
    assert names(target) == ["file.bin"]
    assert server.asked == []


def test_redirects_are_followed(server, target):
    download(server.url.replace("/file", "/moved"), target, digest=DIGEST)
    assert target.read_bytes() == BODY


def test_a_length_that_is_not_told_is_no_obstacle(server, target):
    server.headers["Content-Length"] = None
    seen = []
    download(server.url, target, digest=DIGEST, progress=lambda *args: seen.append(args))
    assert seen[-1] == (len(BODY), 0)


def test_a_connection_that_breaks_leaves_a_part(server, target):
    server.cut = 700_000
    with pytest.raises(DownloadError, match=rf"'{server.url}' was interrupted after 700000 of {len(BODY)} bytes"):
        download(server.url, target, digest=DIGEST)
    assert names(target) == ["file.bin.part"]
    assert target.with_name("file.bin.part").read_bytes() == BODY[:700_000]


def test_a_part_is_continued(server, target, part):
    part.write_bytes(BODY[:700_000])
    seen = []
    download(server.url, target, digest=DIGEST, progress=lambda *args: seen.append(args))
    assert target.read_bytes() == BODY
    assert server.asked == ["bytes=700000-"]
    assert seen[0][0] > 700_000
    assert seen[-1] == (len(BODY), len(BODY))


def test_a_part_survives_many_interruptions(server, target):
    server.cut = 400_000
    for _ in range(3):
        with pytest.raises(DownloadError):
            download(server.url, target, digest=DIGEST)
    download(server.url, target, digest=DIGEST)
    assert target.read_bytes() == BODY
    assert server.asked == [None, "bytes=400000-", "bytes=800000-", "bytes=1200000-"]


def test_a_server_without_ranges_is_asked_for_the_whole(server, target, part):
    server.ranges = False
    part.write_bytes(BODY[:700_000])
    download(server.url, target, digest=DIGEST)
    assert target.read_bytes() == BODY


def test_a_part_that_only_lacks_its_name_is_not_fetched_again(server, target, part):
    part.write_bytes(BODY)
    download(server.url, target, digest=DIGEST)
    assert target.read_bytes() == BODY
    assert server.asked == []


def test_a_part_longer_than_the_file_is_thrown_away(server, target, part):
    part.write_bytes(BODY + b"more")
    download(server.url, target, digest=DIGEST)
    assert target.read_bytes() == BODY
    assert server.asked == [f"bytes={len(BODY) + 4}-", None]


def test_a_wrong_digest_names_both_and_keeps_nothing(server, target):
    server.body = b"something else"
    with pytest.raises(InputError) as error:
        download(server.url, target, digest=DIGEST)
    for said in (server.url, hashlib.sha256(b"something else").hexdigest(), DIGEST.removeprefix("sha256:")):
        assert said in str(error.value)
    assert names(target) == []


def test_a_part_of_another_file_is_found_out_and_the_next_call_starts_anew(server, target, part):
    part.write_bytes(b"x" * 700_000)
    with pytest.raises(InputError, match="the download was deleted"):
        download(server.url, target, digest=DIGEST)
    assert names(target) == []
    download(server.url, target, digest=DIGEST)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize(("status", "reason"), [(404, "Not Found"), (403, "Forbidden"), (503, "Service Unavailable")])
def test_a_refusal_is_named_and_keeps_the_part(server, target, part, status, reason):
    part.write_bytes(BODY[:10])
    server.status = status
    with pytest.raises(
        DownloadError, match=f"'{server.url}' cannot be downloaded: the server answers {status} {reason}"
    ):
        download(server.url, target, digest=DIGEST)
    assert part.read_bytes() == BODY[:10]


def test_where_nothing_arrives_nothing_is_left(server, target):
    server.status = 404
    with pytest.raises(DownloadError):
        download(server.url, target, digest=DIGEST)
    assert names(target) == []


def test_a_silent_server_is_given_up(server, target, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.2)
    server.cut, server.silent = 600_000, True
    with pytest.raises(DownloadError, match="was interrupted: timed out"):
        download(server.url, target, digest=DIGEST)
    assert BODY.startswith(target.with_name("file.bin.part").read_bytes())


def test_chunks_that_break_off_are_noticed(server, target):
    server.headers = {"Content-Length": None, "Transfer-Encoding": "chunked"}
    server.body = b"5\r\nabcde\r\nff\r\nthis chunk is too short"
    with pytest.raises(DownloadError, match="was interrupted"):
        download(server.url, target, digest=DIGEST)


def test_a_machine_without_network_is_told_why(target, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(DownloadError, match="cannot be downloaded: Connection refused"):
            download(f"http://127.0.0.1:{closed.getsockname()[1]}/file", target, digest=DIGEST)
    with pytest.raises(DownloadError, match=r"'http://nowhere\.invalid/file' cannot be downloaded: \w+"):
        download("http://nowhere.invalid/file", target, digest=DIGEST)


def test_a_full_disk_is_named_and_the_part_is_kept(server, target):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            download(server.url, target, digest=DIGEST)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not isinstance(error.value, DownloadError)
    assert error.value.filename == str(target.with_name("file.bin.part"))
    assert target.with_name("file.bin.part").read_bytes() == BODY[:1_000_000]
    download(server.url, target, digest=DIGEST)
    assert server.asked[-1] == "bytes=1000000-"


def test_a_folder_that_cannot_be_made_is_named(server, target):
    target.parent.touch()
    with pytest.raises(FileExistsError) as error:
        download(server.url, target, digest=DIGEST)
    assert error.value.filename == str(target.parent)


@pytest.mark.filterwarnings("ignore:another process holds")
def test_several_at_once_fetch_it_once(server, target):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: download(server.url, target, digest=DIGEST), range(4)))
    assert target.read_bytes() == BODY
    assert names(target) == ["file.bin"]
    assert server.asked == [None]
