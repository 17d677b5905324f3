"""What a Tune trial does: the scores that hang on one training, watched over and never repeated.

Runs in one process or in every rank of several; plain torch, no Ray and no MLflow.
"""

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace

from sweeps.stages.score import Count, Score
from sweeps.stages.stage import Place, complete
from sweeps.stages.train_cam import TrainCam
from sweeps.store.code_version import code_version
from sweeps.store.failures import failure_kind, note_of, write_failure, write_note
from sweeps.store.store import StoreError
from wsss.config import RunConfig
from wsss.errors import ForeseenError
from wsss.identity import run_id
from wsss.training.loop import DivergedError
from wsss.training.prior import NotLearningError

ON_ALL_RANKS = (DivergedError, NotLearningError)
"""Errors which all ranks of a training raise at the same iteration."""


def run_trial(config: RunConfig, place: Place) -> Iterator[dict[str, float]]:
    """Complete the score of a configuration; yield progress as flat numbers.

    Every record has `epoch` and `progress` in [0, 1]; those of an epoch also have its losses, one
    of a warning what training_warnings.py makes of it, the last one the score. Nothing is yielded
    for a run that was finished before. All ranks yield equally often.
    """
    score, last = Score(config), float(config.train.epochs)
    if place.first(lambda: score.is_done(place)):
        return
    share = _training_share(config)
    for record in complete(score, place):
        if isinstance(record.stage, Count):
            progress = share + (0.99 - share) * record.progress
        else:
            progress = share * record.progress
        yield {"epoch": last, **record.numbers, "progress": progress}
    found = place.store.run(run_id(config)).metrics() if place.process.is_first else None
    figures = {key: found[key] for key in ("miou_fixed", "miou_best")} if found else {}
    yield {"epoch": last, "progress": 1.0} | figures


def run_group(configs: Sequence[RunConfig], place: Place) -> Iterator[dict[str, float]]:
    """Complete the scores of configurations that share a training, one after the other.

    Yields what `run_trial` does, with `run`: the index of the configuration it is about. A foreseen
    error is recorded as the run's result, not raised: it would come again, whereas other errors,
    and processes that die, are worth a restart. If it was the training's, it is the other runs'
    as well. Of an unforeseen error a note is left for the driver.
    """
    code_version()  # now, while the sources are those that were imported
    failed: ForeseenError | None = None
    for index, config in enumerate(configs):
        run = place.store.run(run_id(config))
        if failed is not None:
            _record_failure(config, place, failed)
            yield {"epoch": 0.0, "progress": 1.0, "failed": 1.0, "run": float(index)}
            continue
        try:
            for record in run_trial(config, replace(place, stack_folder=run.path)):
                yield record | {"run": float(index)}
        except StoreError:
            raise  # a disk that is full, a bucket that is away: the restart may find it mended
        except ForeseenError as error:
            if place.process.world_size > 1 and not isinstance(error, ON_ALL_RANKS):
                raise  # only this rank may have met it, and the others wait
            _record_failure(config, place, error)
            yield {"epoch": 0.0, "progress": 1.0, "failed": 1.0, "run": float(index)}
            if not place.first(lambda: TrainCam(config).is_done(place)):  # noqa: B023 - called now
                failed = error
        except Exception as error:
            write_note(run.path, note_of(error))
            raise


def _record_failure(config: RunConfig, place: Place, error: BaseException) -> None:
    """Write why a run failed, for everybody."""
    if place.process.is_first:
        trace = "".join(traceback.format_exception(error))
        folder = place.store.run(run_id(config))
        write_failure(folder.path, failure_kind(error), str(error), trace)
        folder.push()


def _training_share(config: RunConfig) -> float:
    """Guess the share of a trial's time that training takes; for progress displays only."""
    training = config.train.epochs * 3 * (1 + len(config.views.names))
    inference = sum(scale**2 for scale in config.labels.scales) * (2 if config.labels.flip else 1)
    return training / (training + 2 * inference)
