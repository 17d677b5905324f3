"""How a headline goes through its chains: made-up stages that end, are asked to end, or break."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from made_up import targets
from made_up.planned import planned_headline

from sweeps.run.dispatch import Numbers
from sweeps.run.subjects.headline import Chain, Chains
from sweeps.stages.stage import Place, Record, Steps, TrainingStage
from sweeps.store.attempts import Target
from sweeps.store.errors import StoreError
from sweeps.store.store import Folder, Store
from wsss.training.loop import DivergedError


@dataclass(frozen=True)
class Done:
    checkpoint: str = "epoch_0003.pt"


@dataclass(frozen=True)
class ThreeEpochs(TrainingStage):
    """A training that writes an epoch's record, and then its checkpoint."""

    room: ClassVar[str] = "segmentations"
    title: ClassVar[str] = "train nothing"

    name: str
    break_at: Callable[[int], None] = field(default=lambda epoch: None, compare=False)

    def id(self) -> str:
        return self.name

    def is_done(self, place: Place) -> bool:
        return place.store.folder(self.rel).is_finished()

    def run(self, place: Place, folder: Folder) -> Steps:
        checkpoints = self.own_checkpoints(folder, place)
        for epoch in range(len(folder.checkpoint_names()) + 1, 4):
            self.break_at(epoch)
            folder.add_epoch({"epoch": epoch})
            yield Record(self, epoch / 3, {"epoch": float(epoch)})
            path = folder.checkpoints / f"epoch_{epoch:04d}.pt"
            path.parent.mkdir(exist_ok=True)
            path.touch()
            checkpoints.after_save(path)
        return Done()


def raises(error: Exception, at: int, *, times: int = 9) -> Callable[[int], None]:
    """Raise an error in an epoch, so many times."""
    left = [error] * times

    def break_at(epoch: int) -> None:
        if epoch == at and left:
            raise left.pop()

    return break_at


class Scene(targets.Scene):
    """A start of a headline of these stages, one a chain, until all has ended."""

    def __init__(self, root: Path, *stages: ThreeEpochs, interrupt_at: float = 99.0) -> None:
        configs = planned_headline("none", "crf").chains
        chains = [Chain(config, (stage,)) for config, stage in zip(configs, stages, strict=False)]
        self.interrupt_at = interrupt_at
        source = Chains(chains, Place(Store(root), Path("nowhere")))
        super().__init__(root, source)
        source.run(self.dispatch, 1)
        self.epochs = [len(self.store.folder(stage.rel).epochs()) for stage in stages]
        """How many of each stage have been trained."""

    def update(self, trial: Target, *, status: str, record: Numbers | None = None) -> None:
        if record and record.get("epoch", 0.0) >= self.interrupt_at:
            self.why_end = "SIGINT"


def test_a_training_in_this_process_ends_with_the_checkpoint_behind_a_signal(
    tmp_path: Path,
) -> None:
    stages = ThreeEpochs("a"), ThreeEpochs("b")
    assert Scene(tmp_path, *stages, interrupt_at=2.0).epochs == [2, 0]
    assert Scene(tmp_path, *stages).epochs == [3, 3]


def test_a_chain_whose_training_diverges_has_failed_and_the_others_go_on(tmp_path: Path) -> None:
    stage = ThreeEpochs("a", raises(DivergedError("too fast"), 2))
    scene = Scene(tmp_path, stage, ThreeEpochs("b"))
    assert scene.epochs == [1, 3]
    assert scene.said == ["CAM: diverged: too fast"]
    failure = scene.store.folder(stage.rel).failure()
    assert (failure["kind"], failure["message"]) == ("diverged", "too fast")


@pytest.mark.parametrize("error", [StoreError("disk full"), KeyError("nobody foresaw it")])
def test_a_chain_is_restarted_from_its_checkpoint_where_that_may_help(
    tmp_path: Path, error: Exception
) -> None:
    scene = Scene(tmp_path, ThreeEpochs("a", raises(error, 2, times=2)))
    assert scene.epochs == [3]
    assert [line.partition("; ")[2][:14] for line in scene.said] == [
        "restart 1 of 2",
        "restart 2 of 2",
    ]
