"""A stage is its settings, and `complete` is the only way in which one is done.

    complete(stage): done? -> needs -> hold -> code changed? -> run -> result -> release

A stage's fields are what its result depends on and nothing else; where things are and how they are
computed is in the `Place`. A stage that was interrupted resumes from what its folder holds. This
module loads no torch, so that a driver can name stages without it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from sweeps.stages.guard import HANG_AFTER_SECONDS, claim, watchdog
from sweeps.store.errors import StoreError, disk_errors
from sweeps.store.store import LABEL, Folder, Store, write_json
from wsss.basics.errors import ForeseenError
from wsss.basics.files import files_in
from wsss.basics.progress import shown
from wsss.data.voc import VocDataset
from wsss.labels.sources import digest_of, source_in
from wsss.training.diagnosis.learning import PriorLimits
from wsss.training.execution import Execution

if TYPE_CHECKING:
    from torch import nn

    from wsss.training.checkpoint import CheckpointFolder
    from wsss.training.process import Process

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """A stage's progress."""

    stage: "Stage"
    progress: float
    """Share of the stage that is done, in [0, 1]."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """What is new: an epoch's `epoch`, losses and so on; empty if only the progress is new. Texts:
    `warning`, within an epoch, that the training is at the label prior; `dead_maps`, with an
    epoch."""


Steps = Generator[Record, None, Any]
"""Yields a stage's records; returns its result, a dataclass that is stored in done.json."""


@dataclass(frozen=True)
class Conduct:
    """How a stage reacts when something goes wrong. Changes no result."""

    hang_after: float = HANG_AFTER_SECONDS
    """Seconds without progress after which a process ends itself; 0: never."""
    accept_changes: bool = False
    """Whether to continue a checkpoint of other code or packages."""
    limits: PriorLimits = field(default_factory=PriorLimits)
    """When to warn of a training that is not clearly below the label prior, and when to end it."""


@dataclass(frozen=True)
class Crew:
    """Who does the work of stages: this process, or in a subclass others.

    num_workers: processes that help to refine labels; 0: none.
    """

    num_workers: int = 0

    def work(self, stage: "Stage", place: "Place") -> Iterator[Record]:
        """Run a stage whose needs are complete."""
        return attempt(stage, place)

    def images(self, stage: "PerImage", place: "Place", image_ids: list[str]) -> Iterator[str]:
        """Process these images of a stage; yield each id once its file is written, and upload."""
        return stage.do_shared(place, image_ids)


class EndedEarlyError(ForeseenError):
    """Work that was asked to end has saved what it had; it is no failure."""

    def __init__(self, message: str = "ended when asked to; the same command resumes it") -> None:
        super().__init__(message)


def never() -> bool:
    """Return False."""
    return False


@dataclass(frozen=True)
class Place:
    """Where and how work is done: what no result depends on. It can be sent to a worker."""

    store: Store
    data: Path
    """Folder in VOC layout."""
    weights_file: Path | None = None
    execution: Execution = field(default_factory=Execution)
    conduct: Conduct = field(default_factory=Conduct)
    crew: Crew = field(default_factory=Crew)
    rank: "Process | None" = None
    """This process; None: one that works alone, on the CPU."""
    stack_folder: Path | None = None
    """Where a process that hangs leaves its stacks; None: no watchdog."""
    is_ending: Callable[[], bool] = never
    """Whether work is to be saved and ended; asked at every step and image, so it answers at once.
    """
    share_every: int = 500
    """Images between uploads: at most this many are repeated if the machine is lost."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Digest of each image's current content (sources.py); {}: the stages' ids identify the data.
    """

    @property
    def dataset(self) -> VocDataset:
        """The data set, opened anew."""
        return VocDataset(self.data)

    @property
    def data_digest(self) -> str:
        """Digest of all sources, `data` in done.json; "" without any."""
        return digest_of(self.sources)

    @property
    def process(self) -> "Process":
        """This process, with its rank, device and execution."""
        from wsss.training.process import Process

        return replace(self.rank or Process(), execution=self.execution)

    def result(self, stage: "Stage") -> dict[str, Any]:
        """Return a finished stage's result, downloaded if need be. Raises StoreError."""
        folder = self.store.folder(stage.rel)
        if not folder.is_finished():
            raise StoreError(f"{folder.path}: not finished; give the same command again")
        return folder.result() or {}

    def end_if_asked(self) -> None:
        """Raise EndedEarlyError on the first rank if the end was asked for.

        Ray Train then ends the others, which hold nothing.
        """
        if self.process.is_first and self.is_ending():
            raise EndedEarlyError

    def first(self, ask: Callable[[], T]) -> T:
        """Return on every rank the first rank's answer."""
        process = self.process
        answer: T = process.gather(ask() if process.is_first else None)[0]
        return answer


class Stage(ABC):
    """One step from images to a score, named by its settings."""

    room: ClassVar[str]
    """The store's folder for stages of this kind."""
    title: ClassVar[str]
    """Shown while it runs."""

    @abstractmethod
    def id(self) -> str:
        """Digest of the settings that have an effect and of the ids of what is needed."""

    @property
    def rel(self) -> str:
        """Path of its folder in the store."""
        return f"{self.room}/{self.id()}"

    def needs(self) -> tuple["Stage", ...]:
        """Return the stages whose results this one reads, in the order in which to run them."""
        return ()

    @abstractmethod
    def run(self, place: Place, folder: Folder) -> Steps:
        """Do what is missing; yield equally many records on every rank; return the result."""

    def is_done(self, place: Place) -> bool:
        """Whether its result is in the store, here or elsewhere."""
        return place.store.folder(self.rel).is_finished()


class TrainingStage(Stage):
    """A stage with epochs and checkpoints. Its result names the last checkpoint."""

    def own_checkpoints(self, folder: Folder, place: Place | None = None) -> "CheckpointFolder":
        """Return its checkpoints, which are marked as its own and uploaded as they are saved.

        place: where it trains; once it is to end, it saves after the step at work, and ends.
        """
        from wsss.training.checkpoint import CheckpointFolder

        def after_save(path: Path) -> None:
            folder.share()
            if place:
                place.end_if_asked()

        return CheckpointFolder(
            folder.checkpoints,
            owner=self.rel,
            after_save=after_save,
            is_wanted=place.is_ending if place else never,
        )

    def restore(self, model: "nn.Module", folder: Folder, num_epochs: int) -> None:
        """Load the finished training into a network, downloaded if need be.

        Raises StoreError if less than all epochs can be read.
        """
        folder.pull_training()
        epochs = self.own_checkpoints(folder).restore(model).epoch
        if epochs < num_epochs:
            raise StoreError(
                f"{folder.checkpoints}: {epochs} of {num_epochs} epochs can be read; give the same "
                "command again to train the rest again"
            )

    def is_done(self, place: Place) -> bool:
        """Whether the training is finished and its last checkpoint whole."""
        folder = place.store.folder(self.rel)
        if not folder.is_finished():
            return False
        return folder.has_whole(f"checkpoints/{(folder.result() or {}).get('checkpoint')}")


@dataclass(frozen=True)
class Written:
    """A file per image."""

    num_images: int


class PerImage(Stage):
    """A stage with a file per image. Images may be processed anywhere and in any order."""

    suffix: ClassVar[str]

    @property
    def images_rel(self) -> str:
        """Path in the store of the folder of the images' files."""
        return self.rel

    @abstractmethod
    def image_ids(self, place: Place) -> list[str]:
        """Return the ids of all images."""

    @abstractmethod
    def do(self, place: Place, image_ids: list[str]) -> Iterator[str]:
        """Process these images; yield each id once its file is whole on disk."""

    def finish(self, place: Place, folder: Folder) -> Any:
        """Return the stage's result, once all files are there."""
        return Written(len(self.image_ids(place)))

    def pulled(self, place: Place, image_ids: list[str] | None = None) -> Path:
        """Download the files of these images, or of all; return their folder here."""
        folder = place.store.folder(self.images_rel)
        names = None if image_ids is None else {f"{name}{self.suffix}" for name in image_ids}
        folder.pull(names)
        return folder.path

    def missing(self, place: Place, image_ids: Iterable[str]) -> list[str]:
        """Return those images without a file, or with a file of another network or image."""
        folder = place.store.folder(self.images_rel)
        there = folder.file_names()
        return [
            image_id
            for image_id in image_ids
            if f"{image_id}{self.suffix}" not in there or not self._is_of(place, folder, image_id)
        ]

    def source(self, place: Place, image_id: str) -> str:
        """Return what an image's file records as its source; "" if ids identify the data."""
        return f"{self.id()} {place.sources[image_id]}" if place.sources else ""

    def _is_of(self, place: Place, folder: Folder, image_id: str) -> bool:
        path = folder.path / f"{image_id}{self.suffix}"
        return not place.sources or source_in(path) == self.source(place, image_id)

    def is_done(self, place: Place) -> bool:
        """Whether it is finished, for the data as they are now, with no file lost since."""
        if not super().is_done(place):
            return False
        image_ids: Iterable[str] = self.image_ids(place)
        if place.sources:
            if place.result(self).get("data") != place.data_digest:
                return False
            image_ids = shown(self.image_ids(place), "reading what is there")  # opens each file
        return not self.missing(place, image_ids)

    def run(self, place: Place, folder: Folder) -> Steps:
        """Have the crew process the missing images."""
        missing = self.missing(place, self.image_ids(place))
        done = place.crew.images(self, place, missing) if missing else ()
        for number, _ in enumerate(done, start=1):
            yield Record(self, number / len(missing))
        place.end_if_asked()  # there may be images left
        return self.finish(place, folder)

    def do_shared(self, place: Place, image_ids: list[str]) -> Iterator[str]:
        """Process these images here until the end is asked for, and upload their files."""
        folder, waiting = place.store.folder(self.images_rel), set[str]()
        for image_id in self.do(place, image_ids):
            waiting.add(f"{image_id}{self.suffix}")
            if len(waiting) >= place.share_every:
                folder.push(waiting)
                waiting = set()
            yield image_id
            if place.is_ending():
                break
        folder.push(waiting)


def complete(stage: Stage, place: Place) -> Generator[Record, None, None]:
    """Complete what a stage needs, then the stage; yield records. Nothing is done twice.

    A stage's first record, without progress or numbers, says that its work begins.
    With several ranks, each of them calls this, and all yield equally often: the first one holds
    the lock, writes and uploads, and all resume from its checkpoints. Raises StoreError,
    ChangedError for a half-trained network of other code, and what the stages raise.
    """
    if place.first(lambda: stage.is_done(place)):
        return
    for need in stage.needs():
        yield from complete(need, place)
    place.end_if_asked()
    yield Record(stage, 0.0)
    yield from place.crew.work(stage, place)


def attempt(stage: Stage, place: Place) -> Iterator[Record]:
    """Run a stage whose needs are complete, in this process or on this rank."""
    process, folder = place.process, place.store.folder(stage.rel)
    with ExitStack() as stack:
        stack.enter_context(disk_errors(place.store.root))
        if process.is_first:
            stack.enter_context(folder.hold(meanwhile=place.end_if_asked))
        if place.first(lambda: stage.is_done(place)):
            return  # another process did it while this one waited
        if process.is_first:
            _label(stage, place, folder)
        if isinstance(stage, TrainingStage):
            _start_training(folder, place)
        result = yield from _watched(stage, place, folder)
        if process.is_first:
            made_from = {need.room: need.id() for need in stage.needs()}
            data = {"data": digest} if (digest := place.data_digest) else {}
            folder.finish({"id": stage.id(), "made_from": made_from} | data | asdict(result))


def _watched(stage: Stage, place: Place, folder: Folder) -> Steps:
    """Run a stage under a watchdog; every record counts as progress."""
    process, stacks = place.process, place.stack_folder
    name = "stack.txt" if process.is_first else f"stack-{process.rank}.txt"
    limit = place.conduct.hang_after
    guard = watchdog(stacks / name, limit) if stacks else nullcontext(lambda: None)
    with guard as beat, closing(stage.run(place, folder)) as steps:
        while True:
            try:
                record = next(steps)
            except StopIteration as end:
                return end.value
            beat()
            yield record


def _start_training(folder: Folder, place: Place) -> None:
    """Download what the bucket has of a training; all ranks resume from the first's checkpoints."""
    process = place.process
    if process.is_first:
        folder.pull_training()
        claim(folder, accept_changes=place.conduct.accept_changes)
        folder.share()  # what an earlier attempt could not upload
    machine, names = process.gather((folder.machine(), folder.checkpoint_names()))[0]
    if machine != folder.machine():
        folder.take_over(names)


def _label(stage: Stage, place: Place, folder: Folder) -> None:
    """Write into a folder chosen by the user which stage it holds.

    Raises StoreError if it holds other images' files, or none that say what they were made from. A
    checkpoint of another training is refused when it is read.
    """
    named = place.store.named.get(stage.rel)
    if named is None or (named / LABEL).exists():
        return
    if isinstance(stage, PerImage):
        images = place.store.folder(stage.images_rel).path
        for path in files_in(images, f"*{stage.suffix}"):
            if source_in(path).partition(" ")[0] != stage.id():
                raise StoreError(
                    f"{named}: no {LABEL} says what it holds, and {path.name} is not of this run "
                    "with these settings; move it away, or choose another folder"
                )
    write_json(named / LABEL, {"stage": stage.rel})
