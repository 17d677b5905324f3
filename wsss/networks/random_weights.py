"""Random initial weights: drawn from a seed, although all threads share torch's random stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch

DRAWING = Lock()
"""Held while a network is made, also one whose weights are then loaded, as another thread may log a
finished network to MLflow while the next one is drawn."""


@contextmanager
def drawn_from(rng_seed: int) -> Iterator[None]:
    """Draw the weights of the network that is made within from this seed alone."""
    with DRAWING:
        torch.manual_seed(rng_seed)
        yield
