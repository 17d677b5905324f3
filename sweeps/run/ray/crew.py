"""Runs stages on a Ray cluster: images in tasks, trainings in one task or by Ray Train."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import ray
from ray.exceptions import RayTaskError
from ray.util.queue import Empty, Queue

from sweeps.run.ray.ending import AskedToEnd, ask_to_end
from sweeps.run.ray.resources import DRIVER_SHARE, HEAD_NODE, Resources, all_slots, machines_now
from sweeps.run.ray.train import fit
from sweeps.stages.labels import WriteLabels
from sweeps.stages.segmentation import TrainDeepLab
from sweeps.stages.stage import Crew, EndedEarlyError, PerImage, Place, Record, Stage, attempt
from sweeps.stages.train_cam import TrainCam
from wsss.training.process import Process, pick_device

Item = TypeVar("Item")

POLL_SECONDS = 1.0
"""Time between two signs that a task is still running."""

MIN_SHARD = 8
"""Least number of images per task, as each task loads its network."""
SHARDS_PER_SLOT = 4
"""Tasks per slot of the cluster, one after the other, so that slow images even out."""


def split_shards(image_ids: list[str], num_slots: int) -> list[list[str]]:
    """Return the images in shards of equal length, a few per slot."""
    size = max(MIN_SHARD, -(-len(image_ids) // (SHARDS_PER_SLOT * max(1, num_slots))))
    return [image_ids[start : start + size] for start in range(0, len(image_ids), size)]


def map_shards(
    function: Callable[[Item, list[str]], Iterator[str]],
    item: Item,
    image_ids: list[str],
    needs: Resources,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[str]:
    """Yield each image id when a task reports it done, in any order; `needs`: what a task occupies.

    function(item, ids): a module's function that yields every id of its shard, even if the image
    was done before: a task whose node died runs again, and the ids that it yielded before are
    skipped. The first error ends the map and is raised here; the other tasks are cancelled.
    meanwhile: called at least once a second.
    """
    task = _streaming(function, needs)
    shards = split_shards(image_ids, all_slots(machines_now(), needs))
    shared = ray.put(item)  # else sent once a task, and it can name 10,000 images' sources
    for answer in _answers([task.remote(shared, shard) for shard in shards]):
        meanwhile()
        if answer:
            yield answer


def _answers(streams: list[Any]) -> Iterator[Any]:
    """Yield what these tasks yield, as it comes, and None after each second without anything.

    Raises the first error of a task as the task raised it; tasks that still run are cancelled.
    """
    pending = list(streams)
    try:
        while pending:
            ready, _ = ray.wait(pending, timeout=POLL_SECONDS)
            if not ready:
                yield None
                continue
            try:
                yield _answer(next(ready[0]))
            except StopIteration:
                pending.remove(ready[0])
    finally:
        for stream in pending:
            ray.cancel(stream)


def _answer(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:  # its message is the whole traceback
        raise error.cause from error


def _streaming(function: Callable[..., Iterator[Any]], needs: Resources) -> Any:
    return ray.remote(num_cpus=needs.cpus, num_gpus=needs.gpus, num_returns="streaming")(function)


@dataclass(frozen=True)
class _Sent:
    """A stage, as it is sent to a worker."""

    stage: Stage
    place: Place
    cpus: float

    def alone(self) -> Place:
        """Return the place for a single process, in a task."""
        return replace(self.place, rank=Process(device=pick_device(self.cpus)))


class Cluster(Crew):
    """The crew on the cluster that Ray has joined. Every node must see the store and the data.

    Of a store in a bucket every node has a mirror, which downloads what its tasks need.
    """

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.word: Any = None
        """With which the tasks were asked to end."""

    def work(self, stage: Stage, place: Place) -> Iterator[Record]:
        """Run a stage: images in shards, large trainings on `num_workers` Ray Train workers.

        Without workers, and for all other stages, it is one task. After a second without news the
        last progress is yielded again.
        """
        if isinstance(stage, PerImage):
            yield from attempt(stage, place)
            return
        sent, progress = self._sent(stage, place), 0.0
        needs: Resources | None = None  # `fit` itself hears of the end
        if isinstance(stage, TrainCam | TrainDeepLab) and not self.resources.inline:
            records = self._fit(sent)
        else:
            needs = self._needs(stage)
            records = _answers([_streaming(_attempt, needs).remote(sent)])
        for record in records:
            self._pass_on(place, needs)
            progress = record.progress if record else progress
            yield record or Record(stage, progress)

    def images(self, stage: PerImage, place: Place, image_ids: list[str]) -> Iterator[str]:
        """Process the images in shards, a Ray task each."""
        sent, needs = self._sent(stage, place), self._needs(stage)
        return map_shards(_do_images, sent, image_ids, needs, lambda: self._pass_on(place, needs))

    def _pass_on(self, place: Place, needs: Resources | None) -> None:
        """Ask the tasks to end, once that is asked of this process.

        Raises EndedEarlyError if no node is left that could run one: none would hear of it.
        """
        if self.word is None and place.is_ending():
            self.word = ask_to_end()
        if self.word is not None and needs and not all_slots(machines_now(), needs):
            raise EndedEarlyError

    def _sent(self, stage: Stage, place: Place) -> _Sent:
        place = replace(place, crew=Crew(), is_ending=AskedToEnd())
        return _Sent(stage, place, self.resources.cpus)

    def _needs(self, stage: Stage) -> Resources:
        """Return what a task occupies. Labels need no GPU, unless PAMR refines them."""
        on_cpu = isinstance(stage, WriteLabels) and not (
            stage.chain.labels and stage.chain.labels.refinement == "pamr"
        )
        return replace(self.resources, gpus=0.0) if on_cpu else self.resources

    def _fit(self, sent: _Sent) -> Iterator[Record | None]:
        """Run Ray Train in a task, as `fit` blocks; yield as `_answers` does.

        Outside a Tune trial, the workers' reports reach only Ray Train's own callbacks, in another
        process: hence the queue.
        """
        reports, where = Queue(actor_options={"num_cpus": 0}), {HEAD_NODE: DRIVER_SHARE}
        task = ray.remote(num_cpus=0, max_retries=0, resources=where)(_fit)
        training = task.remote(sent, self.resources, reports)
        is_over = False
        try:
            while not is_over:
                is_over = bool(ray.wait([training], timeout=0)[0])
                try:
                    while True:
                        yield Record(sent.stage, **reports.get(timeout=POLL_SECONDS))
                except Empty:
                    yield None
            _answer(training)
        finally:
            ray.cancel(training)
            reports.shutdown()


def _fit(sent: _Sent, resources: Resources, reports: Queue) -> None:
    fit(
        _train_rank,
        sent,
        resources,
        folder=sent.place.store.root / "ray_train" / sent.stage.id(),
        callbacks=[_sender(reports)],
    )


def _sender(reports: Queue) -> Any:
    """Return a Ray Train callback that puts the reports of rank 0 into a queue."""
    from ray.train import UserCallback

    class Sender(UserCallback):  # type: ignore[misc]  # ray is untyped
        def after_report(self, run_context: Any, metrics: Any, checkpoint: Any) -> None:
            numbers = dict(metrics[0])
            reports.put({"progress": numbers.pop("progress"), "numbers": numbers})

    return Sender()


def _train_rank(sent: _Sent, process: Process) -> Iterator[dict[str, Any]]:
    for record in attempt(sent.stage, replace(sent.place, rank=process)):
        yield {"progress": record.progress, **record.numbers}


def _attempt(sent: _Sent) -> Iterator[Record]:
    yield from attempt(sent.stage, sent.alone())


def _do_images(sent: _Sent, image_ids: list[str]) -> Iterator[str]:
    assert isinstance(sent.stage, PerImage)
    yield from sent.stage.do_shared(sent.alone(), image_ids)
