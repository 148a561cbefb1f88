"""What commands print: progress on standard error, results on standard output."""

import json
import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sgbench.analysis import Filters, View, load_results
from sgbench.analysis.tunings import chances
from sgbench.analysis.view import labels_of
from sgbench.cli.lean import skip_pandas
from sgbench.core.errors import InputError
from sgbench.core.files import expanded, naming, replacing
from sgbench.core.storage import Storage
from sgbench.core.words import plural, printable, printable_lines, quoted
from sgbench.report import tables
from sgbench.report.decisions import announced, sentences, told
from sgbench.report.screen import Screen
from sgbench.report.tables.data import json_text
from sgbench.report.tunings import shown as of_tunings
from sgbench.store.layout import SIGNS

if TYPE_CHECKING:  # these load torch, which only training and scoring need
    from sgbench.analysis.decisions import Decision
    from sgbench.runs.forecast import Estimate, Expected
    from sgbench.runs.plan import Plan
    from sgbench.runs.prospects import Cost, Goal, Prospect
    from sgbench.runs.sweep import Outcome
    from sgbench.runs.tuning import Tuned
    from sgbench.spec import Decide

skip_pandas()

screen = Screen()
"""For progress and remarks."""

say = screen.say

_NARROWEST = 20
"""The fewest characters per line to which text is wrapped."""


def write(out: Path, content: bytes) -> None:
    """Write the file that a person named, whole or not at all; pipes and devices are written to directly."""
    out = expanded(out)
    if out.exists() and not out.is_file():
        with naming(out):
            out.write_bytes(content)
        return
    with replacing(followed(out)) as part:
        part.write_bytes(content)


def followed(out: Path) -> Path:
    """Return the file that a person named, or that a link of this name leads to."""
    try:
        return out.resolve() if out.is_symlink() else out
    except RuntimeError as error:
        raise InputError(f"{quoted(str(out))} is a link that leads to itself; a file is needed.") from error


def print_json(data: Any) -> None:
    """Print data as JSON on standard output."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    typer.echo(json_text(data) if unicode else json.dumps(data, indent=2, default=str))


def print_rows(rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print rows as a table with their keys as headers, leaving out columns that are empty in every row."""
    if as_json:
        print_json(rows)
    else:
        _stdout().print(_table(rows))


def say_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows like `print_rows`, on standard error."""
    Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _WIDE).print(_table(rows))


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    keys = [key for key in (rows[0] if rows else ()) if any(row[key] not in (None, "") for row in rows)]
    table = Table(box=box.SIMPLE_HEAD)
    for key in keys:
        table.add_column(key, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if row[key] is None else printable_lines(str(row[key]))) for key in keys))
    return table


_WIDE = 160
"""Characters of a line where there is no terminal."""


def _stdout() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)


def print_entries(entries: Mapping[str, Sequence[str]]) -> None:
    """Print each name with its lines beside it, readable on a narrow terminal.

    A word that does not fit beside the name, such as a long URL, gets its own line from the left margin. A terminal
    narrower than that wraps it itself, so that it can still be copied in one piece.
    """
    indent = max(map(len, entries), default=0) + 2
    width = max(_stdout().width - indent, _NARROWEST)
    for name, lines in entries.items():
        lead = printable(name)
        for part in (part for line in lines for part in _wrap(printable(line), width)):
            if len(part) > width:
                typer.echo(f"{lead}\n{part}" if lead else part)
            else:
                typer.echo(f"{lead:{indent}}{part}")
            lead = ""
        typer.echo()


def _wrap(line: str, width: int) -> list[str]:
    """Wrap a text into lines, without breaking words that are longer than a line."""
    return textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)


def print_plan(
    made: "Plan", expected: "Sequence[Expected]", *, devices: int, price: float | None, as_json: bool
) -> None:
    """Print the runs of a plan, their status, and how long the rest will take on some devices."""
    times = {each.run: each for each in expected}
    rows = [run.row | (_in_data if as_json else _in_words)(times.get(run)) for run in made.runs]
    for row in () if as_json else rows:
        row["loss"] = row.pop("label") or row["loss"]
    print_rows(rows, as_json=as_json)
    if not as_json:
        repeated = made.named - len(made.runs)
        named = f" ({made.named} named, {repeated} of them duplicates)" if repeated else ""
        say(f"{made.name}: {made.summary()}{named}")
        if made.train and made.train.held_out:
            say(f"{made.train.name}: {plural(len(made.train), 'training image')}, {made.train.held_out} held out")
        if pending := [each for each in expected if each.run.pending]:
            for line in _forecast(pending, devices, max(1, made.sweep.workers), price):
                say(line)
        for remark in filter(None, (made.to_retrain(), made.to_decide())):
            say(remark)
        for line in (*sentences(made.decisions), *announced(made.undeclared)):
            say(line)


def _in_data(expected: "Expected | None") -> dict[str, Any]:
    training, scoring = (expected.training, expected.scoring) if expected else (None, None)
    return {
        "expected_seconds": training.seconds if training else None,
        "expected_scoring_seconds": scoring.seconds if scoring else None,
        "basis": training.basis if training else None,
        "device": expected.device if expected else None,
    }


def _in_words(expected: "Expected | None") -> dict[str, Any]:
    training, scoring = (expected.training, expected.scoring) if expected else (None, None)
    unknown = "unknown" if expected and expected.device else None
    return {"training": _about(training) or unknown, "scoring": _about(scoring), "from": training and training.basis}


def _about(estimate: "Estimate | None") -> str | None:
    """Return ``4.1 min``, or ``~4.1 min`` if it is put together from the times of others."""
    return f"{'~' * estimate.scaled}{_duration(estimate.seconds)}" if estimate else None


def _forecast(expected: "Sequence[Expected]", devices: int, workers: int, price: float | None) -> list[str]:
    """Return sentences on how long runs take together, and on what is not known."""
    from sgbench.runs.forecast import makespan

    seconds = [each.seconds for each in expected if each.seconds is not None]
    if not seconds:
        return [
            "Training time is unknown: no run in this store tells it; --measure times 20 steps of each, and --times "
            "takes the times of another store."
        ]
    known = [(each.training, each.scoring) for each in expected if each.training]
    total = sum(workers * training.seconds + (scoring.seconds if scoring else 0.0) for training, scoring in known)
    lanes = max(1, devices // workers)
    wall = makespan(sorted(seconds, reverse=True), lanes)
    scored = sum(scoring is not None for _, scoring in known)
    text = "Training and scoring" if scored == len(seconds) else "Training"
    text += f" {len(seconds)} of {len(expected)} runs" if len(seconds) < len(expected) else ""
    text += f" will take about {_digits(total / 3600)} device-hours: {_duration(wall)} on {plural(devices, 'device')}"
    text += "" if price is None else f", and {total / 3600 * price:,.2f} at {price:g} per hour"
    lines = [f"{text}, as measured on {expected[0].device}."]
    if any(estimate.scaled for each in expected for estimate in (each.training, each.scoring) if estimate):
        lines[0] += " Times with ~ are scaled from other runs."
    if scored < len(seconds):
        lines.append(
            "How long scoring takes is not known for all of them; --measure finds out, for metrics whose pretrained "
            "networks are available."
        )
    if unknown := sorted({str(each.run.spec.loss) for each in expected if each.training is None}):
        losses = f"{quoted(unknown[0])}{f' and {len(unknown) - 1} more' if len(unknown) > 1 else ''}"
        lines.append(f"Nothing tells how long a step with {losses} takes; --measure finds out.")
    return lines


def print_prospects(
    found: "Sequence[Prospect]",
    goal: "Goal",
    decide: "Decide",
    costs: "Mapping[str, Cost | None]",
    *,
    devices: int,
    price: float | None,
    as_json: bool,
) -> None:
    """Print how many seeds an effect needs in each comparison of a sweep, and what they cost.

    Args:
        found: The comparisons.
        goal: What is to be shown.
        decide: The significance level, and how seeds are added.
        costs: Of the planned seeds, of a fixed number that is enough, and of adding seeds until decided, in words.
        devices: Number of devices.
        price: Price of one device-hour.
        as_json: Print JSON instead of a table and sentences.
    """
    if as_json:
        print_json(
            {
                **asdict(goal),
                "alpha": decide.alpha,
                "g": decide.g,
                "max_seeds": decide.max_seeds,
                "comparisons": [each.row(goal.power) for each in found],
                "costs": {
                    name: {**asdict(cost), "price": None if price is None else _price(cost.device_hours, price)}
                    for name, cost in costs.items()
                    if cost
                },
            }
        )
        return
    share = f"{goal.power:.0%}"
    print_rows([_prospect(each, goal.power, share) for each in found], as_json=False)
    say(
        f"An effect of {goal.effect:g} by {goal.metric} is to be shown in {share} of cases, with α = {decide.alpha:g} "
        "for each comparison over its backbones and test sets. Seeds are fixed beforehand, or added until decided: "
        f"so many in half of all sweeps, and in {share} of them; at most {decide.max_seeds}."
    )
    if any(each.more for each in found):
        say(
            f"Where more than {decide.max_seeds} seeds would be needed, images are too few or vary too much; the last "
            "column says how many would do."
        )
    for name, words in (("planned", "As planned"), ("fixed", "Seeds fixed"), ("until_decided", "Until decided")):
        if cost := costs[name]:
            of = f" ({cost.comparisons} of {len(found)} comparisons)" if cost.comparisons < len(found) else ""
            say(f"{words}{of}: {_cost(cost, devices, price)}")


def _prospect(each: "Prospect", power: float, share: str) -> dict[str, Any]:
    median, most = each.decided_with(0.5), each.decided_with(power)
    spread = [each.spread.seed, *([] if each.images is None else [each.spread.image, each.spread.both])]
    return {
        "backbone": each.backbone,
        "comparison": f"{each.a} vs {each.b}",
        "test set": each.dataset,
        "images": each.images,
        "sd of seed, image, both" if each.images is not None else "sd of seed": ", ".join(f"{sd:.2g}" for sd in spread),
        "from": each.basis,
        "detectable": "" if math.isinf(each.detectable) else f"{each.detectable:.2g} with {each.planned}",
        "seeds": each.seeds,
        "until decided": None if median is None else f"{median} ({'more' if most is None else most})",
        "needed": each.more and f"{each.more.images} images, {each.more.seeds} seeds",
    }


def _cost(cost: "Cost", devices: int, price: float | None) -> str:
    text = f"{_digits(cost.runs)} runs with {_digits(cost.seeds)} seeds"
    if cost.device_hours is None:
        return f"{text}; how long they take is not known."
    text += f", about {_digits(cost.device_hours)} device-hours"
    text += f": {_duration(3600 * cost.device_hours / devices)} on {devices} devices" if devices > 1 else ""
    return text + ("." if price is None else f", and {_price(cost.device_hours, price):,.2f} at {price:g} per hour.")


def _price(hours: float | None, price: float) -> float | None:
    return None if hours is None else hours * price


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{_digits(seconds / 60)} min" if seconds < 5400 else f"{_digits(seconds / 3600)} h"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def print_outcome(outcome: "Outcome", root: str, *, as_json: bool, again: str) -> None:
    """Print the table of a sweep's runs and, unless all went well, how it ended.

    Args:
        outcome: How it ended.
        root: Its store.
        as_json: Print the table as JSON.
        again: How to repeat failed runs, for the person.

    Raises:
        typer.Exit: With 130 if it was interrupted, and 1 if runs failed, are out of budget or need to be retrained.
    """
    plan = outcome.plan
    if any(map(Storage(root).exists, SIGNS)):  # an interrupted first `train` leaves neither
        _print_runs(plan, root, as_json=as_json, decided=outcome.decisions)
    for line in () if as_json else sentences(outcome.decisions):
        say(line)
    if outcome.interrupted:
        say("Interrupted; run the same command to resume.")
        raise typer.Exit(130)
    if failed := len(outcome.failed):
        say(f"{failed} of {len(plan.runs)} runs failed: {again}.")
    if kept := len(outcome.kept):
        say(f"{kept} of {len(plan.runs)} runs failed when they were retrained; they keep their previous results.")
    if told := outcome.out_of_budget():
        say(told)
    if remark := plan.to_retrain():
        say(remark)
    if failed or kept or told or remark:
        raise typer.Exit(1)


def print_tuned(tuned: "Tuned", root: str, *, as_json: bool) -> None:
    """Print what a search gave each loss and has chosen, and the table and comparisons of the runs with it.

    Args:
        tuned: How it ended.
        root: Its store.
        as_json: Print the table of the runs alone, as JSON.

    Raises:
        typer.Exit: As `print_outcome` does, and with 1 if no trial of a loss came to a value.
    """
    if not (as_json or tuned.interrupted):
        of_tunings(chances({tuned.name: tuned.tuning})).print(_stdout())
    if tuned.outcome:
        print_outcome(tuned.outcome, root, as_json=as_json, again="--retry repeats them")
        return
    if tuned.interrupted:
        say("Interrupted; run the same command to resume.")
        raise typer.Exit(130)
    say(f"No trial of {tuned.lost[0]} came to a value, so that nothing is chosen; widen its range.")
    raise typer.Exit(1)


def _print_runs(plan: "Plan", root: str, *, as_json: bool, decided: "Sequence[Decision]") -> None:
    view = View(load_results(root))
    names = view.names
    shown = Filters(
        runs=[str(run.spec.run_id) for run in plan.runs],
        datasets=[test.name for test in plan.tests if labels_of(test.name, names.datasets)] or None,
        metrics=[metric for metric in plan.sweep.metrics if metric in names.metrics] or None,
    )
    if as_json and decided:
        table = tables.data.to_data(tables.pivot(view, shown))
        print_json({**table, "decisions": [{**each.row, "sentence": told(each)} for each in decided]})
        return
    print_results(view, shown, as_json=as_json)


def print_results(view: View, filters: Filters, *, as_json: bool, notes: Sequence[str] = ()) -> None:
    """Print the table of a store, or of some of its runs, test sets and metrics; JSON also has some more notes."""
    shown = tables.pivot(view, filters)
    print_table(replace(shown, notes=(*shown.notes, *notes)) if as_json else shown, "json" if as_json else tables.RICH)


def print_table(shown: tables.Table, form: str) -> None:
    """Print a table in one of `sgbench.report.tables.FORMATS`, or for a person to read."""
    if form == tables.RICH:
        tables.shown(shown).print(Console(file=sys.stdout))
    else:
        typer.echo(tables.FORMATS[form](shown), nl=False)
