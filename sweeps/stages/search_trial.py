"""One trial of a search: train epoch by epoch, judge each epoch on the search half.

The training is a normal one, kept in the store under its cam_id; judging it reads pixel masks of
the search half and disturbs neither the network nor any random stream. Only `held_out_trial` reads
masks of the held-out half, after the search.
"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from filelock import Timeout

from sweeps.plan.search import split_halves
from sweeps.stages.remote_trial import RemoteTrial
from sweeps.stages.search_task import SearchTask
from sweeps.stages.training_lock import LOCK_WAIT_SECONDS
from sweeps.stages.training_warnings import to_record
from sweeps.store.lease import STALE_SECONDS, Lease
from sweeps.store.store import CamFolder, StoreError, write_config, write_json
from wsss.config import RunConfig
from wsss.data.voc import Sample, VocDataset
from wsss.evaluation.confusion import (
    ThresholdCounts,
    collect,
    count_image,
    mean_iou,
    threshold_grid,
    threshold_index,
)
from wsss.evaluation.score import score_counts
from wsss.identity import cam_id
from wsss.labels.infer import infer_cams
from wsss.networks.cam_net import CamNet
from wsss.training.cam import build_cam_net, train_cam
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.prior import PriorLimits, PriorWarning
from wsss.training.process import Process

NOTE = "a search"
"""Of who holds a training, for a table's trial which waits for it."""


def search_trial(task: SearchTask, process: Process) -> Iterator[dict[str, float]]:
    """Train what is missing of a trial; yield epoch, objective and threshold after each epoch.

    objective: mIoU of the search half in percent, which saw its pixel masks, as did the threshold
    unless the fixed score is asked for. The last epoch's record comes once the training is complete
    in the store, so a trial that has yielded it may be stopped without loss. A record of a training
    that is still at the label prior has the numbers of its warning, too. Raises StoreError if
    another process trains the same, DivergedError and NotLearningError as `train_cam` does.
    """
    yield from _locked(task, process)


def held_out_trial(task: SearchTask, process: Process) -> Iterator[dict[str, float]]:
    """Run a trial to its end as `search_trial` does; add `held_out` to its last record.

    held_out: mIoU of the held-out half in percent, at the threshold which the search half chose: no
    pixel mask of the held-out half had a part in it, but for scoring it.
    """
    yield from _locked(task, process, score_held_out=True)


def _locked(
    task: SearchTask, process: Process, *, score_held_out: bool = False
) -> Iterator[dict[str, float]]:
    config, store = RunConfig.model_validate(task.config), task.open_store()
    cam = store.cam(cam_id(config))
    lock, holder = cam.lock(note=NOTE), cam.path / "holder.json"
    lease = lock if isinstance(lock, Lease) else None
    try:
        with lock.acquire(timeout=LOCK_WAIT_SECONDS + (STALE_SECONDS if lease else 0)):
            write_json(holder, {"run_id": NOTE})
            try:
                remote = RemoteTrial(store, config, process, lease)
                remote.start()
                training = _JudgedTraining(config, task, process, cam, remote)
                yield from training.run(held_out=score_held_out)
            finally:
                holder.unlink(missing_ok=True)
    except Timeout as held:
        where = str(held) if lease else str(cam.path)
        raise StoreError(
            f"{where}: another process is training this; wait for it or end it"
        ) from None


class _JudgedTraining:
    """One training and its judge, in one process."""

    def __init__(
        self, config: RunConfig, task: SearchTask, process: Process, cam: CamFolder,
        remote: RemoteTrial,
    ) -> None:  # fmt: skip
        self.config, self.task, self.process, self.cam = config, task, process, cam
        self.remote = remote
        self.warned: dict[str, float] = {}
        """What the training is warned of, as numbers, until it has left the label prior."""
        self.dataset = VocDataset(Path(task.data))
        self.num_classes = len(self.dataset.classes)
        self.halves = split_halves(self.dataset.image_ids(config.data.eval_split))

    def run(self, *, held_out: bool) -> Iterator[dict[str, float]]:
        """Yield a record per epoch that is trained here, and always one of the last epoch."""
        samples = self.dataset.samples(self.config.data.train_split)
        weights_file = Path(self.task.weights_file) if self.task.weights_file else None
        model = build_cam_net(self.config, samples, self.num_classes, weights_file=weights_file)
        write_config(self.cam.path / "config.json", self.config)
        yield from self.train(model, samples)
        last = self.judge(model, self.config.train.epochs) | self.warned
        if held_out:
            counts = self.count(model, self.halves.held_out)
            last["held_out"] = miou_at(counts, last["threshold"])
        yield last

    def train(self, model: CamNet, samples: list[Sample]) -> Iterator[dict[str, float]]:
        """Train from the last checkpoint to the end; yield records of all but the last epoch."""
        checkpoints = CheckpointFolder(self.cam.checkpoints, after_save=self.remote.after_save)
        epochs = self.config.train.epochs
        if self.cam.trained() and checkpoints.restore(model).epoch == epochs:
            return
        limits = PriorLimits(self.task.prior_warns_after, self.task.prior_fails_after)
        for record in train_cam(
            model, self.config, samples, self.num_classes, process=self.process,
            checkpoints=checkpoints, execution=self.task.execution, limits=limits,
        ):  # fmt: skip
            if isinstance(record, PriorWarning):
                self.warned = to_record(record)
                self.cam.warn(asdict(record) | {"message": str(record)})
                continue
            self.cam.add_epoch(asdict(record))
            self.warned = self.warned if record.collapsed else {}
            if record.epoch < epochs:
                judged = self.judge(model, record.epoch) | self.warned
                model.train()  # train_cam sets it only once, at its start
                yield judged
        write_json(self.cam.path / "trained.json", {"epochs": epochs})
        self.remote.push_training()

    def judge(self, model: CamNet, epoch: int) -> dict[str, float]:
        """Score the search half with the network as it is, left in evaluation mode."""
        labels = self.config.labels
        score = score_counts(self.count(model, self.halves.search), labels)
        best = self.task.objective == "best"
        return {
            "epoch": float(epoch),
            "objective": score.miou_best if best else score.miou_fixed,
            "threshold": score.best_threshold if best else score.fixed_threshold,
        }

    def count(self, model: CamNet, image_ids: list[str]) -> ThresholdCounts:
        """Infer these images' CAMs and count them against their pixel masks."""
        labels, num_labels = self.config.labels, self.num_classes + 1
        thresholds = threshold_grid(labels.background_score)
        samples = [self.dataset.sample(image_id) for image_id in image_ids]
        counted = []
        for sample, cams in infer_cams(model, samples, labels, device=self.process.device):
            mask = self.dataset.mask(sample.image_id)
            found = count_image(cams, sample.labels, mask, thresholds, num_labels)
            counted.append((sample.image_id, *found))
        return collect(counted, thresholds, num_labels)


def miou_at(counts: ThresholdCounts, threshold: float) -> float:
    """Return the mIoU in percent at one threshold of the grid."""
    at = threshold_index(counts.thresholds, threshold)
    return float(100 * mean_iou(counts.confusions()[at]))
