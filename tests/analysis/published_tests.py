"""What packages of others compute for some differences by seed, and how `published_tests.json` was made.

    python tests/analysis/published_tests.py

It needs the packages expectation (which asks for Python 3.12 but runs on 3.11), savvi and statsmodels in the versions
that the file names. Differences are made here, from seeds alone. savvi counts an intercept beside the mean, so that it
is told the degrees of freedom, n − 1; confseq has no test for an unknown variance.
"""

import importlib.metadata
import json
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".json")
ALPHA = 0.05
CASES = [(seed, effect, g) for seed, effect in enumerate((0.0, 0.5, -2.0)) for g in (1.0, 4.0)]
"""Seed of the differences, their mean in standard deviations, and the prior variance of effects."""
MARGINS = (0.3, 1.0)


def differences(seed, effect):
    """Return differences of eight seeds."""
    return effect + np.random.default_rng(seed).standard_normal(8)


def main():
    """Write `published_tests.json`."""
    from expectation.parametric.ttest_universal import TtestGaussianMixtureMartingale
    from savvi.linear_regression import LinearRegression
    from statsmodels.stats.weightstats import DescrStatsW

    class Mean(LinearRegression):
        def nu(self):
            return self.n - 1

    def evidence(values, g):
        martingale = TtestGaussianMixtureMartingale(prior_precision=g**-0.5)
        return float(np.exp(martingale.log_superMG(np.full(len(values), values.sum()), (values**2).sum())[0]))

    def interval(values, g):
        mean = Mean(ALPHA, 1, phi=1 / g)
        for value in values:
            mean.update(np.array([value, 1.0]))
        return [float(end) for end in mean.calculate_conf_int()[0]]

    cases = []
    for seed, effect, g in CASES:
        values = differences(seed, effect)
        seen = [values[:n] for n in range(2, len(values) + 1)]
        intervals = [interval(each, g) for each in seen]
        finite = [each for each in intervals if np.isfinite(each).all()]
        cases.append({"evidence": [evidence(each, g) for each in seen], "intervals": finite})
    equivalent = [
        {"margin": margin, "p": float(DescrStatsW(differences(0, 0.0)).ttost_mean(-margin, margin)[0])}
        for margin in MARGINS
    ]
    packages = {name: importlib.metadata.version(name) for name in ("expectation", "savvi", "statsmodels")}
    rows = {"packages": packages, "cases": cases, "equivalent": equivalent}
    FILE.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
