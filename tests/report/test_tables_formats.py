"""One table in every format: golden texts, nothing of a person's own as markup, and LaTeX that compiles."""

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from table_rows import pivot, printed, results, run, score

from sgbench.report.tables import FORMATS, Table, paper_table
from sgbench.report.tables.latex import escaped
from sgbench.report.tables.model import mean_of

NASTY = ["a|b", "50% & more", "x_y^2 {z} ~", "<b>bold</b>", "[x]", "back\\slash", "#1 $5", "*star* `tick`", 'say "hi"']


def small() -> Table:
    """Two losses by two metrics: a best mean, a spread, a mark and a reason."""
    runs = [run("a"), run("b", "l1 + 1.0*sg"), run("c", "l1 + 1.0*sg", 1)]
    scores = [score("a", 0.3), score("b", 0.2), score("c", 0.21), score("a", 28.5, "psnr_y")]
    return pivot(results(runs, [*scores, score("b", 27.25, "psnr_y")]))


def crossed() -> Table:
    """A head of two levels."""
    runs = [run("a"), run("b", "l2"), run("c", backbone="rdn-tiny")]
    return pivot(results(runs, [score(name, 0.3) for name in "abc"]), rows=["dataset"], columns=["backbone", "loss"])


def nasty() -> Table:
    """Test sets and reasons that look like markup."""
    runs = [run("a"), run("b", "l2", status="failed", step=1, error="_ % # {")]
    return pivot(results(runs, [score("a", 0.3, dataset=name) for name in NASTY]))


def empty() -> Table:
    return pivot(results([], []))


TABLES = {"small": small, "crossed": crossed, "nasty": nasty, "empty": empty}


def test_markdown() -> None:
    assert FORMATS["markdown"](small()).splitlines()[:8] == [
        "**Scores by dataset, backbone, loss and metric**",
        "",
        "| dataset | backbone | loss | seeds | lpips_alex ↓ | psnr_y ↑ |",
        "| --- | --- | --- | --- | --- | --- |",
        "| Set5 | edsr-tiny | l1 | 1 | 0.3000 | **28.50** |",
        "| Set5 | edsr-tiny | l1 + 1.0\\*sg | 2 | **0.2050** ± 0.0071 | 27.25¹ |",
        "",
        "- ¹ Mean over 1 of 2 seeds; seed 1: not scored.",
    ]
    lines = FORMATS["markdown"](nasty()).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}


def test_latex() -> None:
    assert FORMATS["latex"](small()).splitlines()[:15] == [
        r"% \usepackage{booktabs} \usepackage{graphicx}",
        r"\begin{table}",
        r"\centering",
        r"\caption{Scores by dataset, backbone, loss and metric}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        r"\begin{tabular}{@{}llllcc@{}}",
        r"\toprule",
        r"dataset & backbone & loss & seeds & lpips\_alex $\downarrow$ & psnr\_y $\uparrow$ \\",
        r"\midrule",
        r"Set5 & edsr{-}tiny & l1 & 1 & 0.3000 & \textbf{28.50} \\",
        r" &  & l1 + 1.0$*$sg & 2 & \textbf{0.2050}{\scriptsize{} $\pm$ 0.0071} & 27.25\textsuperscript{1} \\",
        r"\bottomrule",
        r"\end{tabular}}",
        r"\begin{minipage}{\linewidth}\footnotesize\raggedright\smallskip",
        r"\textsuperscript{1} Mean over 1 of 2 seeds; seed 1: not scored. \\",
    ]


@pytest.mark.parametrize(("number", "place"), [("1", "table*"), ("5", "table")])
def test_a_wide_table_spans_both_columns_of_a_paper(number: str, place: str) -> None:
    lines = FORMATS["latex"](paper_table(number, show="paper")).splitlines()
    assert (lines[1], lines[-1]) == (rf"\begin{{{place}}}", rf"\end{{{place}}}")


def test_latex_has_a_head_of_two_levels() -> None:
    text = FORMATS["latex"](crossed())
    assert r" & \multicolumn{2}{c}{edsr{-}tiny} & \multicolumn{1}{c}{rdn{-}tiny} \\" in text
    assert r"\cmidrule(lr){2-3}\cmidrule(lr){4-4}" in text
    assert r"dataset & l1 & l2 & l1 \\" in text


def test_latex_has_nothing_unescaped() -> None:
    for text in NASTY:
        bare = re.sub(r"\\[&%#_{}$]|\\\w+|\$[^$]*\$|\{|\}", "", escaped(text))
        assert not re.search(r"[&%#_^~$\\<>|\"]", bare), text


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path: Path) -> None:
    shown = [make() for make in TABLES.values()] + [paper_table(number, show="paper") for number in "1235"]
    body = "\n".join(FORMATS["latex"](table) for table in shown)
    preamble = r"\documentclass{article}\usepackage{booktabs}\usepackage{graphicx}\begin{document}"
    (tmp_path / "t.tex").write_text(f"{preamble}\n{body}\n\\end{{document}}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert ran.returncode == 0, ran.stdout[-2000:]
    assert "Overfull" not in ran.stdout


def test_html() -> None:
    lines = FORMATS["html"](small()).splitlines()
    assert lines[0:3] == [
        '<table class="sgbench">',
        "<caption>Scores by dataset, backbone, loss and metric</caption>",
        "<thead>",
    ]
    (l1,) = [line for line in lines if ">l1<" in line]
    assert '<th scope="rowgroup" rowspan="2">Set5</th><th scope="rowgroup" rowspan="2">edsr-tiny</th>' in l1
    assert l1.endswith('<th scope="row">1</th><td>0.3000</td><td class="best">28.50</td></tr>')
    assert '<td class="best">0.2050 <span class="sd">± 0.0071</span></td><td>27.25<sup>1</sup></td>' in "".join(lines)


class Balance(HTMLParser):
    """Notes elements that are not closed, and how many places each row of a body has."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_html_is_balanced_and_has_no_element_of_a_persons_own(make: Callable[[], Table]) -> None:
    page = Balance()
    page.feed(FORMATS["html"](make()))
    assert page.open == []
    own = {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "span", "sup", "code"}
    assert page.tags <= own


def test_html_spans_a_head_of_two_levels() -> None:
    text = FORMATS["html"](crossed())
    assert '<th scope="col" rowspan="2">dataset</th><th scope="colgroup" colspan="2">edsr-tiny</th>' in text


def test_csv_is_a_line_a_cell_with_every_digit() -> None:
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](small()))))
    assert len(rows) == 4
    assert rows[2]["loss"] == "l1 + 1.0*sg"
    assert float(rows[2]["mean"]) == small().lines[1].cells[0].summary.mean
    assert {name: rows[3][name] for name in ("metric", "mean", "sd", "n", "reason", "best", "significant")} == {
        "metric": "psnr_y", "mean": "27.25", "sd": "", "n": "1", "reason": "seed 1: not scored", "best": "false",
        "significant": "",
    }  # fmt: skip


def test_csv_and_json_say_the_same() -> None:
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](nasty()))))
    data = json.loads(FORMATS["json"](nasty()))
    cells = [cell for line in data["lines"] for cell in line["cells"].values()]
    assert [row["mean"] for row in rows] == ["" if cell["mean"] is None else repr(cell["mean"]) for cell in cells]
    assert [row["reason"] or None for row in rows] == [cell["reason"] for cell in cells]
    assert {row["dataset"] for row in rows} == set(NASTY)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_every_format_shows_every_table(form: str, make: Callable[[], Table]) -> None:
    shown = make()
    text = FORMATS[form](shown)
    assert text.endswith("\n")
    means = [cell.summary.mean if form in ("csv", "json") else mean_of(cell) for cell in shown.cells if cell.summary]
    assert all(str(mean) in text for mean in means)


def test_a_terminal_prints_a_label_once_and_a_pipe_on_each_line() -> None:
    wide, pipe = printed(small(), 200), printed(small(), None)
    assert (wide.count("edsr-tiny"), pipe.count("edsr-tiny")) == (1, 2)


def test_a_narrow_terminal_keeps_groups_of_columns_together() -> None:
    text = printed(paper_table("1", show="paper"), 60)
    heads = [line.split() for line in text.splitlines() if "EDSR" in line or "RCAN" in line][1:]
    assert heads == [["Metric", "EDSR", "EDSR+SG", "RDN", "RDN+SG"], ["RCAN", "RCAN+SG", "SwinIR", "SwinIR"]]
