"""The thread that logs beside a sweep: it keeps up, and lets go when the sweep ends."""

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest
from finished import finish, finished_sweep
from mlflow.tracking import MlflowClient

from sweeps.plan.trials import Trial
from sweeps.store.store import Store
from sweeps.track.thread import GROUP, TrackingThread
from sweeps.track.tracker import Tracker
from wsss.training.checkpoint_names import checkpoint_name

TRIALS = finished_sweep(("V",), 3).plan.trials
"""45 trials and more: several groups."""


class SlowTracker:
    """Takes part in the first synchronisation only when it is let."""

    uri, problem = "nowhere", None

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        self.synced: list[str] = []

    def sync(self, trials: Iterable[Trial], *, running: frozenset[str] = frozenset()) -> bool:
        self.entered.set()
        assert self.go.wait(30)
        self.synced += [trial.run_id for trial in trials]
        return True


def thread_of(tracker: Any) -> TrackingThread:
    return TrackingThread(cast(Tracker, tracker), lambda text: None)


def test_every_trial_is_logged_while_the_sweep_goes_on() -> None:
    tracker = SlowTracker()
    tracker.go.set()
    with thread_of(tracker) as thread:
        for trial in TRIALS:
            thread.notice(trial, running=frozenset())
        for _ in range(300):
            if len(tracker.synced) >= len(TRIALS):
                break
            threading.Event().wait(0.1)
        assert set(tracker.synced) == {trial.run_id for trial in TRIALS}


def test_a_thread_far_behind_lets_go_and_writes_nothing_after_the_sweep_has_ended() -> None:
    """Else it and the last synchronisation would both create the runs of the same trials."""
    tracker = SlowTracker()
    thread = thread_of(tracker)
    thread.__enter__()
    thread.notice(TRIALS[0], running=frozenset())
    assert tracker.entered.wait(30)  # it is at work on the first one
    for trial in TRIALS:
        thread.notice(trial, running=frozenset())
    threading.Timer(0.5, tracker.go.set).start()
    thread.__exit__(None, None, None)
    assert not thread.thread.is_alive()
    assert len(TRIALS) > 4 * GROUP
    assert tracker.synced == [TRIALS[0].run_id]


def test_notices_of_one_trial_that_pile_up_are_logged_once() -> None:
    tracker = SlowTracker()
    with thread_of(tracker) as thread:
        thread.notice(TRIALS[0], running=frozenset())
        assert tracker.entered.wait(30)
        for _ in range(50):
            thread.notice(TRIALS[1], running=frozenset())
        tracker.go.set()
        for _ in range(300):
            if TRIALS[1].run_id in tracker.synced:
                break
            threading.Event().wait(0.1)
        assert tracker.synced == [TRIALS[0].run_id, TRIALS[1].run_id]


def test_the_newest_checkpoint_is_the_artifact_of_a_finished_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    store, sweep = Store(tmp_path), finished_sweep(("VI",), 1)
    trial = sweep.plan.trials[0]
    finish(store, trial, 0.5, gallery=True)
    (store.run(trial.run_id).path / "threshold_curve.png").touch()
    folder = store.cam(trial.cam_id).checkpoints
    folder.mkdir()
    for name in (checkpoint_name(3), checkpoint_name(2, 90)):
        (folder / name).touch()
    tracker = Tracker(store, sweep)
    assert tracker.sync([trial]), tracker.problem
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("wsss")
    assert experiment is not None
    wanted = f"tags.`wsss.run_id` = '{trial.run_id}'"
    (run,) = client.search_runs([experiment.experiment_id], wanted)
    logged = client.list_artifacts(run.info.run_id, "checkpoint")
    assert [artifact.path for artifact in logged] == [f"checkpoint/{checkpoint_name(3)}"]


def test_a_trial_keeps_its_run_and_gets_another_when_that_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    sweep, at_work = finished_sweep(("VI",), 1), frozenset({TRIALS[0].run_id})
    tracker = Tracker(Store(tmp_path), sweep)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")

    def runs_of_the_trial() -> list[str]:
        assert tracker.sync(TRIALS[:1], running=at_work), tracker.problem
        experiment = client.get_experiment_by_name("wsss")
        assert experiment is not None
        wanted = f"tags.`wsss.run_id` = '{TRIALS[0].run_id}'"
        found = client.search_runs([experiment.experiment_id], wanted)
        return [run.info.run_id for run in found]

    first = runs_of_the_trial()
    assert len(first) == 1
    assert runs_of_the_trial() == first
    client.delete_run(first[0])
    second = runs_of_the_trial()
    assert len(second) == 1
    assert second != first
