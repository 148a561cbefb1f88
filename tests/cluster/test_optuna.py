"""Suggestions of settings from Optuna."""

import math
import sys

import pytest

from sgbench.cluster import ask_optuna
from sgbench.core.errors import InputError
from sgbench.spec.space import Searched, Values

LAMBDA, ORDER = Searched.ranged("λ", 0.01, 100), Searched.ranged("sg.order", 1, 9, whole=True)
OPERATOR = Searched("sg.operator", choices=("central", "sobel"))
SEARCHED = (LAMBDA, ORDER, OPERATOR)


def test_without_optuna_a_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"is not installed: pip install sgbench\[optuna\]"):
        ask_optuna(SEARCHED, [], 1, 0)


def test_suggestions_depend_on_the_results_alone_and_become_better() -> None:
    pytest.importorskip("optuna")

    def value(of: Values) -> float:
        off = (math.log10(float(of["λ"])) - 0.7) ** 2 + 0.1 * abs(float(of["sg.order"]) - 4)
        return off + (of["sg.operator"] == "central")

    known: list[tuple[Values, float | None]] = [({"λ": 1.0, "sg.order": 1, "sg.operator": "central"}, None)]
    for batch in range(6):
        found = ask_optuna(SEARCHED, known, 4, batch)
        assert found == ask_optuna(SEARCHED, known, 4, batch)
        known += [(values, value(values)) for values in found]
    for values, _ in known:
        assert 0.01 <= float(values["λ"]) <= 100
        assert values["sg.order"] in range(1, 10)
        assert values["sg.operator"] in OPERATOR.choices
    first, last = ([value(values) for values, _ in part] for part in (known[1:9], known[-8:]))
    assert sum(last) < sum(first) / 2
