import subprocess
from pathlib import Path

from sgbench.scoring import provenance


def test_the_revision_is_marked_where_the_code_has_changes_and_not_where_results_have(tmp_path: Path) -> None:
    package = tmp_path / "checkout" / "sgbench"
    package.mkdir(parents=True)

    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        return subprocess.run(["git", "-C", package, *who, *words], capture_output=True, text=True, check=True).stdout

    def revision() -> str | None:
        provenance._git_revision.cache_clear()
        return provenance._git_revision(package)

    assert revision() is None
    (package / "code.py").write_text("1")
    (tmp_path / "checkout" / "results.parquet").write_text("1")
    git("init", "..")
    git("add", "..")
    git("commit", "-m", "first")
    commit = git("rev-parse", "--short=12", "HEAD").strip()
    (tmp_path / "checkout" / "results.parquet").write_text("2")
    assert revision() == commit
    (package / "code.py").write_text("2")
    assert revision() == f"{commit}+"
