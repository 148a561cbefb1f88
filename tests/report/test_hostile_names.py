"""Names from a store that are made to act: on a terminal, in a spreadsheet, in LaTeX, in Markdown, on a page."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import page_store
import pyarrow as pa
import pytest
from page_store import L1
from rich.console import Console
from typer.testing import CliRunner

from sgbench.analysis import View, load_results
from sgbench.analysis.compare import comparisons
from sgbench.cli import app
from sgbench.core.storage import Storage
from sgbench.core.words import printable
from sgbench.report import agreement, compare, page, rows, tables
from sgbench.report.figures.curves import draw_curves
from sgbench.report.figures.forest import draw_forest
from sgbench.report.figures.style import FORMATS, encode
from sgbench.report.live import Display
from sgbench.report.screen import Screen
from sgbench.report.tables.latex import to_latex
from sgbench.report.tables.markdown import escaped
from sgbench.runs.progress import Course
from sgbench.store import Dataset, Store
from sgbench.store.rows import RunEnd

ESCAPES = "\x1b[31mred\x1b]8;;http://evil\x07link\x9b2J\u202eevil\x7f"
"""A colour, a link, a cleared screen and text in reverse."""

EVIL = rf"=cmd|'/C calc'!A0 {ESCAPES} $\bad{{$ \input{{x}} <img src=x onerror=y> [x](javascript:y) ```<b>` %~^_&#"
FORGED = f"{EVIL}\nerror: forged\r"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose every text is evil; names that become parts of paths cannot be."""
    folder = tmp_path_factory.mktemp("evil") / "store"
    made, dataset = Store(Storage(str(folder))), Dataset("=1+1", "5" * 64)
    for at, (loss, seed) in enumerate((loss, seed) for loss in (L1, FORGED) for seed in range(2)):
        run_id = f"{at:012x}"
        evil = {"name": FORGED, "backbone": FORGED, "device": FORGED, "host": FORGED, "git_revision": FORGED}
        evil |= {"train": FORGED, "versions": json.dumps({FORGED: FORGED, "torch": FORGED}), "precision": FORGED}
        made.write_run(page_store.run(run_id, loss, seed) | evil)
        scored = [page_store.score(run_id, dataset, "psnr_y", name, 28.0 + at) for name in ("-a", None)]
        protocol = {"protocol": json.dumps({"direction": "lower", FORGED: FORGED}), "metric_version": FORGED}
        none = {"value": None, "status": "failed", "reason": FORGED}
        fid = page_store.score(run_id, dataset, "fid", None, 0.0) | none
        made.write_scores([each | protocol for each in (*scored, fid)])
        steps = [{"run_id": run_id, "step": step, "loss": 1.0 / step} for step in (10, 20)]
        terms = {"terms": {FORGED: 0.1}, "lr": 1e-3, "steps_per_second": 1.0}
        made.write_history([step | terms for step in steps])
    failed = {"status": "failed", "error": FORGED, "step": 8, "backbone": FORGED}
    made.write_run(page_store.run("f" * 12, FORGED, 3) | failed)
    log = folder / "logs" / ("0" * 12) / "run.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"step 1\t{ESCAPES}\rstep 2\n")
    return folder


@pytest.fixture(scope="module")
def view(store: Path) -> View:
    return View(load_results(str(store)))


def harmless(text: str) -> bool:
    """Return whether a terminal shows text as it is, line by line, and no line is forged."""
    return all(is_seen(line) and not line.startswith("error: forged") for line in text.split("\n"))


def is_seen(line: str) -> bool:
    return line.replace("\xa0", " ").isprintable()


COMMANDS = [
    *(["table", "--format", form] for form in (*tables.FORMATS, tables.RICH)),
    ["compare", L1, printable(FORGED), "--metric", "psnr_y"],
    ["compare", L1, printable(FORGED), "--json"],
    *(["metrics", "agree", "--format", form] for form in (*agreement.FORMATS, tables.RICH)),
    *(["query", "SELECT * FROM runs JOIN scores USING (run_id)", "--format", form] for form in (*rows.FORMATS, "rich")),
    ["query", "SELECT name FROM runs"],
    ["query", "SELECT error FROM runs", "--json"],
    ["status"],
    ["status", "--json"],
    ["results", "verify"],
    ["logs", "0" * 12],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command)[:40])
def test_nothing_acts_on_the_terminal(store: Path, command: list[str]) -> None:
    option = [] if command[0] == "results" else ["--results"]
    result = CliRunner().invoke(app, [*command, *option, str(store)])
    assert result.exit_code in (0, 1), result.output
    assert harmless(result.stdout)
    assert harmless(result.stderr)


def test_a_log_keeps_its_lines_and_loses_its_colours(store: Path) -> None:
    shown = CliRunner().invoke(app, ["logs", "0" * 12, "--results", str(store)]).stdout
    assert shown == r"step 1  red\x1b]8;;http://evil\x07link\x9b2J\u202eevil\x7f".join(["", "\nstep 2\n"])


def test_json_holds_what_the_store_holds(store: Path) -> None:
    query = ["query", "SELECT DISTINCT loss FROM runs WHERE loss <> 'l1'", "--json", "--results", str(store)]
    assert json.loads(CliRunner().invoke(app, query).stdout) == [{"loss": FORGED}]


def cells(text: str) -> list[str]:
    return [cell for line in csv.reader(io.StringIO(text)) for cell in line]


def is_formula(cell: str) -> bool:
    return cell[:1] in tuple("=+-@\t\r＝＋－＠") and not re.fullmatch(r"[+-]?[\d.e+-]+", cell)


def test_no_cell_of_a_spreadsheet_is_a_formula(view: View) -> None:
    table = cells(tables.FORMATS["csv"](tables.pivot(view)))
    assert not any(map(is_formula, table))
    assert "'=1+1" in table
    texts = ["=1", "+1+1", "-cmd", "@x", "\t=1", "＝1", "-1.5", "1e-5", "a=1", ""]
    answer = cells(rows.to_csv(pa.table({"text": texts, "number": [-1.0] * len(texts)})))
    assert answer[2::2] == ["'=1", "'+1+1", "'-cmd", "'@x", "\\t=1", "'＝1", "-1.5", "1e-5", "a=1", ""]
    assert answer[3::2] == ["-1.0"] * len(texts)


def test_nothing_is_a_command_in_latex(view: View) -> None:
    text = to_latex(tables.pivot(view))
    assert r"\textbackslash{}input\{x\}" in text
    ours = text.replace(r"% \usepackage", "").replace("{!}{%", "")
    assert not re.search(r"\\(?:input|bad)|(?<!\\)[%#&_]\w", ours.replace(r"\textbackslash{}input", ""))


def test_nothing_is_markup_in_markdown(view: View) -> None:
    text = tables.FORMATS["markdown"](tables.pivot(view))
    assert not re.search(r"(?<!\\)[<[]", re.sub("(?<!`)`[^`]+`(?!`)", "", text))
    assert escaped("see `sgbench plan`: ```<b>`", code=True) == r"see `sgbench plan`: \`\`\`\<b>\`"


def test_nothing_acts_on_a_page(store: Path) -> None:
    html = page.render(page_store.content(store))
    assert all(map(is_seen, html.split("\n")))
    assert r"psnr_y\xa0" not in html
    assert not re.search(r"<img src=x|<b>", html)


@pytest.mark.parametrize("form", FORMATS)
def test_names_in_figures_are_plain_text(view: View, form: str) -> None:
    forest = draw_forest(comparisons(view, L1, printable(FORGED), metrics=["psnr_y"]))
    for figure in (draw_curves(view), forest):
        content = encode(figure, form)
        if form == "svg":
            assert r"$\bad{$" in content.decode()
            assert harmless(content.decode())


def test_what_is_said_of_a_running_sweep_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    screen = Screen()
    screen.console = Console(file=said, highlight=False, soft_wrap=True)
    screen.say(FORGED)
    screen.warn(FORGED)
    with Display(screen.console, Course(1, 0)) as display:
        display.started("a", FORGED)
        display.finished("a", RunEnd.FAILED, FORGED)
    assert harmless(said.getvalue())


def test_comparisons_in_a_notebook_are_harmless(view: View) -> None:
    shown: Any = compare.shown(comparisons(view, L1, printable(FORGED), metrics=["psnr_y"]))
    assert "<img" not in shown._repr_html_()
    assert harmless(str(shown))
