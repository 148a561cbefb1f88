"""The promises of SECURITY.md: each names its tests, and those that concern the whole house are here."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audit import judged

from sgbench.assets.locator import Locator
from sgbench.cli import main
from sgbench.core.storage import Storage
from sgbench.runs.execute import Job, train_job
from sgbench.runs.plan import make_plan, pack
from sgbench.scoring.evaluation import score_subject
from sgbench.scoring.subjects import find_subject, pack_test
from sgbench.spec import build
from sgbench.store import Store

ROOT = Path(__file__).parents[1]

SECRETS = ("AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "HF_TOKEN")


def test_each_promise_names_tests_that_exist() -> None:
    lines = (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("| Promise | Kept by |") + 2
    promises = lines[start : lines.index("", start)]
    assert len(promises) >= 10
    for promise in promises:
        named = re.findall(r"`(tests/\S+?\.py)::(\w+)`", promise)
        assert named, promise
        for file, test in named:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, (file, test)


ALLOWED = {
    "sgbench/assets/tensors.py": {"torch.load"},  # weights_only, see the test
    "sgbench/assets/package_index.py": {"pickle.Unpickler"},  # which admits NumPy's arrays only
    "sgbench/cluster/registered.py": {"cloudpickle.loads"},  # from the driver of the same sweep, never from a file
    "sgbench/data/images.py": {"Image.open"},
    "sgbench/spec/text.py": {"yaml.load"},
    "sgbench/testing/base.py": {"pickle.loads"},  # of what it has pickled in the same line
}
"""What may call a function that can run what it reads."""

DANGEROUS = re.compile(
    r"(pickle|cloudpickle|marshal|shelve|dill|joblib)\.(load|loads|open|Unpickler)|torch\.load|(np|numpy)\.load|"
    r"yaml\.(unsafe_|full_)?load(_all)?|eval|exec|compile|os\.(system|popen)|runpy\.\w+|\w+\.extractall|Image\.open"
)


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_no_source_file_runs_what_it_reads() -> None:
    for file in sorted((ROOT / "sgbench").rglob("*.py")):
        name = str(file.relative_to(ROOT))
        for function, call in calls(ast.parse(file.read_text(encoding="utf-8"))):
            options = {each.arg: ast.unparse(each.value) for each in call.keywords}
            assert options.get("shell") is None, name
            if function == "torch.load":
                assert options["weights_only"] == "True", name
            if function == "yaml.load":
                assert ast.unparse(call.args[1]).endswith("Loader"), name
            if function == "np.load":
                assert options.get("allow_pickle", "False") == "False", name
            elif DANGEROUS.fullmatch(function):
                assert function in ALLOWED.get(name, set()), (name, function)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["sgbench", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_the_current_folder_is_searched_only_for_plug_ins_that_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    announced = tmp_path / "evil-1.dist-info"
    announced.mkdir()
    (announced / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1\n")
    groups = ("losses", "backbones", "metrics", "networks", "trackers")
    (announced / "entry_points.txt").write_text("".join(f"[sgbench.{group}]\nevil = evil:X\n" for group in groups))
    (tmp_path / "evil.py").write_text("import pathlib\npathlib.Path('ran').touch()\nX = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", str(ROOT))] + [str(ROOT)])
    for command in (["losses"], ["backbones"], ["metrics"], ["weights", "list"], ["table"]):
        run(monkeypatch, *command)
        assert "" not in sys.path
    assert "evil" not in capsys.readouterr().out
    assert not (tmp_path / "ran").exists()

    assert run(monkeypatch, "plan", "quick", "--loss", "evil:X") == 2
    assert (sys.path[-1], (tmp_path / "ran").exists()) == ("", True)


def test_no_secret_of_the_environment_reaches_a_store(
    tmp_path: Path, train_folder: Path, test_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "swordfish")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:swordfish@example.org")
    store = Store(Storage(str(tmp_path / "store")))
    fields: dict[str, Any] = {"grids": [{"backbones": ["edsr-tiny"], "losses": ["l1"]}], "metrics": ["psnr_y"]}
    fields |= {"train": f"mine={train_folder}", "tests": [f"few={test_folder}"]}
    sweep = build(fields | {"recipe": {"steps": 2, "batch": 2, "patch": 8}}, "tiny")
    data = pack(sweep)
    with store.writing("a test"):
        plan = make_plan("tiny", sweep, data, store)
        store.write_plan("tiny", plan.records())
        job = Job.of(plan.runs[0], data, sweep, store.storage)
        assert train_job(job) == ("done", "")
    subject = find_subject(job.run_id, store)
    wanted = [(pack_test(subject, f"few={test_folder}"), ["psnr_y"])]
    assert score_subject(subject, wanted, store, locator=Locator(download=False)) == []
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if b"swordfish" in path.read_bytes()]
    assert "swordfish" not in f"{store.rows()}{store.scores().to_pylist()}"


def test_an_audit_that_asked_nobody_is_no_success() -> None:
    unasked = [{"name": "a", "skip_reason": "not found"}, {"name": "sgbench", "skip_reason": "editable"}]
    assert judged(unasked) == ("nothing was audited: the package index cannot be asked from this machine.", 1)
    good = {"name": "b", "version": "1", "vulns": []}
    said, code = judged([*unasked, good])
    assert (code, "not audited, as the package index does not know these versions: a." in said) == (0, True)
    bad = {"name": "c", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}
    said, code = judged([good, bad])
    assert (said, code) == ("c 1: PYSEC-1, fixed in 2\n1 of 2 packages are vulnerable.", 1)
