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
        classes = ("other classes than VOC's",) if self.other_classes else ()
        meaning = "These numbers show how the method behaves here; they neither confirm nor refute"
        return f"{self.word}: {'; '.join((*classes, *self.marks))}. {meaning} the paper's."


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
    network, train = sweep.base.network, sweep.base.train
    paper = PAPER.network, PAPER.train
    marks = []
    if sweep.num_train_images != PAPER_TRAIN_IMAGES:
        images = counted(sweep.num_train_images, "training image")
        marks.append(f"{images} instead of {PAPER_TRAIN_IMAGES:,}")
    if sweep.num_eval_images != PAPER_EVAL_IMAGES:
        images = counted(sweep.num_eval_images, "scored image")
        marks.append(f"{images} instead of {PAPER_EVAL_IMAGES:,}")
    if network.backbone != paper[0].backbone:
        marks.append(f"{network.backbone} instead of {paper[0].backbone}")
    if network.weights == "none":
        marks.append("random initial weights")
    if train.crop_size != paper[1].crop_size:
        marks.append(f"crop {train.crop_size} instead of {paper[1].crop_size}")
    if train.epochs < paper[1].epochs:
        marks.append(f"{counted(train.epochs, 'epoch')} instead of {paper[1].epochs}")
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
