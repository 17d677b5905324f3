"""Who works on stages on a Ray cluster: images in tasks, trainings in one or by Ray Train."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import ray

from sweeps.run.ray_train import Workers, fit
from sweeps.run.resources import Resources
from sweeps.stages.labels import WriteLabels
from sweeps.stages.segmentation import TrainDeepLab
from sweeps.stages.stage import Here, PerImage, Place, Record, Stage, attempt
from sweeps.stages.train_cam import TrainCam
from wsss.training.process import Process, pick_device

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


POLL_SECONDS = 1.0


@dataclass(frozen=True)
class _Sent:
    """A stage, as it travels to a worker."""

    stage: Stage
    place: Place
    cpus: float

    def on(self, process: Process) -> Place:
        """Return the place as it is there."""
        return replace(self.place, crew=Here(), rank=process)

    def alone(self) -> Place:
        """Return the place as it is in a task."""
        return self.on(Process(device=pick_device(self.cpus)))


class Cluster:
    """The cluster that Ray has joined. The store and the data must be visible on every node.

    Of a store in a bucket every node has a mirror, which brings what its tasks need.
    """

    def __init__(self, resources: Resources) -> None:
        self.resources = resources

    def work(self, stage: Stage, place: Place) -> Iterator[Record]:
        """Do a stage: images in shards, networks on `num_workers` Ray Train workers.

        Without workers a training is one task, and so is always what is small.
        """
        if isinstance(stage, PerImage):
            return attempt(stage, place)
        sent = _Sent(stage, place, self.resources.cpus)
        if isinstance(stage, TrainCam | TrainDeepLab) and not self.resources.inline:
            return self._fit(sent)
        return run_remotely(_attempt, sent, self._needs(stage))

    def images(self, stage: PerImage, place: Place, image_ids: list[str]) -> Iterator[str]:
        """Do the images in shards, a Ray task each."""
        sent = _Sent(stage, place, self.resources.cpus)
        return map_shards(_do_images, sent, image_ids, self._needs(stage))

    def _needs(self, stage: Stage) -> TaskNeeds:
        """Labels are written on CPUs, unless PAMR refines them."""
        on_cpu = isinstance(stage, WriteLabels) and not (
            stage.chain.labels and stage.chain.labels.refinement == "pamr"
        )
        return TaskNeeds(self.resources.cpus, 0.0 if on_cpu else self.resources.gpus)

    def _fit(self, sent: _Sent) -> Iterator[Record]:
        """Run Ray Train in a thread, and yield the progress that its callback sends.

        `fit` blocks, and outside of a Tune trial nobody else takes what the workers report.
        """
        from ray.util.queue import Empty, Queue

        progress = Queue(actor_options={"num_cpus": 0})
        failure: list[BaseException] = []

        def work() -> None:
            try:
                fit(
                    _train_rank,
                    sent,
                    Workers(self.resources.num_workers, self.resources.gpus, self.resources.cpus),
                    name=sent.stage.id(),
                    storage=sent.place.store.root / "ray_train",
                    callbacks=[_progress_callback(progress)],
                )
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while thread.is_alive() or not progress.empty():
            try:
                yield Record(sent.stage, progress.get(timeout=POLL_SECONDS))
            except Empty:
                continue
        thread.join()
        progress.shutdown()
        if failure:
            raise failure[0]


def _progress_callback(progress: Any) -> Any:
    """Return a Ray Train callback that sends rank 0's progress to a queue."""
    from ray.train import UserCallback

    class Sender(UserCallback):  # type: ignore[misc]  # ray is untyped
        def after_report(self, run_context: Any, metrics: Any, checkpoint: Any) -> None:
            progress.put(float(metrics[0]["progress"]))

    return Sender()


def _train_rank(sent: _Sent, process: Process) -> Iterator[dict[str, float]]:
    for record in attempt(sent.stage, sent.on(process)):
        yield {"progress": record.progress}


def _attempt(sent: _Sent) -> Iterator[Record]:
    yield from attempt(sent.stage, sent.alone())


def _do_images(sent: _Sent, image_ids: list[str]) -> Iterator[str]:
    assert isinstance(sent.stage, PerImage)
    yield from sent.stage.do_shared(sent.alone(), image_ids, num_workers=0)
