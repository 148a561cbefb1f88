"""What people and files may hold, made up by the thousand: it is read, or refused in one sentence, and soon.

``pytest tests/bad_input/test_fuzz.py --hypothesis-profile=many`` tries a hundred times as much.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgbench.analysis import View, load_results
from sgbench.backbones import build_backbone
from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.data import resolve
from sgbench.runs.plan import Choices, read_sweep
from sgbench.scoring.subjects import find_subject
from sgbench.spec import build, check_loss, presets, read_setting
from sgbench.spec.stored import read_spec
from sgbench.spec.text import read_yaml
from sgbench.store import Store

OLD = Path(__file__).parent.parent / "stores" / "27d0b6c"
SECONDS = 10

SWEEP = """
extends: quick
grids:
- &g {backbones: [edsr-tiny], losses: [l1 + 1.0*sg, sg(order=1)], lambdas: [0, 0.1], seeds: [0, 1]}
- {<<: *g, losses: [ssim]}
train: mine=train,lr=lr
tests: [few=test]
metrics: [psnr_y]
recipe: {steps: 3, batch: 2, patch: 8, optimizer: {lr: 1e-3}, schedule: {name: cosine, final: 0.1}}
"""

pytestmark = pytest.mark.filterwarnings("ignore")
few = settings(suppress_health_check=list(HealthCheck), max_examples=settings().max_examples // 10)
"""For what takes milliseconds rather than microseconds."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SGBENCH_CACHE", str(folder / "cache"))
        patch.delenv("SGBENCH_DATA", raising=False)
        yield folder


def attempt(call: Callable[[], Any]) -> None:
    """Call what may refuse its input in one sentence, and may do nothing else but succeed."""
    start = time.process_time()
    try:
        call()
    except InputError as error:
        said = f"error: {error}"
        assert len(said) < 300
        assert said.isprintable()
        assert said.endswith((".", "?"))
    assert time.process_time() - start < SECONDS


def spoiled(content: bytes) -> st.SearchStrategy[bytes]:
    """Bytes of a file of which some are others, lost or twice there."""

    def spoil(edits: list[tuple[int, int, bytes]]) -> bytes:
        made = content
        for at, lost, put in edits:
            start = at % (len(made) + 1)
            made = made[:start] + put + made[start + lost :]
        return made

    # Files say what they hold at their beginning or end.
    places = st.one_of(st.integers(0, 200), st.integers(-2000, -1), st.integers(0, len(content)))
    lost = st.one_of(st.just(1), st.integers(0, 20), st.integers(0, len(content)))
    return st.lists(st.tuples(places, lost, st.binary(max_size=8)), min_size=1, max_size=4).map(spoil)


parts = st.sampled_from(
    [
        "l1",
        "sg",
        "ssim",
        "charbonnier",
        " + ",
        "*",
        "(",
        ")",
        "order",
        "=",
        ",",
        "1",
        "0.5",
        "-",
        "1e400",
        "λ",
        "λ*",
        "[",
        "]",
        "'",
        "a/b",
        "true",
    ]
)
texts = st.one_of(st.text(max_size=40), st.lists(parts, max_size=12).map("".join))


@given(texts)
def test_a_loss(text: str) -> None:
    if ":" not in text:  # the name of a module would be imported
        attempt(lambda: check_loss(text))


@given(st.one_of(texts, st.text("[]{}:,&*-!<'\"\n 0123456789.ex_abt", max_size=60)))
def test_yaml(text: str) -> None:
    attempt(lambda: read_yaml(text, "bad.yaml"))
    attempt(lambda: read_setting(f"recipe.steps={text}"))


@few
@given(st.data())
def test_a_sweep_file(place: Path, data: st.DataObject) -> None:
    (place / "bad.yaml").write_bytes(data.draw(spoiled(SWEEP.encode())))
    attempt(lambda: read_sweep("bad.yaml", Choices()))


plain = st.text(max_size=20).filter(lambda text: ":" not in text)  # the name of a module would be imported
words = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), plain)
anything = st.recursive(
    words, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)), max_leaves=8
)


def paths(fields: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return where in a sweep something may be put."""
    inside = fields.items() if isinstance(fields, dict) else enumerate(fields) if isinstance(fields, list) else ()
    for key, value in inside:
        yield (*above, key)
        yield from paths(value, (*above, key))


PATHS = list(paths(read_yaml(SWEEP, "")))


@given(st.sampled_from(PATHS), anything)
def test_a_field_of_a_sweep(path: tuple[Any, ...], value: Any) -> None:
    fields = read_yaml(SWEEP, "")
    place = fields
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    attempt(lambda: build(presets.load(fields)[1], "sweep"))
    attempt(lambda: read_spec(fields, "run 0123456789ab"))
    attempt(lambda: read_spec(value if isinstance(value, str) else {"recipe": value}, "run 0123456789ab"))


@given(
    st.one_of(
        st.text(max_size=30), st.lists(st.sampled_from(["a", "=", ",", "lr", "x", "/", "Set5", "~"])).map("".join)
    )
)
def test_a_reference_to_data(place: Path, text: str) -> None:
    attempt(lambda: resolve(text, "train"))
    attempt(lambda: resolve(f"mine={text}", "test"))


@pytest.fixture(scope="module")
def weights(place: Path) -> dict[str, bytes]:
    """Files with weights of a network, by their names."""
    state = build_backbone("edsr-tiny", 4).state_dict()
    spec = {"backbone": "edsr-tiny", "loss": "l1", "seed": 0, "train": {"name": "demo"}}
    torch.save({"params": state, "spec": spec}, place / "new.pt")
    torch.save(state, place / "old.pt", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, place / "tensors.safetensors")
    return {name: (place / name).read_bytes() for name in ("new.pt", "old.pt", "tensors.safetensors")}


@few
@given(st.data())
def test_weights(place: Path, weights: dict[str, bytes], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(weights)))
    (place / name).write_bytes(data.draw(spoiled(weights[name])))
    attempt(lambda: find_subject(name, Store(Storage(str(place / "none"))), backbone="edsr-tiny"))


@few
@given(st.data())
def test_a_file_of_a_store(place: Path, data: st.DataObject) -> None:
    if not (place / "store").exists():
        shutil.copytree(OLD, place / "store")
    names = [str(path.relative_to(OLD)) for path in OLD.rglob("*.parquet")] + ["plans/quick.json"]
    name = data.draw(st.sampled_from(sorted(names)))
    (place / "store" / name).write_bytes(data.draw(spoiled((OLD / name).read_bytes())))

    def read() -> None:
        results = load_results(str(place / "store"))
        View(results)
        results.query("SELECT count(*) FROM history")
        Store(Storage(str(place / "store"))).plans()

    try:
        attempt(read)
    finally:
        shutil.copyfile(OLD / name, place / "store" / name)
