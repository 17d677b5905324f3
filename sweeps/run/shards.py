"""Work on many images as Ray tasks, and long work in one of them, with progress as it comes.

Ray must run already: see `joined`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import ray

from sweeps.run.held_back import held_back

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MIN_SHARD = 8
"""Images of a task at least, as each loads its network anew."""
SHARDS_PER_SLOT = 4
"""Tasks that each slot of the cluster gets in turn, so that slow images even out."""


@dataclass(frozen=True)
class TaskNeeds:
    """What one task occupies."""

    cpus: float = 1.0
    gpus: float = 0.0


def split_shards(image_ids: list[str], num_slots: int) -> list[list[str]]:
    """Return the images in runs of equal length, a few per slot."""
    size = max(MIN_SHARD, -(-len(image_ids) // max(1, SHARDS_PER_SLOT * num_slots)))
    return [image_ids[start : start + size] for start in range(0, len(image_ids), size)]


def map_shards(
    function: Callable[[Item, list[str]], Iterator[str]],
    item: Item,
    image_ids: list[str],
    needs: TaskNeeds,
) -> Iterator[str]:
    """Yield each image id as a task reports it done, in no order.

    function(item, ids) is a function of a module which yields every id of its shard, also one that
    it finds done: a task whose node died is run again, and what it yielded before is left out. The
    first error ends the map and is raised here; tasks that still wait or run are cancelled.
    """
    task = _streaming(function, needs)
    pending = [task.remote(item, shard) for shard in split_shards(image_ids, _num_slots(needs))]
    try:
        while pending:
            (ready,), _ = ray.wait(pending, num_returns=1)
            try:
                yield ray.get(next(ready))
            except StopIteration:
                pending.remove(ready)
    finally:
        for stream in pending:
            ray.cancel(stream)


def run_remotely(
    function: Callable[[Item], Iterator[Answer]], item: Item, needs: TaskNeeds
) -> Iterator[Answer]:
    """Yield what function(item) yields in one Ray task; its error is raised here."""
    stream = _streaming(function, needs).remote(item)
    finished = False
    try:
        for reference in stream:
            yield ray.get(reference)
        finished = True
    finally:
        if not finished:
            ray.cancel(stream)


def _streaming(function: Callable[..., Iterator[Any]], needs: TaskNeeds) -> Any:
    return ray.remote(num_cpus=needs.cpus, num_gpus=needs.gpus, num_returns="streaming")(function)


def _num_slots(needs: TaskNeeds) -> int:
    """Return how many tasks the cluster runs at a time now, at least one."""
    have = ray.cluster_resources()
    slots = have.get("CPU", 0) // needs.cpus if needs.cpus else have.get("CPU", 0)
    if needs.gpus:
        slots = min(slots, have.get("GPU", 0) // needs.gpus)
    return max(1, int(slots))


@contextmanager
def joined(address: str) -> Iterator[None]:
    """Join the Ray cluster at this address, or start one on this machine if it is `local`."""
    try:
        with held_back():
            ray.init(address, logging_level="ERROR", log_to_driver=False)
        yield
    finally:
        with held_back():
            ray.shutdown()
