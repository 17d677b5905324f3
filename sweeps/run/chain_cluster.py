"""The stages of a chain on a Ray cluster: images as tasks, trainings in a task or by Ray Train."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sweeps.run.ray_train import Workers, fit
from sweeps.run.resources import Resources
from sweeps.run.shards import TaskNeeds, map_shards, run_remotely
from sweeps.stages.chain_stages import images, training
from sweeps.stages.chain_work import TRAIN_DEEPLAB, ChainTask
from wsss.label_stages import LEARN, WRITE
from wsss.training.process import Process, pick_device

CPU_STAGES = (WRITE,)
"""Stages that use no GPU, unless PAMR refines."""
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class _Stage:
    """A stage of a chain, as it travels to a worker."""

    task: ChainTask
    name: str
    cpus: float


class Cluster:
    """The cluster that Ray has joined. The store and the data must be visible on every node.

    Of a store in a bucket every node has a mirror, which brings what its tasks need.
    """

    def __init__(self, resources: Resources) -> None:
        self.resources = resources

    def train(self, task: ChainTask, stage: str) -> Iterator[float]:
        """Run a training on `num_workers` Ray Train workers, or in one task if that is 0.

        The affinity network is small, and trains in one task always.
        """
        item = _Stage(task, stage, self.resources.cpus)
        if self.resources.inline or stage == LEARN:
            yield from run_remotely(_train_alone, item, self._needs(stage, task))
            return
        yield from self._fit(item)

    def images(self, task: ChainTask, stage: str, image_ids: list[str]) -> Iterator[str]:
        """Do the images in shards, a Ray task each."""
        item = _Stage(task, stage, self.resources.cpus)
        return map_shards(_do_images, item, image_ids, self._needs(stage, task))

    def _needs(self, stage: str, task: ChainTask) -> TaskNeeds:
        on_cpu = stage in CPU_STAGES and not (
            task.chain.labels and task.chain.labels.refinement == "pamr"
        )
        return TaskNeeds(self.resources.cpus, 0.0 if on_cpu else self.resources.gpus)

    def _fit(self, item: _Stage) -> Iterator[float]:
        """Run Ray Train in a thread, and yield the progress that its callback sends."""
        from ray.util.queue import Empty, Queue

        progress = Queue(actor_options={"num_cpus": 0})
        failure: list[BaseException] = []
        chain = item.task.chain
        name = chain.segmentation_id if item.name == TRAIN_DEEPLAB else chain.maps_id

        def work() -> None:
            try:
                fit(
                    _train_rank, item,
                    Workers(self.resources.num_workers, self.resources.gpus, self.resources.cpus),
                    name=name, storage=item.task.open_store().root / "ray_train",
                    callbacks=[_progress_callback(progress)],
                )  # fmt: skip
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while thread.is_alive() or not progress.empty():
            try:
                yield progress.get(timeout=POLL_SECONDS)
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


def _train_rank(item: _Stage, process: Process) -> Iterator[dict[str, float]]:
    return training(item.task, item.name, process)


def _train_alone(item: _Stage) -> Iterator[float]:
    for record in training(item.task, item.name, _process(item.cpus)):
        yield record["progress"]


def _do_images(item: _Stage, image_ids: list[str]) -> Iterator[str]:
    yield from images(item.task, item.name, image_ids, _process(item.cpus))


def _process(cpus: float) -> Process:
    return Process(device=pick_device(cpus))
