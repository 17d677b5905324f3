"""How a headline goes through its chains: made-up stages that end, are asked to end, or break."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sweeps.plan.chains.chain import ChainConfig
from sweeps.run.dispatch import Dispatch
from sweeps.run.subjects.headline import Chain, Chains
from sweeps.stages.stage import Place, Record, Steps, TrainingStage
from sweeps.store.errors import StoreError
from sweeps.store.store import Folder, Store
from wsss.config import RunConfig
from wsss.overrides import apply_overrides
from wsss.presets import TINY_DEEPLAB
from wsss.segmentation_config import PseudoLabelConfig
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
        assert checkpoints.after_save
        for epoch in range(len(folder.checkpoint_names()) + 1, 4):
            self.break_at(epoch)
            folder.add_epoch({"epoch": epoch})
            yield Record(self, epoch / 3, {"epoch": float(epoch)})
            path = folder.checkpoints / f"epoch_{epoch:04d}.pt"
            path.parent.mkdir(exist_ok=True)
            path.touch()
            checkpoints.after_save(path)
        return Done()


def raises(error: Exception, *epochs: int) -> Callable[[int], None]:
    def break_at(epoch: int) -> None:
        if epoch in epochs:
            raise error

    return break_at


class Scene:
    """A headline of these stages, one a chain, which is started again and again."""

    def __init__(self, root: Path, *stages: ThreeEpochs) -> None:
        self.store, self.stages, self.said = Store(root), stages, list[str]()
        self.interrupt_at = 99.0

    def start(self) -> None:
        signals: list[str] = []
        place = Place(self.store, Path("nowhere"))
        segmentations = (
            apply_overrides(TINY_DEEPLAB, {"rng_seed": seed}) for seed in range(len(self.stages))
        )
        chains = [
            Chain(
                ChainConfig(run=RunConfig(), labels=PseudoLabelConfig(), segmentation=segmentation),
                (stage,),
            )
            for segmentation, stage in zip(segmentations, self.stages, strict=True)
        ]

        class Ear:
            def update(ear, trial: Chain, *, status: str, record: Any = None) -> None:  # noqa: N805
                if record and record.get("epoch", 0.0) >= self.interrupt_at:
                    signals.append("SIGINT")

        source = Chains(chains, place)

        def why_end() -> str | None:
            return next(iter(signals), None)

        source.run(Dispatch(source, [Ear()], why_end, self.said.append), 1)

    def epochs(self) -> list[int]:
        """Return how many epochs of each stage have been trained."""
        return [len(self.store.folder(stage.rel).epochs()) for stage in self.stages]


def test_a_training_in_this_process_ends_with_the_checkpoint_behind_a_signal(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, ThreeEpochs("a"), ThreeEpochs("b"))
    scene.interrupt_at = 2.0
    scene.start()
    assert scene.epochs() == [2, 0]
    scene.interrupt_at = 99.0
    scene.start()
    assert scene.epochs() == [3, 3]


def test_a_chain_whose_training_diverges_has_failed_and_the_others_go_on(tmp_path: Path) -> None:
    stage = ThreeEpochs("a", raises(DivergedError("too fast"), 2))
    scene = Scene(tmp_path, stage, ThreeEpochs("b"))
    scene.start()
    assert scene.epochs() == [1, 3]
    assert scene.said == ["CAM: diverged: too fast"]
    failure = scene.store.folder(stage.rel).failure()
    assert failure
    assert (failure["kind"], failure["message"]) == ("diverged", "too fast")


@pytest.mark.parametrize("error", [StoreError("disk full"), KeyError("nobody foresaw it")])
def test_a_chain_is_restarted_from_its_checkpoint_where_that_may_help(
    tmp_path: Path, error: Exception
) -> None:
    left = [error, error]

    def twice(epoch: int) -> None:
        if epoch == 2 and left:
            raise left.pop()

    scene = Scene(tmp_path, ThreeEpochs("a", twice))
    scene.start()
    assert scene.epochs() == [3]
    assert [f"restart {count} of 2" in line for count, line in enumerate(scene.said, 1)] == [
        True
    ] * 2
