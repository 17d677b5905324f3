"""How far a sweep is from the paper's setting, and which open points it decides how."""

from sweeps.plan.sweep import Sweep
from wsss.config import RunConfig, Settings
from wsss.presets import PAPER

SMALL_SCALE = "SMALL SCALE"
PAPER_TRAIN_IMAGES, PAPER_EVAL_IMAGES = 10_582, 1_464
NOT_A_SETTING = ("data.name", "data.fingerprint", "data.train_fingerprint", "rng_seed", "repeat")


def scale_marks(sweep: Sweep) -> tuple[str, ...]:
    """Return why the numbers are not at the paper's scale; empty if they are.

    Images, backbone and weights, crop and epochs count; other changes are listed by
    `changed_settings`.
    """
    network, train = sweep.base.network, sweep.base.train
    paper = PAPER.network, PAPER.train
    marks = []
    if sweep.num_train_images != PAPER_TRAIN_IMAGES:
        marks.append(
            f"{sweep.num_train_images:,} training images instead of {PAPER_TRAIN_IMAGES:,}"
        )
    if sweep.num_eval_images != PAPER_EVAL_IMAGES:
        marks.append(f"{sweep.num_eval_images:,} scored images instead of {PAPER_EVAL_IMAGES:,}")
    if network.backbone != paper[0].backbone:
        marks.append(f"{network.backbone} instead of {paper[0].backbone}")
    if network.weights == "none":
        marks.append("random initial weights")
    if train.crop_size != paper[1].crop_size:
        marks.append(f"crop {train.crop_size} instead of {paper[1].crop_size}")
    if train.epochs < paper[1].epochs:
        marks.append(f"{train.epochs} epochs instead of {paper[1].epochs}")
    return tuple(marks)


def changed_settings(sweep: Sweep) -> tuple[tuple[str, str, str], ...]:
    """Return (setting, paper preset's value, value here) wherever the base differs from it."""
    ours, papers = sweep.base.flat(), PAPER.flat()
    return tuple(
        (key, str(papers[key]), str(value))
        for key, value in ours.items()
        if key not in NOT_A_SETTING and value != papers[key]
    )


def readings(config: RunConfig) -> tuple[tuple[str, str, str], ...]:
    """Return (setting, value, what is open) of each point which the paper leaves open."""
    found = []
    for section, settings in config:
        if not isinstance(settings, Settings):
            continue
        for name, field in type(settings).model_fields.items():
            description = field.description or ""
            if description.startswith("(open)"):
                value = str(getattr(settings, name))
                found.append((f"{section}.{name}", value, description.removeprefix("(open) ")))
    return tuple(found)
