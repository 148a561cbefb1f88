"""What each metric costs beside the code of others that it is compared with, on the same images.

    python benchmarks/metrics.py
    python benchmarks/metrics.py --set Set5=DIR --set Set14=DIR --metric dists --metric flip

Both sides have their networks built and their images decoded, and nothing kept of a reference from before: SR is
MATLAB's bicubic. Networks that are not available locally have random weights, which take as long. Seconds are those of
all processors together, so that they mean something on a machine that does other work. Metrics without code of others
that runs here, and those whose reference is not installed, are left out.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import harness
import torch

from sgbench.calibration.networks import SharedNetworks
from sgbench.calibration.pictures import Pictures, of_test_set
from sgbench.calibration.references import REFERENCES, dists
from sgbench.data import pack_set
from sgbench.metrics import METRICS, HrCache, SetMetric, Suite
from sgbench.spec import Recipe
from sgbench.training.numerics import single_precision

PREPARE = {name: each.prepare for name, each in REFERENCES.items()} | {"dists": partial(dists, dtype=torch.float32)}
"""What is called: DISTS in float32, as its own example does, and not in float64, which is more exact."""


def seconds_of(call: Callable[[], object]) -> float:
    """Return the seconds of all processors that a call takes."""
    began = time.process_time()
    call()
    return time.process_time() - began


def measure(name: str, sets: list[Pictures], networks: SharedNetworks, rounds: int) -> dict[str, object]:
    """Time a metric and its reference, in turns, and return a row."""
    metric = METRICS.load(name)
    theirs = PREPARE[name]({network: networks.load(network) for network in metric.networks})

    def by_us() -> None:
        for pictures in sets:
            cache = HrCache()
            suite = Suite([name], networks, hr_cache=cache)
            for pair in pictures.pairs(cache):
                suite.add(suite.measure(pair))
            suite.results()

    def by_them() -> None:
        for pictures in sets:
            pairs = pictures.pairs(HrCache())
            for each in [pairs] if isinstance(metric, SetMetric) else pairs:
                theirs(each)

    for side in (by_us, by_them):  # networks are built, and modules imported
        side()
    seconds = {"theirs": [], "sgbench": []}
    for _ in range(1 if harness.DRY_RUN else rounds):
        seconds["theirs"].append(seconds_of(by_them))
        seconds["sgbench"].append(seconds_of(by_us))
    return {
        "metric": name,
        "reference": str(REFERENCES[name]),
        "reference, s": statistics.median(seconds["theirs"]),
        "sgbench, s": statistics.median(seconds["sgbench"]),
        "sgbench is faster by": harness.ratio(seconds, "theirs", "sgbench")["median"],
        harness.AIM: "≥ 1×",
    }


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--set", action="append", metavar="NAME=DIR", help="a test set (repeatable); else the demo set")
    parser.add_argument("--metric", action="append", metavar="NAME", help="a metric (repeatable); else all")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # arguments that torchvision no longer has, a matrix that has no root
    sets = [of_test_set(pack_set(each, "test", Recipe())) for each in arguments.set or ["demo"]]
    names = [name for name in arguments.metric or REFERENCES if not REFERENCES[name].missing]
    networks = SharedNetworks()
    with single_precision():
        rows = [measure(name, sets, networks, arguments.rounds) for name in names]
    images = ", ".join(f"{each.name} ({len(each.images)} images)" for each in sets)
    random = f" Random weights: {', '.join(sorted(networks.made))}." if networks.made else ""
    peers = {project: version(project) for name in names for project in REFERENCES[name].projects}
    harness.publish("metrics", rows, notes=[f"{images}, bicubic ×4.{random}"], **peers)


if __name__ == "__main__":
    main()
