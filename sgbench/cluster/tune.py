"""Suggestions of settings from Optuna, by Ray Tune's own search algorithm for it."""

import math
from collections.abc import Sequence

from sgbench.core.errors import InputError
from sgbench.spec.space import Searched, Values


def ask_optuna(
    searched: Sequence[Searched], so_far: Sequence[tuple[Values, float | None]], count: int, seed: int
) -> list[Values]:
    """Suggest settings by Optuna's tree-structured Parzen estimator; see `sgbench.runs.tuning.Ask`.

    It is built anew each time from the results so far, so that its suggestions depend on nothing else.

    Raises:
        InputError: If Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise InputError("tune.search is optuna, which is not installed: pip install sgbench[optuna].") from error
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    known = [(values, value) for values, value in so_far if value is not None]
    searcher = OptunaSearch(
        {each.name: _distribution(each) for each in searched},
        metric="value",
        mode="min",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=5),
        points_to_evaluate=[dict(values) for values, _ in known],
        evaluated_rewards=[value for _, value in known],
    )
    suggested = [searcher.suggest(str(number)) for number in range(count)]
    return [{each.name: each.rounded(values[each.name]) for each in searched} for values in suggested]


def _distribution(searched: Searched) -> object:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if searched.choices:
        return CategoricalDistribution(searched.choices)
    low, high = searched.low or 0.0, searched.high or 0.0
    if searched.whole:
        return IntDistribution(math.ceil(low), math.floor(high))
    return FloatDistribution(low, high, log=searched.log)
