"""Independent streams of randomness, each a pure function of a seed, a purpose and a position.

Nothing in sgbench draws from a generator whose state has to be carried along: a resumed run, another number of workers
and another order of calls see the same numbers.
"""

import hashlib


def derive(seed: int, purpose: str, *position: int) -> int:
    """Return 128 bits that depend on every argument and on nothing else.

    Args:
        seed: A run's seed; 0 is a seed like any other.
        purpose: What the numbers are for: ``"weights"``, ``"patches"``, ``"noise"``.
        position: Where in the stream: a step, or a step and a rank.
    """
    text = ":".join([str(seed), purpose, *map(str, position)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
