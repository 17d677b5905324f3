"""One trial of a search: train epoch by epoch, judge each epoch on the search half.

The training is the stage that tables train too; judging it reads pixel masks of the search half and
disturbs neither the network nor any random stream. Only `held_out_trial` reads masks of the
held-out half, after the search.
"""

from collections.abc import Iterator

from sweeps.plan.search import split_halves
from sweeps.stages.stage import Place, complete
from sweeps.stages.train_cam import TrainCam, trained_cam
from sweeps.stages.training_warnings import from_record, to_record
from wsss.config import RunConfig
from wsss.data.voc import VocDataset
from wsss.evaluation.confusion import (
    ThresholdCounts,
    collect,
    count_image,
    mean_iou,
    threshold_grid,
    threshold_index,
)
from wsss.evaluation.score import score_counts
from wsss.labels.infer import infer_cams
from wsss.networks.cam_net import CamNet


def search_trial(config: RunConfig, objective: str, place: Place) -> Iterator[dict[str, float]]:
    """Train what is missing of a trial; yield epoch, objective and threshold after each epoch.

    objective: best or fixed; yielded is the mIoU of the search half in percent, which saw its pixel
    masks, as did the threshold unless the fixed score is asked for. The last epoch's record comes
    once the training is complete in the store, so a trial that has yielded it may be stopped
    without loss. A record of a training that is still at the label prior has the numbers of its
    warning, too. Raises DivergedError and NotLearningError as `train_cam` does.
    """
    yield from _trial(config, objective, place, score_held_out=False)


def held_out_trial(config: RunConfig, objective: str, place: Place) -> Iterator[dict[str, float]]:
    """Run a trial to its end as `search_trial` does; add `held_out` to its last record.

    held_out: mIoU of the held-out half in percent, at the threshold which the search half chose: no
    pixel mask of the held-out half had a part in it, but for scoring it.
    """
    yield from _trial(config, objective, place, score_held_out=True)


def _trial(
    config: RunConfig, objective: str, place: Place, *, score_held_out: bool
) -> Iterator[dict[str, float]]:
    judge = _Judge(config, objective, place)
    warned: dict[str, float] = {}
    for record in complete(TrainCam(config, judge), place):
        numbers = dict(record.numbers)
        if warning := from_record(numbers):
            warned = to_record(warning)
        else:
            warned = warned if numbers["collapsed"] else {}
            if "objective" in numbers:
                kept = ("epoch", "objective", "threshold")
                yield {key: numbers[key] for key in kept} | warned
    model = trained_cam(config, place)
    last = judge(model, config.train.epochs) | warned
    if score_held_out:
        counts = judge.count(model, judge.halves.held_out)
        last["held_out"] = miou_at(counts, last["threshold"])
    yield last


class _Judge:
    """Scores the search half with a network as it is, left in evaluation mode."""

    def __init__(self, config: RunConfig, objective: str, place: Place) -> None:
        self.config, self.objective, self.place = config, objective, place
        self.dataset = VocDataset(place.data)
        self.halves = split_halves(self.dataset.image_ids(config.data.eval_split))

    def __call__(self, model: CamNet, epoch: int) -> dict[str, float]:
        """Return epoch, objective and threshold."""
        score = score_counts(self.count(model, self.halves.search), self.config.labels)
        best = self.objective == "best"
        return {
            "epoch": float(epoch),
            "objective": score.miou_best if best else score.miou_fixed,
            "threshold": score.best_threshold if best else score.fixed_threshold,
        }

    def count(self, model: CamNet, image_ids: list[str]) -> ThresholdCounts:
        """Infer these images' CAMs and count them against their pixel masks."""
        labels, num_labels = self.config.labels, len(self.dataset.classes) + 1
        thresholds = threshold_grid(labels.background_score)
        samples = [self.dataset.sample(image_id) for image_id in image_ids]
        counted = []
        for sample, cams in infer_cams(model, samples, labels, device=self.place.process.device):
            mask = self.dataset.mask(sample.image_id)
            found = count_image(cams, sample.labels, mask, thresholds, num_labels)
            counted.append((sample.image_id, *found))
        return collect(counted, thresholds, num_labels)


def miou_at(counts: ThresholdCounts, threshold: float) -> float:
    """Return the mIoU in percent at one threshold of the grid."""
    at = threshold_index(counts.thresholds, threshold)
    return float(100 * mean_iou(counts.confusions()[at]))
