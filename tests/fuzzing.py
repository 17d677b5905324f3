"""How hard the tests with any text and any bytes try, and damage for whole files.

FUZZ_EXAMPLES=5000 tries as many of each, new ones every time; without it, a few that stay the same.
"""

import os
import random

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
fuzz = settings(
    max_examples=EXAMPLES or 100,
    deadline=None,
    derandomize=not EXAMPLES,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def damaged(whole: bytes, seed: int) -> bytes:
    """Change up to four bytes, and cut the end off now and then."""
    rng, content = random.Random(seed), bytearray(whole)
    for _ in range(rng.randint(1, 4)):
        content[rng.randrange(len(content))] = rng.choice([0, 1, 0x7F, 0xFF, rng.randrange(256)])
    return bytes(content[: rng.choice([len(content), len(content), rng.randrange(len(content))])])
