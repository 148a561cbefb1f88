from hashlib import sha256
from itertools import product

from sgbench.core.seeding import derive


def test_the_stream_is_pinned():
    """The id of a run does not say how numbers are derived, so that this must never change."""
    assert derive(0, "weights") == int.from_bytes(sha256(b"0:weights").digest()[:16], "little")
    assert derive(3, "patches", 11) == 41512875962679230151111955955309032149


def test_every_argument_matters():
    arguments = [*product((0, 1, 11), ("weights", "patches")), *product((0, 1, 11), ("patches",), (0, 1, 11))]
    arguments += product((0, 1), ("noise",), (0, 1, 11), (0, 1))
    assert len({derive(*each) for each in arguments}) == len(arguments)


def test_numbers_fill_128_bits():
    low, high = 2**128, 0
    for step in range(200):
        number = derive(0, "patches", step)
        low, high = min(low, number), max(high, number)
    assert 0 <= low < 2**122
    assert 2**128 - 2**122 < high < 2**128
