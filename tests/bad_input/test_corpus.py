"""Every case of bad input in the YAML files beside this: one sentence, at once, and nothing has changed.

A case has

- ``run``: the command line after ``sgbench``, as in a shell, or as a list whose items may be `_text`;
- ``says``: what the sentence must contain, one text or several; ``never``: what must not be printed anywhere;
- ``exit``: the exit code, by default 2;
- ``files``: what is put into the folder beforehand, by name, as `_put` describes it;
- ``stdin``: what is read from standard input; ``encoding``: that of what is printed; ``env``: variables, None unsets.

The folder has what the fixture ``template`` puts there.
"""

import contextlib
import io
import os
import resource
import shlex
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from sgbench.backbones import build_backbone
from sgbench.cli import main
from sgbench.data import write_png

FOLDER = Path(__file__).parent
OLD = FOLDER.parent / "stores" / "27d0b6c"

SWEEP = """
grids:
- backbones: [edsr-tiny]
  losses: [l1 + 1.0*sg]
train: mine=train
tests: [few=test]
metrics: [psnr_y]
recipe: {steps: 3, batch: 2, patch: 8}
"""

IMAGES = {"train": [(40, 48), (48, 40), (36, 44)], "test": [(44, 40), (36, 48)], "sr": [(44, 40), (36, 48)]}
"""Heights and widths of the images in a folder."""

LONGEST = 300
"""Characters of a line, with ``error: ``."""

SECONDS = 10
"""Of processor time for a case; six times as long by the clock, as the machine may be busy."""


class Endless(BaseException):
    """A case that does not come back."""


def cases() -> Iterator[Any]:
    for file in sorted(FOLDER.glob("*.yaml")):
        for case in yaml.safe_load(file.read_text(encoding="utf-8")):
            run = case["run"] if isinstance(case["run"], str) else " ".join(map(str, case["run"]))
            yield pytest.param(case, id=f"{file.stem}: {case.get('about', run)[:100]}")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each case finds in its folder: images, a sweep, a store of another time, networks, an image of SR."""
    folder = tmp_path_factory.mktemp("template")
    random = np.random.default_rng(0)
    for name, sizes in IMAGES.items():
        for index, (height, width) in enumerate(sizes):
            image = random.integers(0, 256, (height, width, 3), np.uint8)
            write_png(folder / name / f"photo{index}.png", image)
    (folder / "empty").mkdir()
    (folder / "tiny.yaml").write_text(SWEEP)
    shutil.copytree(OLD, folder / "store")
    weights = build_backbone("edsr-tiny", 4).state_dict()
    spec = {"backbone": "edsr-tiny", "loss": "l1", "seed": 0, "train": {"name": "demo"}}
    torch.save(weights, folder / "plain.pt")
    torch.save({"params": weights, "spec": spec}, folder / "ours.pt")
    torch.save({"params": weights, "spec": {**spec, "backbone": "no_such_module:Net"}}, folder / "strange.pt")
    return folder


@pytest.fixture
def place(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a case."""
    folder = tmp_path / "place"
    shutil.copytree(template, folder, copy_function=os.link)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("SGBENCH_DATA", raising=False)
    return folder


def _text(written: Any) -> str:
    """Return a text, or a sum of texts, where ``{repeat: [TEXT, COUNT]}`` stands for many and ``{bytes: …}`` for bytes.

    Bytes are written as Latin-1, and read as Python reads those of a command line.
    """
    if isinstance(written, list):
        return "".join(map(_text, written))
    if isinstance(written, dict) and "repeat" in written:
        text, count = written["repeat"]
        return str(text) * int(count)
    if isinstance(written, dict):
        return os.fsdecode(written["bytes"].encode("latin-1"))
    return str(written)


def _put(folder: Path, name: Any, what: Any) -> None:
    """Make a file: of a text, or by ``{KIND: VALUE}``."""
    path = folder / _text(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind, value = next(iter(what.items())) if isinstance(what, dict) else ("text", what)
    before = path.read_bytes() if path.is_file() else b""
    if kind != "gone":
        path.unlink(missing_ok=True)  # it is the template's too
    match kind:
        case "text" | "repeat":
            path.write_text(_text(what), encoding="utf-8")
        case "bytes":
            path.write_bytes(value.encode("latin-1"))
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(value)
        case "gone":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        case "copy":
            shutil.copyfile(folder / value, path)
        case "cut":  # the beginning of another file, or of this
            path.write_bytes((before or (folder / value[0]).read_bytes())[: value[1]])
        case "flipped":  # this file with one byte changed
            content = bytearray(before)
            content[value] ^= 0xFF
            path.write_bytes(content)
        case "image":  # height, width and, unless 3, channels
            write_png(path, np.full((*value[:2], *(value[2:] or [3])), 99, np.uint8))
        case "saved":  # Pillow: the mode, the size, and how it is saved
            Image.new(value["mode"], tuple(value["size"])).save(path, **value.get("options", {}))
        case "torch":  # what an expression in Python makes
            torch.save(eval(value, {"torch": torch}), path)
        case "rows":
            pq.write_table(pa.table(value), path)
        case _:
            raise ValueError(f"{name}: unknown kind of file '{kind}'")


def _state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return what would differ if anything had been written."""
    found = {}
    for path in sorted(folder.rglob("*")):
        stat = path.lstat()
        found[str(path.relative_to(folder))] = (stat.st_ino, stat.st_size, 0 if path.is_dir() else stat.st_mtime_ns)
    return found


@contextlib.contextmanager
def _deadline() -> Iterator[None]:
    """Interrupt what does not come back, and refuse what computes for longer than it may."""

    def end(*_: object) -> None:
        raise Endless

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(6 * SECONDS)
    used = _used()
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert _used() - used < SECONDS


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _call(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """Run the command in this process and return its exit code, standard output and standard error."""
    run = case["run"]
    arguments = shlex.split(run) if isinstance(run, str) else list(map(_text, run))
    streams = {name: io.TextIOWrapper(io.BytesIO(), case.get("encoding", "utf-8")) for name in ("stdout", "stderr")}
    stdin = io.TextIOWrapper(io.BytesIO(case.get("stdin", "").encode("latin-1")), "utf-8")
    for name, stream in {**streams, "stdin": stdin, "argv": ["sgbench", *arguments], "path": list(sys.path)}.items():
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    for name, value in case.get("env", {}).items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    with _deadline(), pytest.raises(SystemExit) as end:
        main()
    for stream in streams.values():
        stream.flush()
    out, err = (stream.buffer.getvalue().decode(errors="replace") for stream in streams.values())
    return int(end.value.code or 0), out, err


@pytest.mark.parametrize("case", list(cases()))
def test_a_case(case: dict[str, Any], place: Path) -> None:
    for name, what in case.get("files", {}).items():
        _put(place, name, what)
    before = _state(place)
    with pytest.MonkeyPatch.context() as patch:
        code, out, err = _call(case, patch)
    said = err if code == 2 else out + err
    assert code == case.get("exit", 2), said
    assert "Traceback" not in err
    lines = err.splitlines()
    if code == 2:
        assert out == ""
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
        assert lines[-1].endswith((".", "?"))
    assert all(len(line) < LONGEST and line.isprintable() for line in lines), err
    says, never = ([each] if isinstance(each, str) else each for each in (case.get("says", []), case.get("never", [])))
    assert all(part in said for part in says), said
    assert not any(part in out + err for part in never), said
    assert _state(place) == before
    assert not list(place.parent.glob("cache/data/.*"))  # nothing half packed
