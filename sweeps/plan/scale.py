"""How a sweep differs from the paper's setting, and how it decides the paper's open points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeps.plan.states import TrialState
from sweeps.plan.sweep import OF_THE_DATA, Sweep
from wsss.basics.printable import counted
from wsss.config import RunConfig
from wsss.presets import PAPER
from wsss.settings_list import find_settings

SMALL_SCALE, OTHER_DATA = "SMALL SCALE", "OTHER DATA"
PAPER_TRAIN_IMAGES, PAPER_EVAL_IMAGES = 10_582, 1_464
NOT_A_SETTING = (*OF_THE_DATA, "rng_seed", "repeat")


@dataclass(frozen=True)
class Scale:
    """How numbers differ from the paper's setting."""

    marks: tuple[str, ...]
    """The differences; empty at the paper's scale."""
    other_classes: bool
    """Whether the data has other classes than VOC, so that the paper's numbers do not apply."""

    @property
    def word(self) -> str:
        """The tables' mark; empty for the paper's own setting."""
        if self.other_classes:
            return OTHER_DATA
        return SMALL_SCALE if self.marks else ""

    @property
    def warning(self) -> str:
        """The mark with its reasons; empty for the paper's own setting."""
        if not self.word:
            return ""
        why = "other classes than VOC's" if self.other_classes else "; ".join(self.marks)
        meaning = "These numbers show how the method behaves here; they neither confirm nor refute"
        return f"{self.word}: {why}. {meaning} the paper's."


def scale_of(sweep: Sweep, classes: Sequence[str] | None) -> Scale:
    """Return a sweep's scale. classes: the data's; None if not yet known."""
    if classes is None:
        return Scale(scale_marks(sweep), other_classes=False)
    from wsss.data.classes import VOC_CLASSES  # a sweep without results needs nothing of data

    return Scale(scale_marks(sweep), tuple(classes) != VOC_CLASSES)


def scored_classes(states: Mapping[str, TrialState]) -> list[str] | None:
    """Return the data's classes from a finished trial; None without one."""
    finished = (state.metrics for state in states.values())
    return next((found["classes"] for found in finished if found), None)


def scale_marks(sweep: Sweep) -> tuple[str, ...]:
    """Return why the numbers are not at the paper's scale; empty if they are.

    Images, backbone, weights, crop and epochs count; `changed_settings` lists other changes.
    """
    network, train, paper = sweep.base.network, sweep.base.train, PAPER.train
    images = (
        (sweep.num_train_images, "training image", PAPER_TRAIN_IMAGES),
        (sweep.num_eval_images, "scored image", PAPER_EVAL_IMAGES),
    )
    marks = [f"{counted(n, noun)} instead of {of_it:,}" for n, noun, of_it in images if n != of_it]
    if network.backbone != PAPER.network.backbone:
        marks.append(f"{network.backbone} instead of {PAPER.network.backbone}")
    if network.weights == "none":
        marks.append("random initial weights")
    if train.crop_size != paper.crop_size:
        marks.append(f"crop {train.crop_size} instead of {paper.crop_size}")
    if train.epochs < paper.epochs:
        marks.append(f"{counted(train.epochs, 'epoch')} instead of {paper.epochs}")
    return tuple(marks)


def changed_settings(sweep: Sweep) -> tuple[tuple[str, str, str], ...]:
    """Return (setting, paper preset's value, value here) for each setting that differs."""
    ours, papers = sweep.base.flat(), PAPER.flat()
    return tuple(
        (key, str(papers[key]), str(value))
        for key, value in ours.items()
        if key not in NOT_A_SETTING and value != papers[key]
    )


def readings(config: RunConfig) -> tuple[tuple[str, str, str], ...]:
    """Return (setting, value, description) of each point that the paper leaves open."""
    flat = config.flat()
    return tuple((e.name, str(flat[e.name]), e.meaning) for e in find_settings() if e.is_open)
