"""How all processes that Ray runs for a driver hear that they are to end.

The driver starts an actor of a certain name, and a process looks whether there is one: a request to
Ray's head, which takes a millisecond. So nothing runs for this before the end, and nothing is left
behind, as the actor ends with the driver.
"""

import time
from typing import Any

import ray
from ray.exceptions import RayError

NAME = "wsss-end"
BETWEEN_SECONDS = 1.0
"""From one look to the next."""


class _Word:
    """It is there."""


def ask_to_end() -> Any:
    """Ask all processes of this driver to end; return what must be kept until they have."""
    return ray.remote(num_cpus=0)(_Word).options(name=NAME, get_if_exists=True).remote()


class AskedToEnd:
    """Whether the driver has asked this process to end: a `Place.is_ending`."""

    def __init__(self) -> None:
        self.found, self.looked_at = False, float("-inf")

    def __call__(self) -> bool:
        """Look, if the last look was BETWEEN_SECONDS ago."""
        now = time.monotonic()
        if not self.found and now - self.looked_at >= BETWEEN_SECONDS:
            self.looked_at = now
            try:
                ray.get_actor(NAME)
                self.found = True
            except (ValueError, RayError):  # there is none, or the head does not answer
                pass
        return self.found
