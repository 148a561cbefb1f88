"""What has become of the questions that sweeps declared, in sentences and rows."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from sgbench.analysis.decisions import Decision, State
from sgbench.core.words import plural
from sgbench.report.compare import sentence, shown_p
from sgbench.store import Declaration


def announced(declarations: Iterable[Declaration]) -> list[str]:
    """Return a sentence for each question that a sweep will declare."""
    return [f"{each.question} will be declared when the sweep starts ({_fixed(each)})." for each in declarations]


def sentences(decisions: Iterable[Decision]) -> list[str]:
    """Return for each question what was declared and when, and for each of its comparisons a sentence."""
    return [
        line
        for each, found in itertools.groupby(decisions, key=lambda decision: decision.declaration)
        for line in (
            f"{each.question}, declared {each.declared:%Y-%m-%d %H:%M} UTC ({each.digest}: {_fixed(each)}):",
            *(f"- {told(decision)}" for decision in found),
        )
    ]


def _fixed(each: Declaration) -> str:
    return f"α {each.alpha:g}, g {each.g:g}, at most {plural(len(each.seeds), 'seed')} from {each.seeds[0]} on"


def rows(decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    """Return a line for each comparison of questions, for a table."""
    return [
        {
            "question": str(each.declaration.question),
            "test set": each.dataset,
            "backbone": each.backbone,
            "seeds": f"{each.used} of {each.most}",
            "p": shown_p(each.comparison.p) if each.comparison else "",
            "state": str(each.state),
            "declared": f"{each.declaration.declared:%Y-%m-%d %H:%M} UTC",
        }
        for each in decisions
    ]


def told(decision: Decision) -> str:
    """Return what was found, and whether that decides it."""
    where = f"{decision.declaration.question.metric} on {decision.dataset} with {decision.backbone}"
    said = sentence(decision.comparison) if decision.comparison else f"Nothing is known of {where} yet."
    return f"{said} {_ending(decision)}"


def _ending(decision: Decision) -> str:
    match decision.state:
        case State.UNDECIDABLE:
            return "No number of seeds decides it."
        case State.UNDECIDED:
            return "Undecided, and there are no more seeds." if decision.used == decision.most else "Undecided so far."
        case state:
            return f"{state.capitalize()}."
