"""Ray Tune under a `Dispatch`, which says what to start next and is told what happens.

Each attempt at a target is a trial of Tune, which Tune itself never restarts, stops or restores.
The functions at the end run in the trials' processes.
"""

import logging
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

import ray
from ray import cloudpickle, tune
from ray.exceptions import ActorUnavailableError, RayActorError
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.search import Searcher

from sweeps.plan.search import Search
from sweeps.run.dispatch import Dispatch, Source, T
from sweeps.run.faults import Break, Cause, unexplained
from sweeps.run.ray.ending import AskedToEnd, ask_to_end
from sweeps.run.ray.resources import Resources
from sweeps.stages.stage import EndedEarlyError, Place
from sweeps.store.errors import StoreError, comes_again
from sweeps.store.failures import failure_kind, note_of, write_note
from wsss.basics.errors import ForeseenError
from wsss.config import RunConfig
from wsss.identity import cam_id

if TYPE_CHECKING:  # it loads torch
    from wsss.training.process import Process


@dataclass
class TuneRunner(Generic[T]):
    """Runs the targets of a source as trials of Tune."""

    source: Source[T]
    work: Callable[..., Any]
    """Does a target in a process of its own, given its `space`, what is `shared`, and `resources`:
    a generator of records without workers, else what starts them."""
    shared: dict[str, Any]
    space: Callable[[T], dict[str, Any]]
    """Small, as Tune copies it with every report."""
    folder: Path
    """Tune's own folder, which is never read again."""
    resources: Resources

    def run(self, dispatch: Dispatch[T], at_once: int) -> None:
        """Run a dispatch's targets, `at_once` at a time, until it has no more or says stop."""
        os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # it writes unused files
        # These would report every attempt that broke off as a failed trial, with a traceback.
        os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
        logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
        targets = _Targets(dispatch, self.space)
        events = _Events(dispatch, targets, in_one_process=self.resources.inline)
        shared = self.shared | {"resources": self.resources}
        if self.resources.inline:
            trainable = tune.with_parameters(InOneProcess, generate=self.work, **shared)
        else:
            trainable = tune.with_parameters(self.work, **shared)
        tune.Tuner(
            tune.with_resources(trainable, self.resources.of_a_trial()),
            tune_config=tune.TuneConfig(
                search_alg=targets,
                num_samples=-1,  # as many as `targets` gives
                max_concurrent_trials=at_once,
                reuse_actors=self.resources.inline,
            ),
            run_config=tune.RunConfig(
                name=self.folder.name,
                storage_path=str(self.folder.parent),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[events],
                stop=events,
                verbose=0,
            ),
        ).fit()


class _NotKept:
    """Pickled as nothing: Tune pickles what it is given, but a dispatch has threads."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Targets(_NotKept, Searcher, Generic[T]):  # type: ignore[misc]  # ray is untyped
    """Gives Tune the targets of a dispatch."""

    def __init__(self, dispatch: Dispatch[T], space: Callable[[T], dict[str, Any]]) -> None:
        super().__init__()
        self.dispatch, self.space = dispatch, space
        self.run_ids: dict[str, str] = {}
        """Tune's id of an attempt -> run id of its target."""

    def suggest(self, trial_id: str) -> Any:
        """Return the next target's space; None if there is none for now."""
        target = self.dispatch.next()
        if target is None:
            # At the end, None would make Tune wait ten minutes for another one.
            return None if self.dispatch.out else self.FINISHED
        self.run_ids[trial_id] = target.run_id
        return self.space(target)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:  # noqa: FBT001, FBT002
        """Do nothing: _Events is told the same, and more."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Save nothing: what is missing is read from the store."""


class _Events(_NotKept, tune.Stopper, tune.Callback):  # type: ignore[misc]
    """Tells a dispatch when trials start, report and end.

    After each report, Tune asks its stopper whether to end the trial.
    """

    def __init__(
        self, dispatch: Dispatch[T], targets: _Targets[T], *, in_one_process: bool
    ) -> None:
        self.dispatch, self.targets, self.in_one_process = dispatch, targets, in_one_process
        self.word: Any = None
        """With which the trials were asked to end."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether to end a trial that has reported. Tune passes its end as a report, too."""
        if result.get("done"):
            return False
        return self.dispatch.reported(self.targets.run_ids[trial_id], result)

    def stop_all(self) -> bool:
        """Whether to start nothing more and end what waits to start; called at every step.

        Not what runs: that is asked to end, as Tune kills a process ten seconds after it told it.
        """
        if self.word is None and self.dispatch.is_ending():
            self.word = ask_to_end()
        return self.word is not None and self.dispatch.has_ended()

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial's process has started."""
        self.dispatch.begun(self.targets.run_ids[trial.trial_id])

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial has ended, or was told to."""
        if self.in_one_process:  # Tune may keep the process for another trial, for hours
            trial.temporary_state.ray_actor.cleanup.remote()
        self.dispatch.ended(self.targets.run_ids[trial.trial_id])

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial's process ended unexpectedly."""
        self.dispatch.broke(break_of(self.targets.run_ids[trial.trial_id], error_of(trial)))


def error_of(trial: Any) -> BaseException | None:
    """Return the error with which a trial of Tune ended.

    Read from Tune's local folder, where this process has just written it; the copy that
    `trial.get_pickled_error` reads is made later.
    """
    try:
        found = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    except (OSError, TypeError):
        return None
    return found if isinstance(found, BaseException) else None


def break_of(run_id: str, error: BaseException | None) -> Break:
    """Return what an error of Ray's says of the end of a trial's process."""
    details = str(error or "")
    if lost_its_node(error):
        return unexplained(run_id, "preempted", "its node was lost", details)
    if isinstance(cause := getattr(error, "cause", None), ForeseenError):
        # The process may have left no note here, and of a store's error leaves none.
        how: Cause = "failed" if comes_again(cause) else "killed"
        return Break(run_id, how, replace(note_of(cause), traceback=details))
    lines = (details or "the process ended without an error").strip().splitlines()
    words = lines[0 if isinstance(error, RayActorError) else -1]
    return unexplained(run_id, "killed", words, details)


def lost_its_node(error: BaseException | None) -> bool:
    """Whether a process ended with this error because its machine was lost."""
    if not isinstance(error, RayActorError):
        return False
    if isinstance(error, ActorUnavailableError):
        # A host without power: nothing there can report it, and the head takes up to half a minute
        # to notice. A process that dies on a living host is reported as dead.
        return len(ray.nodes()) > 1
    return bool(error.preempted) or "node has died" in str(error)


# In a trial's process, where torch is imported: so the driver starts seconds earlier

Records = Generator[dict[str, Any], None, None]


class InOneProcess(tune.Trainable):  # type: ignore[misc]
    """Works through a generator in a trial's process, one record a step.

    When a trial ends, early or not, its generator is closed between two steps. So its locks are
    released at once, and before the process ends.
    """

    def setup(
        self, config: dict[str, Any], generate: Callable[..., Records], **shared: Any
    ) -> None:
        """Begin a trial. generate: called with the trial's space and what all trials share."""
        from sweeps.run.ray.train import end_with_raylet

        end_with_raylet()
        self.start = partial(generate, **shared)
        self.records = self.start(config)

    def step(self) -> dict[str, Any]:
        """Return the next record."""
        try:
            return next(self.records, {"done": True})
        except EndedEarlyError:
            return {"done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in the same process."""
        self.records = self.start(new_config)
        return True

    def cleanup(self) -> None:
        """End the trial."""
        self.records.close()


Groups = Mapping[str, tuple[RunConfig, ...]]
"""Id of a training -> the configurations that share it."""


def sweep_trial(
    space: dict[str, Any], groups: Groups, place: Place, resources: Resources
) -> Records:
    """Train `space["cam_id"]` and complete its scores in this process."""
    from wsss.training.process import Process, pick_device

    process = Process(device=pick_device(resources.cpus))
    yield from on_one_rank((groups[space["cam_id"]], place), process)


def distributed_trial(
    space: dict[str, Any], groups: Groups, place: Place, resources: Resources
) -> None:
    """Do the same on workers of Ray Train, which this process starts."""
    from sweeps.run.ray.train import end_with_raylet, fit

    end_with_raylet()
    key = space["cam_id"]
    try:
        fit(
            on_one_rank,
            (groups[key], place),
            resources,
            folder=place.store.root / "ray_train" / key,
            callbacks=[TuneReportCallback()],
        )
    except EndedEarlyError:
        tune.report({"done": True})  # Tune prints a line on a trial that never reported


def on_one_rank(
    item: tuple[tuple[RunConfig, ...], Place], process: "Process"
) -> Iterator[dict[str, Any]]:
    """Do this rank's part of a training and its scores. item: their configurations and place."""
    from sweeps.stages.trial import run_group

    configs, place = item
    return run_group(configs, replace(place, rank=process, is_ending=AskedToEnd()))


def drawn_trial(
    space: dict[str, Any], search: Search, place: Place, resources: Resources
) -> Records:
    """Run a trial of a search with the drawn `space["settings"]`.

    A training that diverged or does not learn scores 0 % and is not repeated. Any other error but
    the store's leaves a note for the driver. `space["held_out"]`: whether to score it on the
    held-out half, too.
    """
    from sweeps.stages.trial import search_trial
    from wsss.training.diagnosis.learning import NotLearningError
    from wsss.training.loop import DivergedError
    from wsss.training.process import Process, pick_device

    config, epoch = search.config(space["settings"]), 0.0
    folder = place.store.cam(cam_id(config)).path
    # Without a watchdog: to assess an epoch may take as long as a whole inference.
    process = Process(device=pick_device(resources.cpus))
    place = replace(place, rank=process, is_ending=AskedToEnd())
    try:
        for record in search_trial(config, search.objective, place, held_out=space["held_out"]):
            epoch = record["epoch"]
            yield record
    except (DivergedError, NotLearningError) as error:
        worst = {"epoch": epoch + 1, "objective": 0.0, "threshold": 0.0}
        yield {**worst, "failed": failure_kind(error), "message": str(error)}
    except (StoreError, EndedEarlyError):
        raise  # e.g. another process holds the training, and will release it
    except Exception as error:
        write_note(folder, note_of(error))
        raise
