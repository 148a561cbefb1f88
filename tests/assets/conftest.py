"""Places where networks are looked for, and a server that has some."""

import dataclasses
import hashlib
import http.server
import threading

import pytest
import torch
from small_networks import STATE, as_file

from sgbench.assets.catalogue import NETWORKS


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Empty folders for the three local rungs."""
    folders = {name: tmp_path / name for name in ("named", "hub", "own")}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.setenv("SGBENCH_WEIGHTS", str(folders["named"]))
    monkeypatch.setenv("SGBENCH_CACHE", str(folders["own"]))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return {"named": folders["named"], "hub": folders["hub"] / "checkpoints", "own": folders["own"] / "weights"}


@pytest.fixture
def table(monkeypatch):
    """Change an entry of the catalogue: ``table("alexnet", url=...)``."""

    def change(name, **fields):
        changed = dataclasses.replace(NETWORKS.load(name), **fields)
        monkeypatch.setitem(NETWORKS._loaded, name, changed)
        return changed

    return change


@pytest.fixture
def small(table):
    """The catalogue's AlexNet made a file of a few bytes, without the archive."""
    content = as_file({**STATE, "classifier.1.bias": torch.ones(3)})
    table("alexnet", sha256=hashlib.sha256(content).hexdigest(), archive=None, url="http://127.0.0.1:9/nobody")
    return content


@pytest.fixture
def server(monkeypatch):
    """A loopback server of ``answers``: path to (status, headers, body)."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    answers = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, headers, body = answers.get(self.path, (404, {}, b"not here"))
            self.send_response(status)
            for key, value in ({"Content-Length": len(body)} | headers).items():
                self.send_header(key, str(value))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        answers["url"] = f"http://127.0.0.1:{running.server_port}"
        yield answers
        running.shutdown()
