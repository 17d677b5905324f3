"""How hard the tests with any text and any bytes try, files, damage for them, and refusals.

FUZZ_EXAMPLES=5000 tries as many of each, new ones every time; without it, a few that stay the same.
"""

import io
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from hypothesis import HealthCheck, settings

from wsss.basics.printable import printable

T = TypeVar("T")
ESCAPE = "\x1b[2J\x1b]0;owned\x07"
"""Clears a terminal and renames its window."""

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


def refusal(call: Callable[[], object], kind: type[Exception]) -> str:
    """Return the message of an error, which fits a screen and holds no control character."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert len(message) < 1500
    assert message == printable(message)
    return message


def value_or_refusal(call: Callable[[], T], *kinds: type[Exception]) -> tuple[T | None, str]:
    """Return what a call returns, or the message of its own kind of error; others come through."""
    try:
        return call(), ""
    except kinds as error:
        message = str(error)
    assert message == printable(message)
    return None, message


def saved(value: Any) -> bytes:
    """Return a file of torch.save."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)
