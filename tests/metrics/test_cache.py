import numpy as np
import pytest
import torch

from sgbench.metrics import HrCache, Image, Pair, Suite
from sgbench.metrics.inception_network import Inception
from sgbench.perceptual.network import Network


def floats(count):
    return np.zeros(count, np.float32)


def test_the_budget_is_kept_and_the_largest_goes_first():
    cache = HrCache(budget=99)
    for key, count in (("small", 5), ("large", 12), ("medium", 8)):
        cache[key] = floats(count)
        assert cache.nbytes <= 99
    assert list(cache) == ["small", "medium"]
    assert cache.nbytes == 52


def test_what_would_be_the_largest_does_not_come_in():
    cache = HrCache(budget=100)
    cache["first"] = floats(20)
    cache["second"] = floats(20)
    cache["huge"] = floats(1000)
    assert list(cache) == ["first"]


def test_tensors_and_tuples_of_them_count_by_their_bytes():
    cache = HrCache(budget=1000)
    cache["maps"] = (torch.zeros(10), torch.zeros(5, dtype=torch.float64))
    cache["vector"] = np.zeros(3)
    assert cache.nbytes == 40 + 40 + 24


def test_a_view_that_was_not_kept_is_computed_again_for_the_next_image_only():
    cache, calls = HrCache(budget=10), []

    def compute():
        calls.append(1)
        return floats(100)

    for expected in (1, 2):
        image = Image(np.zeros((3, 4, 4), np.uint8))
        image.keep_views(cache)
        assert image.view("key", compute) is image.view("key", compute)
        assert len(calls) == expected


@pytest.fixture
def locator(alexnet_weights, inception_weights):
    class Found:
        def load(self, name):
            return {"alexnet": alexnet_weights, "inception": inception_weights}[name]

    return Found()


@pytest.fixture
def passes(monkeypatch):
    """The names of the networks that were run."""
    made = []
    through_trunk, through_inception = Network.maps, Inception.forward

    def trunk(*args):
        made.append("alexnet")
        return through_trunk(*args)

    def inception(*args):
        made.append("inception")
        return through_inception(*args)

    monkeypatch.setattr(Network, "maps", trunk)
    monkeypatch.setattr(Inception, "forward", inception)
    return made


def test_references_go_through_each_network_once_whatever_is_compared_with_them(locator, passes):
    metrics = ["lpips_alex", "fd_alex", "fid", "kid", "kid_standard"]
    references = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 36), dtype=np.uint8)

    def scores(seed, cache):
        suite = Suite(metrics, locator, hr_cache=cache)
        noise = np.random.default_rng(seed).integers(0, 256, references.shape, dtype=np.uint8)
        for name, sr, hr in zip("ab", noise, references, strict=True):
            suite.add(suite.measure(Pair(name, sr, hr, 4)))
        return [result.score for result in suite.results()]

    cache = HrCache()
    scores(1, cache)
    assert (passes.count("alexnet"), passes.count("inception")) == (4, 4)
    passes.clear()
    warm = scores(2, cache)
    assert (passes.count("alexnet"), passes.count("inception")) == (2, 2)
    assert warm == scores(2, HrCache(budget=0))
    assert {score.status for score in warm} == {"ok"}


def test_of_maps_that_exceed_the_budget_only_the_first_are_computed_again(locator, monkeypatch):
    convolved, convolve = [], torch.nn.Conv2d.forward
    monkeypatch.setattr(torch.nn.Conv2d, "forward", lambda self, x: convolved.append(self) or convolve(self, x))
    hr, *noise = np.random.default_rng(0).integers(0, 256, (4, 3, 64, 83), dtype=np.uint8)

    def score(sr, cache):
        convolved.clear()
        (result,) = Suite(["lpips_alex"], locator, hr_cache=cache).measure(Pair("a", sr, hr, 4)).results
        return result.score.value, len(convolved)

    cache = HrCache()
    assert score(noise[0], cache)[1] == 5 + 5
    assert score(noise[1], cache)[1] == 5
    limited = HrCache(budget=cache.nbytes - 1)
    assert score(noise[0], limited)[1] == 5 + 5
    assert score(noise[2], limited) == (score(noise[2], cache)[0], 5 + 1)
