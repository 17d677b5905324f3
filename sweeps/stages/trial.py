"""What a Tune trial does: for tables all scores of one training, for a search one draw.

A search assesses its training after each epoch. This reads pixel masks of the search half and
changes neither the network nor any random stream. Masks of the held-out half are read only at the
end of the search.

Runs in one process or on every rank of several; plain torch, no Ray and no MLflow.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from sweeps.plan.cost import inferred_pixels, num_views
from sweeps.plan.search import split_halves
from sweeps.stages.score import Count, Score
from sweeps.stages.stage import EndedEarlyError, Place, complete
from sweeps.stages.train_cam import TrainCam, trained_cam
from sweeps.store.code_version import code_version
from sweeps.store.errors import StoreError
from sweeps.store.failures import note_of, write_note
from wsss.basics.errors import ForeseenError
from wsss.config import RunConfig
from wsss.evaluation.confusion import ThresholdCounts, mean_iou, threshold_index
from wsss.evaluation.counting import collected, count_each
from wsss.evaluation.score import score_counts
from wsss.identity import run_id
from wsss.labels.infer import infer_cams
from wsss.networks.cam_net import CamNet
from wsss.training.diagnosis.learning import NotLearningError
from wsss.training.loop import DivergedError

ON_ALL_RANKS = (DivergedError, NotLearningError)
"""Errors that all ranks of a training raise at the same iteration."""


def run_trial(config: RunConfig, place: Place) -> Iterator[dict[str, Any]]:
    """Complete the score of a configuration; yield progress as flat records.

    Every record has `epoch` and `progress` in [0, 1]; an epoch's record also has its losses, any
    its warnings, the last one the score. Nothing is yielded for a finished run. All ranks yield
    equally often.
    """
    score, last = Score(config), float(config.train.epochs)
    if place.first(lambda: score.is_done(place)):
        return
    share = _training_share(config)
    for record in complete(score, place):
        if not (record.progress or record.numbers):
            continue  # its training would have no epoch
        if isinstance(record.stage, Count):
            progress = share + (0.99 - share) * record.progress
        else:
            progress = share * record.progress
        yield {"epoch": last, **record.numbers, "progress": progress}
    found = place.store.run(run_id(config)).result() if place.process.is_first else None
    figures = {key: found[key] for key in ("miou_fixed", "miou_best")} if found else {}
    yield {"epoch": last, "progress": 1.0} | figures


def run_group(configs: Sequence[RunConfig], place: Place) -> Iterator[dict[str, Any]]:
    """Complete the scores of configurations that share a training, one after the other.

    Yields what `run_trial` does, with `run`: the id of the run concerned. A foreseen error is
    recorded as the run's failure and not raised, as a restart would meet it again: the run's last
    record has it as `failed`. If the training raised it, the other runs fail with it. An unexpected
    error leaves a note for the driver and is raised, so that the trial is restarted.
    """
    code_version()  # now, while the sources are still those that were imported
    failed: ForeseenError | None = None
    for config in configs:
        run = place.store.run(run_id(config))
        if failed is not None:
            yield _failed(config, place, failed)
            continue
        if config is not configs[0] and not place.first(lambda: Score(config).is_done(place)):  # noqa: B023
            # From now on, the driver looks for notes of an error or a hang in this run's folder.
            yield {"epoch": float(config.train.epochs), "progress": 0.0, "run": run_id(config)}
        try:
            for record in run_trial(config, replace(place, stack_folder=run.path)):
                yield record | {"run": run_id(config)}
        except (StoreError, EndedEarlyError):
            raise  # a full disk or unreachable bucket may be mended by the time of the restart
        except ForeseenError as error:
            if place.process.world_size > 1 and not isinstance(error, ON_ALL_RANKS):
                raise  # perhaps only this rank met it, and the others wait
            yield _failed(config, place, error)
            if not place.first(lambda: TrainCam(config).is_done(place)):  # noqa: B023 - called now
                failed = error
        except Exception as error:
            write_note(run.path, note_of(error))
            raise


def _failed(config: RunConfig, place: Place, error: BaseException) -> dict[str, Any]:
    """Write why a run failed, and upload it; return the run's last record."""
    run, note = place.store.run(run_id(config)), note_of(error)
    if place.process.is_first:
        run.fail(note.kind, note.message, note.traceback)
    why = f"{note.kind}: {note.message}"
    return {"epoch": 0.0, "progress": 1.0, "failed": why, "run": run_id(config)}


def _training_share(config: RunConfig) -> float:
    """Estimate the share of a trial's time that training takes; for progress displays only."""
    training = config.train.epochs * 3 * num_views(config)
    return training / (training + 2 * inferred_pixels(config))


def search_trial(
    config: RunConfig, objective: str, place: Place, *, held_out: bool = False
) -> Iterator[dict[str, Any]]:
    """Train what is missing of a trial; yield epoch, objective and threshold after each epoch.

    objective: `best` or `fixed`; the value is the mIoU of the search half in percent. It saw this
    half's pixel masks, and so did the threshold unless it is the fixed score. The last epoch's
    record comes once the training is complete in the store, so a trial that has yielded it can be
    stopped without loss. While the training is at the label prior, records have its `warning`, too.
    Raises DivergedError and NotLearningError as `train_cam` does.

    held_out: add `held_out` to the last record: the mIoU of the held-out half in percent, at the
    threshold that the search half chose. The pixel masks of the held-out half only score it.
    """
    dataset, labels = place.dataset, config.labels
    halves = split_halves(dataset.image_ids(config.data.eval_split))

    def count(model: CamNet, image_ids: list[str]) -> ThresholdCounts:
        samples = [dataset.sample(image_id) for image_id in image_ids]
        images = infer_cams(model, samples, labels, device=place.process.device)
        return collected(count_each(images, dataset, labels), dataset, labels)

    def assess(model: CamNet, epoch: int) -> dict[str, float]:
        score = score_counts(count(model, halves.search), labels)
        best = score.miou_best, score.best_threshold
        fixed = score.miou_fixed, score.fixed_threshold
        value, threshold = best if objective == "best" else fixed
        return {"epoch": float(epoch), "objective": value, "threshold": threshold}

    warned: dict[str, Any] = {}
    for record in complete(TrainCam(config, assess), place):
        numbers = record.numbers
        if not numbers:
            continue
        if "warning" in numbers:
            warned = {"warning": numbers["warning"]}
        else:
            warned = warned if numbers["collapsed"] else {}
            if "objective" in numbers:
                kept = ("epoch", "objective", "threshold")
                yield {key: numbers[key] for key in kept} | warned
    model = trained_cam(config, place)
    last: dict[str, Any] = assess(model, config.train.epochs) | warned
    if held_out:
        counts = count(model, halves.held_out)
        at = threshold_index(counts.thresholds, last["threshold"])
        last["held_out"] = float(100 * mean_iou(counts.confusions()[at]))
    yield last
