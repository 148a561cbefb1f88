"""Showing what chance each loss was given: a table for each search, sentences and notes."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sgbench.analysis.tunings import Chance
from sgbench.core.words import listed, plural, shortened
from sgbench.report.grids import Grid, parts, to_html, to_latex, to_markdown
from sgbench.report.shown import Shown
from sgbench.report.tables.data import json_text
from sgbench.report.tables.model import number, titled
from sgbench.spec.expression import Single
from sgbench.spec.space import Searched
from sgbench.store import Search, Trial
from sgbench.store.rows import RunEnd

_LOST = (RunEnd.FAILED, RunEnd.EXHAUSTED)


def grids(found: Sequence[Chance]) -> Iterator[Grid]:
    """Yield a table of the losses of each search."""
    for _, group in itertools.groupby(found, lambda each: each.tuning):
        yield _grid(list(group))


def _grid(found: Sequence[Chance]) -> Grid:
    search = found[0].search
    columns: dict[str, Callable[[Chance], str]] = {
        "loss": lambda each: each.candidate.loss,
        "backbone": lambda each: each.candidate.backbone,
        "searched": lambda each: "; ".join(map(_range, each.candidate.searched)) or "nothing",
        "trials": _given,
        "stopped early": lambda each: str(each.ended(RunEnd.STOPPED)),
        "failed": lambda each: str(each.ended(*_LOST)),
        "steps": lambda each: f"{each.steps:,}",
        "chosen": _chosen,
        titled(search.metric, "higher" if search.higher else "lower"): lambda each: _value(search, each.chosen),
        "default": lambda each: _value(search, each.default),
    }
    left_out = {
        "stopped early": search.scheduler == "none",
        "failed": not any(each.ended(*_LOST) for each in found),
    }
    heads = [head for head in columns if not left_out.get(head)]
    return Grid(
        f"{found[0].tuning}: {plural(search.trials, 'trial')} of {plural(search.steps, 'step')} for each loss, chosen "
        f"by {search.metric} on {search.dataset}",
        tuple(heads),
        tuple(tuple(columns[head](each) for head in heads) for each in found),
        " ".join(_remarks(found)),
    )


def notes(found: Sequence[Chance]) -> list[str]:
    """Return how settings were searched, and what the columns mean."""
    said = [_how(each) for each in {each.search.digest: each for each in found}.values()]
    if found:
        said.append(
            "Chosen: of the trials that were trained to the end, the one with the best value after its last step on "
            "the validation set; test sets have no part in it. As the best of several, its value flatters: what a loss "
            "is worth is what `sgbench compare` says of other seeds on the test sets. Default: the value of the loss "
            "as it is if nobody searches, which is its first trial; – if it has none."
        )
    return list(dict.fromkeys(said))


def shown(found: Sequence[Chance]) -> Shown:
    """Return what losses were given as terminals, notebooks and pandas show it."""
    return Shown(
        lambda width: parts(grids(found), notes(found), width),
        lambda: to_html(grids(found), notes(found)),
        [_record(each) for each in found],
    )


FORMATS: dict[str, Callable[[Sequence[Chance]], str]] = {
    "markdown": lambda found: to_markdown(grids(found), notes(found)),
    "latex": lambda found: to_latex(grids(found)),
    "html": lambda found: to_html(grids(found), notes(found)),
    "json": lambda found: json_text([_record(each) for each in found]) + "\n",
}
"""Each ends with a line break."""


def settings(chance: Chance) -> str:
    """Return the settings that were chosen, such as ``λ = 0.31, learning rate = 0.001``; empty if there are none."""
    values = chance.chosen.values if chance.chosen else {}
    return ", ".join(f"{name} = {_shown(value)}" for name, value in values.items())


def _range(searched: Searched) -> str:
    if searched.choices:
        return f"{searched.name}: {shortened(', '.join(map(_shown, searched.choices)))}"
    scale = ", logarithmic" if searched.log else ""
    return f"{searched.name}: {_shown(searched.low or 0.0)} to {_shown(searched.high or 0.0)}{scale}"


def _shown(value: Single) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _given(each: Chance) -> str:
    return str(each.due) if each.ended() == each.due else f"{each.ended()} of {each.due}"


def _chosen(each: Chance) -> str:
    if each.chosen:
        return settings(each) or "as it is"
    return "none" if each.ended() == each.due else "not yet"


def _value(search: Search, trial: Trial | None) -> str:
    if trial is None or trial.value is None:
        return "–"
    early = f" after {plural(trial.step, 'step')}" if trial.step < search.steps else ""
    return f"{number(search.metric, trial.value)}{early}"


def _remarks(found: Sequence[Chance]) -> Iterator[str]:
    """Yield what makes a comparison of what was chosen less than fair, or incomplete."""
    if missing := sum(each.due - each.ended() for each in found):
        has, them = ("has", "it") if missing == 1 else ("have", "them")
        yield f"{plural(missing, 'trial')} {has} not ended; `sgbench tune` resumes {them}."
    for each in found:
        for edge in each.edges:
            yield (
                f"{edge.searched.name} of {_who(each, found)} was chosen at the {edge.end} end of its range, "
                f"{_shown(edge.value)}: a better value may lie beyond, so search a wider range."
            )
        if each.ended() == each.due and each.chosen is None:
            yield f"No trial of {_who(each, found)} came to a value; search another range."
    if fewer := [each for each in found if each.due < each.search.trials]:
        names = listed(dict.fromkeys(each.candidate.loss for each in fewer))
        yield f"Fewer different settings than trials, and so each once: {names}."


def _who(each: Chance, found: Sequence[Chance]) -> str:
    several = len({other.candidate.backbone for other in found}) > 1
    return each.candidate.loss + (f" with {each.candidate.backbone}" if several else "")


def _how(each: Chance) -> str:
    search = each.search
    ways = {
        "random": "at random, at the same places of the range of each loss",
        "grid": "on a grid",
        "optuna": "by Optuna, from the results of the trials before",
    }
    said = (
        f"{each.tuning}: settings were suggested {ways.get(search.method, f'by {search.method}')}, and trials trained "
    )
    said += f"with seed {', '.join(map(str, search.trial_seeds))}"
    if search.scheduler != "none":
        share = f" (one in {search.options['eta']})" if "eta" in search.options else ""
        said += f"; {search.scheduler} let the best{share} of the trials of a loss that came to a step go on from there"
    if search.final_seeds:
        said += f"; what was chosen is trained with {plural(len(search.final_seeds), 'other seed')}"
    return f"{said}."


def _record(each: Chance) -> dict[str, Any]:
    """Return a chance as plain values for JSON, with full precision."""
    return {
        "tuning": each.tuning,
        "backbone": each.candidate.backbone,
        "loss": each.candidate.loss,
        "searched": [vars(searched) for searched in each.candidate.searched],
        "trials": each.due,
        "ended": each.ended(),
        "stopped": each.ended(RunEnd.STOPPED),
        "failed": each.ended(*_LOST),
        "steps_each": each.search.steps,
        "steps": each.steps,
        "method": each.search.method,
        "scheduler": each.search.scheduler,
        "dataset": each.search.dataset,
        "metric": each.search.metric,
        "chosen": each.chosen and {"loss": each.chosen.loss, "settings": dict(each.chosen.values)},
        "run_id": each.chosen and each.chosen.run_id,
        "value": each.chosen and each.chosen.value,
        "default_value": each.default and each.default.value,
        "default_step": each.default and each.default.step,
        "at_edge": {edge.searched.name: edge.end for edge in each.edges},
    }
