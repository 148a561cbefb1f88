"""The tables of the paper in its layout: every number of its own, and ours in their places."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from table_rows import other, plan, printed, results, run, score

from sgbench.analysis import Filters, Results, View, paper
from sgbench.analysis.stats import summarise
from sgbench.core.errors import InputError
from sgbench.report.tables import Table, paper_table, to_data
from sgbench.report.tables.model import mean_of, spread_of
from sgbench.report.tables.paper import IDENTITY
from sgbench.report.tables.paper_layouts import OF, SG
from sgbench.spec import SweepSpec, TrainingData, build

FAMILIES = ("edsr", "rdn", "rcan", "swinir")


def table(number: str, store: Results | None = None, show: str = "ours", **filters: Any) -> Table:
    return paper_table(number, View(store or results([], [])), show, Filters(**filters))


def store(
    *,
    sizes: tuple[str, ...] = ("tiny",),
    families: tuple[str, ...] = FAMILIES,
    losses: tuple[str, ...] = ("l1", SG),
    seeds: int = 1,
    datasets: tuple[str, ...] = ("Set5", "Set14"),
    metrics: tuple[str, ...] = ("lpips_alex", "fid", "fd_alex"),
    **columns: Any,
) -> Results:
    """Networks of which each loss is better than the one before by every metric."""
    runs, scores = [], []
    for backbone in (f"{family}-{size}" for family in families for size in sizes):
        for weight, loss in enumerate(losses):
            for seed in range(seeds):
                name = f"{backbone}{loss}{seed}{columns}"
                runs.append(run(name, loss, seed, backbone, **columns))
                scores += [
                    score(name, 0.3 - weight / 100 + seed / 1000, metric, dataset)
                    for metric in metrics
                    for dataset in datasets
                ]
    return results(runs, scores)


def joined(*stores: Results) -> Results:
    import pyarrow as pa

    return results(
        pa.concat_tables([each.runs for each in stores]).drop_columns(["schema_version"]).to_pylist(),
        pa.concat_tables([each.scores for each in stores]).drop_columns(["schema_version"]).to_pylist(),
    )


def numbers(shown: Table, source: str) -> Iterator[tuple[Any, ...]]:
    """Yield what the cells of a source say they are, and their value."""
    for cell in shown.cells:
        place = cell.place
        if place["source"] == source and cell.summary:
            names = ("dataset", "metric", "backbone", "loss")
            yield (*(place[name] for name in names), place.get("seed"), cell.summary.n, cell.summary.mean)


@pytest.mark.parametrize("number", OF)
@pytest.mark.parametrize("show", ["paper", "both"])
def test_every_number_of_the_paper_stands_in_its_place(number: str, show: str) -> None:
    losses, sets = OF[number], ("Set5", "Set14", "Urban100", "B100", "Manga109")
    ours = store(sizes=("paper",), losses=losses, datasets=sets if number in "12" else ("Urban100",))
    found = sorted(numbers(table(number, ours, show), "paper"), key=str)
    rows = [row for row in paper().to_pylist() if row["table"] == int(number)]
    expected = [(r["dataset"], r["metric"], r["backbone"], r["loss"], r["seed"], 1, r["value"]) for r in rows]
    if number == "2":
        trials: dict[Any, list[float]] = {}
        for dataset, metric, backbone, loss, _, _, value in expected:
            trials.setdefault((dataset, metric, backbone, loss, None, 5), []).append(value)
        expected += [(*key, summarise(values).mean) for key, values in trials.items()]
    assert found == sorted(expected, key=str)


@pytest.mark.parametrize("width", [60, 80, 120, 200, None])
@pytest.mark.parametrize("number", OF)
def test_no_number_is_cut_at_any_width(number: str, width: int | None) -> None:
    shown = table(number, store(losses=OF[number], seeds=3), "both")
    text = printed(shown, width)
    assert {mean_of(cell) for cell in shown.cells} - set(re.split(r"[\s*]+", text)) <= {""}
    assert "…" not in text
    if width is not None:
        assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize(
    ("number", "layout"),
    [
        (
            "1",
            """
DataSet   Metric   EDSR     EDSR+SG  RDN      RDN+SG   RCAN     RCAN+SG  SwinIR   SwinIR+SG
Set5      LPIPS ↓   0.1728   0.1446   0.1716   0.1560   0.1720   0.1401   0.1700   0.1412
          FID ↓    58.86    56.52    57.88    52.65    59.74    54.27    58.80    55.75
Set14     LPIPS ↓   0.2776   0.2353   0.2808   0.2564   0.2783   0.2268   0.2705   0.2262
          FID ↓    86.45    80.94    88.75    86.55    91.95    86.51    89.17    82.09
Urban100  LPIPS ↓   0.2037   0.1837   0.2107   0.1984   0.2047   0.1756   0.1923   0.1698
          FID ↓    25.56    23.10    26.12    23.85    25.71    22.39    24.54    21.63
B100      LPIPS ↓   0.3589   0.3018   0.3634   0.3274   0.3602   0.2906   0.3549   0.2894
          FID ↓    96.08    88.47    96.36    90.86    98.15    83.83    95.59    84.28
Manga109  LPIPS ↓   0.0997   0.0856   0.1018   0.0931   0.0991   0.0810   0.0938   0.0787
          FID ↓    12.58    10.77    13.25    11.39    12.48    10.80    11.82     9.97
""",
        ),
        (
            "2",
            """
DataSet   Metric   1        2        3        4        5        mean
Set5      LPIPS ↓   0.1446   0.1443   0.1447   0.1443   0.1441   0.1444 ± 0.0002
          FID ↓    56.52    57.07    56.67    56.65    56.96    56.77 ± 0.23
Set14     LPIPS ↓   0.2353   0.2361   0.2351   0.2355   0.2360   0.2356 ± 0.0004
          FID ↓    80.94    81.54    80.89    80.05    81.36    80.96 ± 0.58
Urban100  LPIPS ↓   0.1837   0.1837   0.1838   0.1836   0.1838   0.1837 ± 0.0001
          FID ↓    23.10    22.92    23.08    22.95    22.87    22.98 ± 0.10
B100      LPIPS ↓   0.3018   0.3018   0.3020   0.3023   0.3018   0.3019 ± 0.0002
          FID ↓    88.47    88.64    88.03    87.63    87.32    88.02 ± 0.55
Manga109  LPIPS ↓   0.0856   0.0856   0.0855   0.0856   0.0857   0.0856 ± 0.0001
          FID ↓    10.77    10.67    10.65    10.70    10.80    10.72 ± 0.06
""",
        ),
        (
            "3",
            """
Metric   λ = 0    λ = 0.01  λ = 0.1  λ = 1    λ = 10
LPIPS ↓   0.2037   0.2013    0.1948   0.1837   0.1946
FID ↓    25.56    25.07     24.31    23.10    36.31
""",
        ),
        (
            "5",
            """
Loss              LPIPS ↓  FID ↓
L1 loss           0.2037   25.56
L2 loss           0.2064   25.04
SSIM loss         0.2057   24.98
Charbonnier loss  0.2026   25.37
L1 + SG loss      0.1837   23.10
""",
        ),
    ],
)
def test_the_layout_is_that_of_the_paper(number: str, layout: str) -> None:
    text = printed(table(number, show="paper"), 200).splitlines()
    body = [line.rstrip() for line in text if line.strip() and "─" not in line]
    table_alone = layout.strip().splitlines()
    assert body[1 : 1 + len(table_alone)] == table_alone
    assert all(note.endswith(".") for note in body[1 + len(table_alone) :])


def test_the_better_of_each_pair_is_bold_as_in_the_paper() -> None:
    for number in ("1", "3", "5"):
        for cell in table(number, show="paper").cells:
            assert cell.best == (cell.place["loss"] == SG)
    assert not any(cell.best for cell in table("2", show="paper").cells)


def test_ours_stand_under_the_name_of_the_family() -> None:
    shown = table("1", store())
    assert [column.labels for column in shown.columns[:4]] == [("EDSR",), ("EDSR+SG",), ("RDN",), ("RDN+SG",)]
    assert [line.labels for line in shown.lines] == [
        ("Set5", "LPIPS ↓"), ("Set5", "FID ↓"), ("Set14", "LPIPS ↓"), ("Set14", "FID ↓"),
    ]  # fmt: skip
    assert [mean_of(cell) for cell in shown.lines[0].cells[:2]] == ["0.3000", "0.2900"]
    assert shown.title == "Table 1 of the paper: EDSR, RDN, RCAN and SwinIR with L1 and with L1 + SG (ours)"
    assert (
        "Ours: edsr-tiny, rdn-tiny, rcan-tiny and swinir-tiny, trained for 1200 steps of 8 patches of 32×32 from demo; "
        "seed 0."
    ) in shown.notes
    assert {"The paper's table also has Urban100, B100 and Manga109.", IDENTITY} <= set(shown.notes)
    assert "Set5 has 5 images." in shown.notes


def test_only_the_seeds_that_all_have_are_said_of_all() -> None:
    few, many = store(seeds=3, families=("edsr", "rdn")), store(seeds=5, families=("edsr",), losses=(SG,))
    notes = table("1", joined(few, many)).notes
    assert any(note.endswith(" from demo; seeds 0, 1, 2; edsr-tiny · l1 + 1.0*sg also seeds 3, 4.") for note in notes)
    runs = [run("a"), run("b", SG, 1)]
    apart = table("1", results(runs, [score("a", 0.3), score("b", 0.3)])).notes
    assert any(note.endswith("; edsr-tiny · l1 seed 0; edsr-tiny · l1 + 1.0*sg seed 1.") for note in apart)


def test_a_table_without_a_set_of_the_papers_says_which_that_has() -> None:
    notes = table("3", store(families=("edsr",), losses=OF["3"])).notes
    assert "The paper's table is of Urban100." in notes
    assert "also has" not in " ".join(notes)


def test_the_paper_stands_below_ours() -> None:
    shown = table("1", store(datasets=("Set5", "mine")), "both")
    assert [line.labels for line in shown.lines] == [
        ("Set5", "LPIPS ↓", "ours"),
        ("Set5", "LPIPS ↓", "paper"),
        ("Set5", "FID ↓", "ours"),
        ("Set5", "FID ↓", "paper"),
        ("mine", "LPIPS ↓", "ours"),
        ("mine", "FID ↓", "ours"),
    ]
    assert [mean_of(line.cells[0]) for line in shown.lines[:2]] == ["0.3000", "0.1728"]
    assert any(note.startswith("The paper (doi:10.1016/j.tbench.2023.100148) states neither") for note in shown.notes)
    assert "Ours are not the paper's networks: compare what a loss changes, not the values." in shown.notes
    for width in (80, 200):
        text = printed(shown, width)
        assert max(map(len, text.splitlines())) <= width
        assert "0.1728" in text


def test_a_set_of_the_papers_own_is_added_where_none_is_shared() -> None:
    shown = table("3", store(families=("edsr",), losses=OF["3"]), "both")
    sets = list(dict.fromkeys(line.fields["dataset"] for line in shown.lines))
    assert sets == ["Set5", "Set14", "Urban100"]
    assert [cell.reason for cell in shown.lines[-4].cells] == ["not scored"] * 5
    assert "also has" not in " ".join(shown.notes)


def test_other_metrics_may_be_asked_for_and_never_stand_as_fid() -> None:
    shown = table("1", store(), "both", metrics=["lpips_alex", "fd_alex"])
    assert [line.labels[1:] for line in shown.lines[:3]] == [
        ("LPIPS ↓", "ours"), ("LPIPS ↓", "paper"), ("fd_alex ↓", "ours"),
    ]  # fmt: skip
    assert not any(line.labels[1].startswith("FID") for line in shown.lines)


def test_missing_weights_are_in_the_cell_and_explained_once() -> None:
    ours = store(metrics=("lpips_alex",), families=("edsr",))
    rows = ours.runs.drop_columns(["schema_version"]).to_pylist()
    missing = {"status": "no weights", "reason": "the inception weights are not on this machine: bring them."}
    scores = ours.scores.drop_columns(["schema_version"]).to_pylist()
    scores += [score(row["run_id"], None, "fid", dataset, **missing) for row in rows for dataset in ("Set5", "Set14")]
    shown = table("1", results(rows, scores))
    assert {cell.reason for cell in shown.cells if cell.place["metric"] == "fid"} == {"no weights"}
    assert len([note for note in shown.notes if note.startswith("no weights: fid: the inception weights")]) == 1


def test_what_is_lacking_says_why() -> None:
    planned = [plan("edsr-tinyl10{}", "l1", metrics=("lpips_alex",)), plan("x", SG, 1, metrics=("lpips_alex",))]
    ours = store(families=("edsr",), losses=("l1",), metrics=("lpips_alex",), datasets=("Set5",))
    shown = table("1", Results.of(ours.runs, ours.scores, ours.history, planned))
    assert [cell.reason for cell in shown.cells] == [None, "pending", "not scored", "not scored"]
    shown = table("1", ours)
    assert [cell.reason for cell in shown.cells] == [None, "no run", "not scored", "no run"]
    failed = results([run("a"), run("b", SG, status="failed", step=812, error="loss is NaN")], [score("a", 0.3)])
    assert table("1", failed).cells[1].reason == "failed at step 812: loss is NaN"


def test_trials_are_seeds_and_their_mean_is_ours() -> None:
    shown = table("2", store(families=("edsr",), seeds=3, datasets=("Set5",), metrics=("lpips_alex",)))
    cells = shown.lines[0].cells
    assert [mean_of(cell) or cell.reason for cell in cells] == [
        "0.2900",
        "0.2910",
        "0.2920",
        "no run",
        "no run",
        "0.2910",
    ]
    assert spread_of(cells[-1]) == "0.0010"
    assert any(note.startswith("Trial k is seed k − 1;") for note in shown.notes)
    assert [cell.place.get("seed") for cell in cells] == [0, 1, 2, 3, 4, None]


def test_of_several_sizes_the_largest_complete_one_is_shown() -> None:
    tiny, light = store(sizes=("tiny",), parameters=1), store(sizes=("light",), parameters=2)
    shown = table("3", joined(tiny, light))
    assert "edsr-light" in shown.notes[0]
    assert "The store also has edsr-tiny, which --backbone shows." in shown.notes
    partial = store(sizes=("light",), parameters=2, datasets=("Set5",))
    assert "edsr-tiny" in table("3", joined(tiny, partial)).notes[0]
    assert "edsr-light" in table("3", joined(tiny, partial), backbones=["edsr-light"]).notes[0]
    both = table("1", joined(tiny, light), backbones=["edsr-tiny", "edsr-light"])
    assert [column.labels[0] for column in both.columns] == [
        "edsr-tiny", "edsr-tiny+SG", "edsr-light", "edsr-light+SG",
    ]  # fmt: skip


def test_runs_trained_otherwise_are_never_averaged() -> None:
    short, long = store(families=("edsr",)), store(families=("edsr",), steps=2400)
    shown = table("1", joined(short, long))
    assert {cell.summary.n for cell in shown.cells if cell.summary} == {1}
    assert "Left out because of a different recipe: edsr-tiny with steps=1200." in shown.notes


def test_only_runs_at_four_times_the_size_enter() -> None:
    shown = table("1", joined(store(families=("edsr",)), store(families=("rdn",), scale=2)))
    assert len(shown.columns) == 2
    assert "The paper's table also has RDN, RCAN, SwinIR, Urban100, B100 and Manga109." in shown.notes


def test_another_backbone_may_take_the_place_of_edsr() -> None:
    shown = table("5", store(families=("rcan",), losses=OF["5"]), "both", backbones=["rcan-tiny"])
    assert shown.title.startswith("Table 5 of the paper: RCAN with five losses")
    assert {cell.place["backbone"] for cell in shown.cells if cell.place["source"] == "ours"} == {"rcan-tiny"}


def test_a_store_without_such_runs_has_nothing_to_show() -> None:
    bicubic = results([other("a", "builtin", "bicubic")], [score("a", 0.4)])
    for number in OF:
        shown = table(number, bicubic)
        assert shown.lines == ()
        assert printed(shown, 80).endswith("There is nothing to show yet.\n")
        assert to_data(shown)["lines"] == []
    assert len(list(numbers(table("3", bicubic, "both"), "paper"))) == 10


def test_significant_differences_are_marked_in_ours() -> None:
    ours = store(families=("edsr",), seeds=1)
    assert "With one seed, no difference from l1 can be tested." in table("1", ours).notes
    ours = store(families=("edsr",), seeds=3, metrics=("fid",))
    marked = [cell.significant for cell in table("1", ours, metrics=["fid"]).cells]
    assert marked == [None, True, None, True]


@pytest.mark.parametrize(
    ("number", "show", "filters", "message"),
    [
        ("4", "ours", {}, "unknown table '4'"),
        ("1", "theirs", {}, "unknown choice of --show 'theirs'"),
        ("1", "paper", {"metrics": ["psnr_y"]}, "unknown metric 'psnr_y'"),
        ("1", "paper", {"backbones": ["edsr-tiny"]}, "unknown backbone 'edsr-tiny'"),
        ("1", "both", {"datasets": ["Set15"]}, "unknown test set 'Set15': did you mean 'Set"),
        ("1", "ours", {"datasets": ["Urban100"]}, "unknown test set 'Urban100'"),
        ("1", "ours", {"backbones": ["edsr-light"]}, "unknown backbone 'edsr-light'"),
        ("1", "ours", {"metrics": ["lpips_x"]}, "unknown metric 'lpips_x'"),
        (
            "3",
            "ours",
            {"backbones": ["edsr-tiny", "rdn-tiny"]},
            "table 3 is of one backbone, and --backbone names 2: edsr-tiny, rdn-tiny.",
        ),
    ],
)
def test_what_is_not_there_is_refused(number: str, show: str, filters: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        table(number, store(), show, **filters)
    assert str(error.value).startswith(message)


def test_the_tables_name_as_many_runs_as_the_note_says() -> None:
    import sgbench.spec.presets

    sweep: SweepSpec = build(sgbench.spec.presets.load("paper")[1], "paper")
    named = sweep.named_runs(TrainingData(name="DIV2K"))
    assert IDENTITY.startswith(f"Tables 1, 2, 3 and 5 name {len(named)} runs, of which {len(set(map(str, named)))} are")
