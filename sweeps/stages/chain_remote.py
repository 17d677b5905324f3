"""What the stages of a chain bring from a bucket before they start, and take there as they go on.

With a local store, nothing of it happens. Every process of a stage does its own part, so that the
stages find their inputs on whichever machine they run.
"""

from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from sweeps.stages.chain_work import PREDICT, TRAIN_DEEPLAB, ChainTask
from sweeps.stages.remote_trial import start_together
from sweeps.store.remote import Remote
from wsss.identity import cam_id
from wsss.label_stages import INFER, LEARN, WALK, WRITE
from wsss.training.process import Process

PUSH_EVERY = 500
"""Images of a stage between uploads: so many at most are done again if the machine is lost."""


class RemoteChain:
    """One process's part in keeping bucket and mirror equal for a chain."""

    def __init__(self, task: ChainTask) -> None:
        self.chain, self.store = task.chain, task.open_store()
        self.folders, self.remote = task.folders, self.store.remote

    # Trainings

    def start_training(self, stage: str, process: Process) -> None:
        """Bring here what the bucket has of a training, its images' labels or CAMs if it goes on.

        All ranks then start from the checkpoints of the first, whatever their mirrors held.
        """
        if self.remote is None:
            return
        room, key = self._training(stage)
        if process.is_first:
            self._pull_training(self.remote, stage)
            self.push_training(stage)  # what an earlier attempt could not upload
        start_together(self.remote, key, process, room=room)
        if (self.store.root / room / key / "trained.json").exists():
            return
        if stage == LEARN:
            self._pull(self.folders.maps)
        elif self.chain.labels:
            self._pull(self.folders.labels / "png")

    def push_training(self, stage: str) -> None:
        """Upload what the bucket lacks of a training. Raises StoreError after some tries."""
        if self.remote:
            room, key = self._training(stage)
            self.remote.push_training(f"{room}/{key}")

    # Images

    def missing(self, stage: str, image_ids: list[str]) -> list[str]:
        """Return those images without a file here which the bucket lacks as well.

        What is here and not there, from a process that was killed, is uploaded first.
        """
        if self.remote is None:
            return image_ids
        folder, suffix = self._outputs(stage)
        self.store.push_folder(folder)
        there = {Path(rel).name for rel in self.remote.objects(self._rel(folder))}
        return [image_id for image_id in image_ids if f"{image_id}{suffix}" not in there]

    def pull_inputs(self, stage: str, image_ids: list[str]) -> None:
        """Bring here what a stage needs for these images: a network, CAMs."""
        if self.remote is None:
            return
        if stage in (INFER, WALK, PREDICT):
            self._pull_training(self.remote, stage)
        if stage in (WALK, WRITE):
            walked = stage == WRITE and self.chain.walks
            source = self.folders.walk / "maps" if walked else self.folders.maps
            self._pull(source, {f"{image_id}.npz" for image_id in image_ids})

    def pushed(self, stage: str, done: Iterator[str]) -> Iterator[str]:
        """Pass on the ids of images that are done, and upload their files in between."""
        if self.remote is None:
            yield from done
            return
        folder, suffix = self._outputs(stage)
        waiting: set[str] = set()
        for image_id in done:
            waiting.add(f"{image_id}{suffix}")
            if len(waiting) >= PUSH_EVERY:
                self.remote.push_folder(self._rel(folder), only=waiting)
                waiting = set()
            yield image_id
        self.remote.push_folder(self._rel(folder), only=waiting)

    # Scores

    def pull_to_score(self, stage: str) -> None:
        """Bring here the label maps unless they are scored, or the predictions and the network."""
        if self.remote is None:
            return
        if stage == PREDICT:
            self._pull(self.folders.predictions)
            self._pull_training(self.remote, stage)
            return
        self._pull(self.folders.labels, {"score.json"})
        if not (self.folders.labels / "score.json").exists():
            self._pull(self.folders.labels)

    def push_scored(self, stage: str) -> None:
        """Upload figures and pictures, the file that says that the stage is finished last."""
        self.store.push_folder(
            self.folders.predictions if stage == PREDICT else self.folders.labels
        )

    def _training(self, stage: str) -> tuple[str, str]:
        """Return the store's folder of such trainings, and the id of the one made or needed."""
        if stage in (TRAIN_DEEPLAB, PREDICT):
            return "segmentations", self.chain.segmentation_id
        return ("walks", self.chain.walk_id) if stage != INFER else ("cams", cam_id(self.chain.run))

    def _outputs(self, stage: str) -> tuple[Path, str]:
        """Return the folder of a stage's files, one per image, and their suffix."""
        return {
            INFER: (self.folders.maps, ".npz"),
            WALK: (self.folders.walk / "maps", ".npz"),
            WRITE: (self.folders.labels / "png", ".png"),
            PREDICT: (self.folders.predictions / "png", ".png"),
        }[stage]

    def _pull_training(self, remote: Remote, stage: str) -> None:
        room, key = self._training(stage)
        with self._one_at_a_time():
            remote.pull_training(f"{room}/{key}")

    def _pull(self, folder: Path, only: set[str] | None = None) -> None:
        assert self.remote
        with self._one_at_a_time():
            self.remote.pull_folder(self._rel(folder), only=only)

    def _one_at_a_time(self) -> FileLock:
        """Return the lock under which tasks of one machine do not download the same twice."""
        self.store.root.mkdir(parents=True, exist_ok=True)
        return FileLock(self.store.root / "pull.lock")

    def _rel(self, folder: Path) -> str:
        return folder.relative_to(self.store.root).as_posix()
