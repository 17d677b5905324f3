"""What a calibration was trained and scored with, compared with IRN's point by point.

The points are in the order in which to look if IRN's score is not reproduced.
"""

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from pydantic.dataclasses import dataclass

from sweeps.plan.sweep import Sweep
from sweeps.store.store import Store
from sweeps.tables.irn_runs import AUTHOR_LOG, AUTHOR_LOSSES, AUTHOR_STEPS
from wsss.basics.printable import as_word
from wsss.basics.strict import Strict
from wsss.config import RunConfig
from wsss.identity import canonical
from wsss.presets import IRN

if TYPE_CHECKING:
    from wsss.data.report import DataReport

V1_FILES = {"0676ba61": "resnet50-0676ba61.pth", "19c8e357": "resnet50-19c8e357.pth"}
"""Start of the SHA-256 -> file. Both have the same tensors; IRN loads the second, older one."""

NOT_COMPARED = (
    "network.weights",
    "data.name",
    "data.fingerprint",
    "data.train_split",
    "data.eval_split",
    "labels.threshold_range",
    "rng_seed",
    "repeat",
)
"""Settings that other points cover, or that do not change the score at .15."""


LABELS = "image-level labels"


class ListFacts(Strict):
    """A list of images by content."""

    split: str
    num_images: int
    sha256: str
    """Of the sorted ids, a newline after each."""


class DataFacts(Strict):
    """What a verdict needs to know about a data set."""

    trained: ListFacts
    scored: ListFacts
    labels_from_mask: int
    """Training images without XML, whose image-level labels come from their masks."""


State = Literal["same", "differs", "note"]
"""differs: such a run calibrates nothing; note: not exactly IRN's, or for a person to judge."""


@dataclass(config=Strict.model_config)
class Point:
    """One point of the comparison."""

    name: str
    reference: str
    """IRN's."""
    found: str
    state: State


def data_facts(sweep: Sweep, report: "DataReport") -> DataFacts:
    """Read the sweep's lists. Raises DataError if they cannot be read."""
    from wsss.data.check_splits import split_digest
    from wsss.data.voc import VocDataset

    lists = VocDataset(sweep.data)

    def facts(split: str) -> ListFacts:
        ids = lists.image_ids(split)
        return ListFacts(split=split, num_images=len(ids), sha256=split_digest(ids))

    data = sweep.base.data
    return DataFacts(
        trained=facts(data.train_split),
        scored=facts(data.eval_split),
        labels_from_mask=report.labels_from_mask[data.train_split],
    )


def is_full_voc(root: Path) -> bool:
    """Return whether a folder has the train_aug and train lists of the full VOC 2012.

    Raises DataError if it is not a data set.
    """
    from wsss.data.check_splits import is_official
    from wsss.data.errors import DataError
    from wsss.data.voc import VocDataset

    lists = VocDataset(root)
    try:
        return all(is_official(split, lists.image_ids(split)) for split in ("train_aug", "train"))
    except DataError:
        return False  # a list is missing or broken; the sweep says so


def compare(sweep: Sweep, store: Store, facts: DataFacts) -> tuple[Point, ...]:
    """Return all points in the order in which to look. Every trial of the sweep is finished."""
    trials = sweep.plan.trials
    metrics = [found for trial in trials if (found := store.run(trial.run_id).result())]
    epochs = [store.cam(trial.cam_id).epochs() for trial in trials]
    steps = [[loss for e in one for loss in e.get("step_losses", ())] for one in epochs]
    return (
        _weights(sweep),
        _list("training images", facts.trained, "train_aug"),
        _list("scored images", facts.scored, "train"),
        _labels(facts),
        _threshold(metrics),
        _settings(trials[0].config),
        _iterations(steps),
        _losses(steps),
        _versions(metrics),
    )


def _point(name: str, reference: str, found: str, *, same: bool) -> Point:
    return Point(name, reference, found, "same" if same else "differs")


def _weights(sweep: Sweep) -> Point:
    network = sweep.base.network
    same, found = False, network.weights
    if network.weights.startswith("sha256:"):
        name = V1_FILES.get(network.weights[7:15])
        same = name is not None
        found = f"a file, {network.weights[:23]}..., {name or 'neither of the two'}"
    elif network.backbone == "resnet50" and network.weights == "imagenet_v1":
        same, found = True, f"imagenet_v1, {V1_FILES['0676ba61']}"
    reference = f"ImageNet weights of {V1_FILES['19c8e357']} or {V1_FILES['0676ba61']}"
    return _point("initial weights", reference, found, same=same)


def _settings(config: RunConfig) -> Point:
    """Compare every setting that no other point compares. config: canonical, as every trial's."""
    ours, irns = config.flat(), canonical(IRN).flat()
    found = [
        f"{key} {as_word(ours[key])} (IRN: {as_word(irns[key])})"
        for key in irns
        if key not in NOT_COMPARED and ours[key] != irns[key]
    ]
    return _point("settings", "the preset irn", ", ".join(found) or "as there", same=not found)


def _list(name: str, found: ListFacts, split: str) -> Point:
    from wsss.data.check_splits import OFFICIAL_SPLITS

    official = OFFICIAL_SPLITS[split]
    same = found.sha256 == official.sha256
    other = "" if same else ", another list"
    if not same and found.num_images == official.num_images:
        other += " of the same length: restore it with `wsss data prepare`"
    return _point(
        name,
        f"{split}, {official.num_images:,} images, SHA-256 {official.sha256[:12]}...",
        f"{found.split}, {found.num_images:,} images, SHA-256 {found.sha256[:12]}...{other}",
        same=same,
    )


def _labels(facts: DataFacts) -> Point:
    """Say where image-level labels come from. VOC 2012 has an XML for each image of train_aug."""
    total, masks = facts.trained.num_images, facts.labels_from_mask
    remedy = "; give VOC 2012's whole Annotations folder" if masks else ""
    found = f"{total - masks:,} of {total:,} from XML, {masks:,} from masks{remedy}"
    reference = "all from VOC's XML, those of SBD's images too"
    return Point(LABELS, reference, found, "note" if masks else "same")


def _threshold(metrics: list[dict[str, Any]]) -> Point:
    """Say what the fixed score and the best threshold give: maps may only be scaled otherwise."""
    fixed, best = (fmean(m[key] for m in metrics) for key in ("miou_fixed", "miou_best"))
    ours, irns = metrics[0]["fixed_threshold"], IRN.labels.background_score
    found = (
        f"{ours:g}, which gives {fixed:.2f} mIoU; the best threshold "
        f"({', '.join(format(m['best_threshold'], 'g') for m in metrics)}) gives {best:.2f}, whose "
        "choice saw the masks"
    )
    return _point("background score", f"{irns:g}", found, same=ours == irns)


def _iterations(steps: list[list[float]]) -> Point:
    counts = sorted({len(one) for one in steps})
    found = " and ".join(f"{count:,}" for count in counts) + " recorded"
    same = counts == [AUTHOR_STEPS]
    return Point("iterations", f"{AUTHOR_STEPS:,}", found, "same" if same else "note")


def _losses(steps: list[list[float]]) -> Point:
    """Compare the losses with the author's, to tell training from scoring as a cause."""
    known = [step for step in AUTHOR_LOSSES if all(len(one) > step for one in steps)]
    if not known:
        log = f"the author's log, {AUTHOR_LOG}"
        return Point("losses", log, "fewer than 101 steps recorded", "note")
    # The author's meter is reset after step 0, 100, 200, ...
    means = {step: fmean(fmean(one[step - 99 : step + 1]) for one in steps) for step in known}
    found, theirs = (
        ", ".join(f"{step}: {losses[step]:.4f}" for step in known)
        for losses in (means, AUTHOR_LOSSES)
    )
    reference = f"mean L_cls of 100 steps up to {theirs} ({AUTHOR_LOG})"
    return Point("losses", reference, found, "note")


def _versions(metrics: list[dict[str, Any]]) -> Point:
    names = ("torch", "torchvision", "numpy", "pillow", "device", "processes", "code_version")
    machines = dict.fromkeys(
        ", ".join(f"{name} {m['environment'][name]}" for name in names if name in m["environment"])
        for m in metrics
    )
    reference = "no fixed ones: the known runs differ in them"
    return Point("versions", reference, "; ".join(machines), "note")
