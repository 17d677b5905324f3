"""A stage is its settings, and `complete` is the only way in which one is done.

    complete(stage): done? -> what it needs -> hold -> code changed? -> run -> result -> release

A stage's fields are what its result depends on and nothing else; where things lie and how they are
done is in the `Place`. A stage that is interrupted goes on from what its folder holds. This module
loads no torch, so that a driver can name stages without it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from sweeps.stages.guard import HANG_AFTER_SECONDS, Watchdog, claim
from sweeps.store.errors import StoreError, disk_errors
from sweeps.store.store import LABEL, Folder, Store
from wsss.labels.sources import digest_of, source_in
from wsss.training.execution import Execution
from wsss.training.learning import PriorLimits

if TYPE_CHECKING:
    from wsss.training.checkpoint import CheckpointFolder
    from wsss.training.process import Process

T = TypeVar("T")

SHARE_EVERY = 500
"""Images of a stage between uploads: so many at most are done again if the machine is lost."""


@dataclass(frozen=True)
class Record:
    """How far a stage is."""

    stage: "Stage"
    progress: float
    """Share of the stage that is done, in [0, 1]."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """What is new: an epoch's `epoch`, losses and so on, or a warning as training_warnings.py has
    it; nothing for mere progress."""


Steps = Generator[Record, None, Any]
"""A stage's records, then its result: a dataclass, which done.json keeps."""


@dataclass(frozen=True)
class Conduct:
    """How a stage is to behave when something is not as it should be. Changes no result."""

    hang_after: float = HANG_AFTER_SECONDS
    """Seconds without progress after which a process ends itself; 0: never."""
    accept_changes: bool = False
    """Whether to continue a checkpoint of other code or packages."""
    limits: PriorLimits = field(default_factory=PriorLimits)
    """When a training that is not clearly below the label prior is warned of, and ended."""


class Crew(Protocol):
    """Who does the work of stages."""

    def work(self, stage: "Stage", place: "Place") -> Iterator[Record]:
        """Do a stage whose needs are complete."""

    def images(self, stage: "PerImage", place: "Place", image_ids: list[str]) -> Iterator[str]:
        """Do these images of a stage; yield each id once its file is written."""


@dataclass(frozen=True)
class Here:
    """This process does all; labels are refined in `num_workers` more, or in this one if 0."""

    num_workers: int = 0

    def work(self, stage: "Stage", place: "Place") -> Iterator[Record]:
        """Do a stage whose needs are complete."""
        return attempt(stage, place)

    def images(self, stage: "PerImage", place: "Place", image_ids: list[str]) -> Iterator[str]:
        """Do these images, and share their files."""
        return stage.do_shared(place, image_ids, num_workers=self.num_workers)


def go_on() -> None:
    """End nothing."""


@dataclass(frozen=True)
class Place:
    """Where work is done, and how: what no result depends on. It can be sent to a worker."""

    store: Store
    data: Path
    """Folder in VOC layout."""
    weights_file: Path | None = None
    execution: Execution = field(default_factory=Execution)
    conduct: Conduct = field(default_factory=Conduct)
    crew: Crew = field(default_factory=Here)
    rank: "Process | None" = None
    """The process at work; None: one that works alone, on the CPU."""
    stack_folder: Path | None = None
    """Where a process that hangs leaves its stacks; None: it is not watched."""
    at_rest: Callable[[], None] = go_on
    """Called after each checkpoint; may raise, and the work ends without loss."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """What each image now holds, as sources.py has it; {}: the ids of stages name the data."""

    @property
    def data_digest(self) -> str:
        """Digest of all sources, which done.json has as `data`; "" without any."""
        return digest_of(self.sources)

    @property
    def process(self) -> "Process":
        """The process at work."""
        from wsss.training.process import Process

        return self.rank or Process()

    def result(self, stage: "Stage") -> dict[str, Any]:
        """Return what a finished stage came to, brought here if need be. Raises StoreError."""
        folder = self.store.folder(stage.rel)
        if not folder.is_finished():
            raise StoreError(f"{folder.path}: not finished; give the same command again")
        return folder.result() or {}

    def first(self, ask: Callable[[], T]) -> T:
        """Return on every rank what the first one answers."""
        process = self.process
        answer: T = process.gather(ask() if process.is_first else None)[0]
        return answer


class Stage(ABC):
    """One step from images to a score, named by its settings."""

    room: ClassVar[str]
    """The store's folder for stages of this kind."""
    title: ClassVar[str]
    """What a person reads while it is at work."""

    @abstractmethod
    def id(self) -> str:
        """Digest of the settings that have an effect, and of the ids of what is needed."""

    @property
    def rel(self) -> str:
        """Path of its folder in the store."""
        return f"{self.room}/{self.id()}"

    def needs(self) -> tuple["Stage", ...]:
        """Return the stages whose results this one reads, in the order in which to do them."""
        return ()

    @abstractmethod
    def run(self, place: Place, folder: Folder) -> Steps:
        """Do what is missing; yield records, as many on every rank, and return the result."""

    def is_done(self, place: Place) -> bool:
        """Whether its result is in the store, here or elsewhere."""
        return place.store.folder(self.rel).is_finished()


class Training(Stage):
    """A stage with epochs and checkpoints. Its result names its last one as `checkpoint`."""

    def own_checkpoints(
        self, folder: Folder, at_rest: Callable[[], None] = go_on
    ) -> "CheckpointFolder":
        """Return its checkpoints, which say that they are its own, and are shared as they come."""
        from wsss.training.checkpoint import CheckpointFolder

        def after_save(path: Path) -> None:
            folder.share()
            at_rest()

        return CheckpointFolder(folder.checkpoints, owner=self.rel, after_save=after_save)

    def is_done(self, place: Place) -> bool:
        """Whether it is trained to its end, and its network is whole."""
        folder = place.store.folder(self.rel)
        if not folder.is_finished():
            return False
        return folder.has_whole(f"checkpoints/{(folder.result() or {}).get('checkpoint')}")


class PerImage(Stage):
    """A stage with a file per image. Images may be done in any process and order."""

    suffix: ClassVar[str]

    @property
    def images_rel(self) -> str:
        """Path in the store of the folder of the images' files."""
        return self.rel

    @abstractmethod
    def image_ids(self, place: Place) -> list[str]:
        """Return the images to do."""

    @abstractmethod
    def do(self, place: Place, image_ids: list[str], *, num_workers: int) -> Iterator[str]:
        """Do these images; yield each id once its file is whole on disk.

        num_workers: processes that may help; 0: none.
        """

    @abstractmethod
    def finish(self, place: Place, folder: Folder) -> Any:
        """Return the stage's result, once all files are there."""

    def missing(self, place: Place) -> list[str]:
        """Return the images without a file, or with one that is not of this network and image."""
        folder = place.store.folder(self.images_rel)
        there = folder.file_names()
        return [
            image_id
            for image_id in self.image_ids(place)
            if f"{image_id}{self.suffix}" not in there or not self._is_of(place, folder, image_id)
        ]

    def source(self, place: Place, image_id: str) -> str:
        """Return what an image's file says that it was made from; "" if ids name the data."""
        return f"{self.id()} {place.sources[image_id]}" if place.sources else ""

    def _is_of(self, place: Place, folder: Folder, image_id: str) -> bool:
        path = folder.path / f"{image_id}{self.suffix}"
        return not place.sources or source_in(path) == self.source(place, image_id)

    def is_done(self, place: Place) -> bool:
        """Whether it came to its end, of the data as they are, and no file has been lost since."""
        if not super().is_done(place) or self.missing(place):
            return False
        return not place.sources or place.result(self).get("data") == place.data_digest

    def run(self, place: Place, folder: Folder) -> Steps:
        """Do the missing images, by whoever is at hand."""
        missing = self.missing(place)
        done = place.crew.images(self, place, missing) if missing else ()
        for number, _ in enumerate(done, start=1):
            yield Record(self, number / len(missing))
        return self.finish(place, folder)

    def do_shared(self, place: Place, image_ids: list[str], *, num_workers: int) -> Iterator[str]:
        """Do these images here, and share their files in between."""
        folder, waiting = place.store.folder(self.images_rel), set[str]()
        for image_id in self.do(place, image_ids, num_workers=num_workers):
            waiting.add(f"{image_id}{self.suffix}")
            if len(waiting) >= SHARE_EVERY:
                folder.push(waiting)
                waiting = set()
            yield image_id
        folder.push(waiting)


def complete(stage: Stage, place: Place) -> Generator[Record, None, None]:
    """Bring a stage to its end, and first what it needs; yield records. Nothing is done twice.

    Every rank of several calls this, and all yield equally often: the first holds, writes and
    shares, and all go on from its checkpoints. Raises StoreError, ChangedError for a half-trained
    network of other code, and what the stages raise.
    """
    if place.first(lambda: stage.is_done(place)):
        return
    for need in stage.needs():
        yield from complete(need, place)
    yield from place.crew.work(stage, place)


def attempt(stage: Stage, place: Place) -> Iterator[Record]:
    """Do a stage whose needs are complete, in this process or on this rank."""
    process, folder = place.process, place.store.folder(stage.rel)
    with ExitStack() as stack:
        stack.enter_context(disk_errors(place.store.root))
        if process.is_first:
            stack.enter_context(folder.hold())
        if place.first(lambda: stage.is_done(place)):
            return  # by the process that was waited for
        if process.is_first:
            _refuse_unlabelled(stage, place, folder)
            place.store.label(stage.rel)
        if isinstance(stage, Training):
            _start_training(folder, place)
        result = yield from _watched(stage, place, folder)
        if process.is_first:
            folder.finish(_made_from(stage, place, result))


def _watched(stage: Stage, place: Place, folder: Folder) -> Steps:
    """Run a stage under a watchdog; every record is a sign of progress."""
    process = place.process
    name = "stack.txt" if process.is_first else f"stack-{process.rank}.txt"
    with ExitStack() as stack:
        watchdog = None
        if place.stack_folder:
            stacks, limit = place.stack_folder / name, place.conduct.hang_after
            watchdog = stack.enter_context(Watchdog(stacks, limit))
        steps = stack.enter_context(closing(stage.run(place, folder)))
        while True:
            try:
                record = next(steps)
            except StopIteration as end:
                return end.value
            if watchdog:
                watchdog.beat()
            yield record


def _start_training(folder: Folder, place: Place) -> None:
    """Bring here what others have of a training; all ranks go on from the first's checkpoints."""
    process = place.process
    if process.is_first:
        folder.pull_training()
        claim(folder, accept_changes=place.conduct.accept_changes)
        folder.share()  # what an earlier attempt could not
    machine, names = process.gather((folder.machine(), folder.checkpoint_names()))[0]
    if machine != folder.machine():
        folder.take_over(names)


def _refuse_unlabelled(stage: Stage, place: Place, folder: Folder) -> None:
    """Raise StoreError if a folder given by hand holds such files and does not say what of."""
    named = place.store.named.get(stage.rel)
    if named is None or (named / LABEL).exists():
        return
    if isinstance(stage, PerImage):
        images = place.store.folder(stage.images_rel).path
        found = any(images.glob(f"*{stage.suffix}"))
    else:
        found = bool(folder.checkpoint_names())
    if found:
        raise StoreError(
            f"{named}: holds files of which no {LABEL} says what they were made from; choose "
            "another folder"
        )


def _made_from(stage: Stage, place: Place, result: Any) -> dict[str, Any]:
    """Return a result as done.json keeps it, with ids and a digest of what it was made from."""
    needs = {need.room: need.id() for need in stage.needs()}
    data = {"data": digest} if (digest := place.data_digest) else {}
    return {"id": stage.id(), "made_from": needs} | data | asdict(result)
