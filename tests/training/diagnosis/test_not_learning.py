"""Trainings that do not learn or diverge, as a person sees them: at once, wherever one looks."""

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from made_up.finished import cell, finish, finished_sweep, status_of
from made_up.planned import SEARCH
from rich.console import Console

from sweeps.plan.search import History, SearchTrial, ranking
from sweeps.plan.states import read_states
from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Trial
from sweeps.report.formats.html import html
from sweeps.report.formats.markdown import markdown
from sweeps.report.formats.write import as_text
from sweeps.report.live.progress import Board
from sweeps.report.search import search_document
from sweeps.report.tables.closing import closing
from sweeps.report.tables.document import measured, remarks, sweep_document
from sweeps.report.tables.model import build_report
from sweeps.run.ray import tune as trials
from sweeps.run.ray.resources import Resources
from sweeps.run.subjects.search import Draws
from sweeps.stages.stage import Conduct, Place
from sweeps.store.failures import DIVERGED, NOT_LEARNING, failure_kind, meanings
from sweeps.store.store import Store
from sweeps.track.thread import TrackingThread
from wsss.config import RunConfig
from wsss.identity import cam_id
from wsss.training.diagnosis.learning import NotLearningError, PriorLimits, PriorWarning
from wsss.training.loop import DivergedError

WARNING = PriorWarning(100, 0.2456, 0.2431)
WORDS = "not clearly below the label prior after 100 iterations: L_cls is 0.2456"


@pytest.fixture
def sweep() -> Sweep:
    """Table VI, one seed: 4 trials."""
    return finished_sweep(("VI",), 1)


def warn(store: Store, trial: Trial) -> None:
    store.cam(trial.cam_id).warn({"iteration": 100, "message": str(WARNING)})


def left_the_prior(store: Store, trial: Trial) -> None:
    for epoch, collapsed in ((1, 1.0), (2, 0.0)):
        record = {"epoch": epoch, "collapsed": collapsed, "step_losses": [1.0] * 60}
        store.cam(trial.cam_id).add_epoch(record)


def test_kinds_of_failures_have_words_and_meanings() -> None:
    assert failure_kind(DivergedError("")) == DIVERGED
    assert failure_kind(NotLearningError("")) == NOT_LEARNING
    assert failure_kind(MemoryError()) == "MemoryError"
    found = meanings([NOT_LEARNING, "MemoryError", DIVERGED, NOT_LEARNING])
    assert [kind for kind, _ in found] == [NOT_LEARNING, DIVERGED]


def test_a_failed_cell_of_a_report_names_seed_and_kind_and_leaves_the_message_to_the_remarks(
    store: Store, sweep: Sweep
) -> None:
    run = store.run(cell(sweep, "yes,no").run_id)
    run.fail(NOT_LEARNING, "not below: L_cls is 1: raise it", "trace")
    (table,) = build_report(sweep, store).tables
    found = table.cells["VI[yes,no]"]
    assert measured(found) == "failed (seed 0: not learning)"
    assert "VI[yes,no] failed: seed 0: not learning: not below: L_cls is 1: raise it" in remarks(
        table
    )


def test_the_status_shows_a_warning_until_the_training_has_left_the_prior(
    store: Store, sweep: Sweep
) -> None:
    trial = cell(sweep, "yes,no")
    warn(store, trial)
    assert read_states(store, sweep.plan.trials)[trial.run_id].status == "started"
    shown = status_of(store, sweep)
    assert "at the prior" in shown
    assert f"warning: VI[yes,no] seed 0: {WORDS}" in shown
    left_the_prior(store, trial)
    shown = status_of(store, sweep)
    assert "at the prior" not in shown
    assert "warning" not in shown


def test_a_failed_trial_is_not_warned_of_as_well(store: Store, sweep: Sweep) -> None:
    trial = cell(sweep, "yes,no")
    warn(store, trial)
    store.run(trial.run_id).fail(NOT_LEARNING, "still there", "trace")
    assert "warning" not in status_of(store, sweep)
    assert "failed: VI[yes,no] seed 0: not learning: still there" in status_of(store, sweep)
    assert "Warnings" not in closing(build_report(sweep, store))


def test_the_board_shows_a_warning_while_it_lasts(sweep: Sweep) -> None:
    board = Board(sweep, Console(file=io.StringIO(), width=160, color_system=None))
    trial = cell(sweep, "no,no")
    board.update(trial, status="running", record={"epoch": 1.0, "warning": str(WARNING)})

    def view() -> str:
        with board.console.capture() as captured:
            board.console.print(board.view())
        return captured.get()

    assert "at the prior" in view()
    board.update(trial, status="running", record={"epoch": 1.0, "progress": 0.2, "collapsed": 1.0})
    assert "at the prior" in view()
    board.update(trial, status="running", record={"epoch": 2.0, "progress": 0.3, "collapsed": 0.0})
    assert "at the prior" not in view()


def test_the_tracking_thread_hears_of_a_warning_in_mid_epoch(sweep: Sweep) -> None:
    nowhere: Any = None
    thread, trial = TrackingThread(nowhere, print), cell(sweep, "no,no")

    def is_noticed(status: str, **record: Any) -> bool:
        thread.pending.clear()
        thread.update(trial, status=status, record={"epoch": 0.0} | record)
        return bool(thread.pending)

    assert is_noticed("running")
    assert not is_noticed("running")
    assert is_noticed("running", warning=str(WARNING))
    assert is_noticed("done")


def test_the_report_lists_failures_with_their_meaning_and_warnings(
    store: Store, sweep: Sweep
) -> None:
    failed, warned = cell(sweep, "no,no"), cell(sweep, "yes,no")
    store.run(failed.run_id).fail(NOT_LEARNING, "still there", "trace")
    finish(store, warned, 0.3)
    warn(store, warned)
    document = sweep_document(build_report(sweep, store))
    for text in (as_text(document, width=400), markdown(document), html(document)):
        plain = text.replace("\\", "")
        assert "not learning: still there" in plain
        assert "as if the network saw no image" in plain
        assert WORDS in plain


# A search


def draw(config: RunConfig, store: Store, data: Path, limits: PriorLimits) -> list[dict[str, Any]]:
    """Run a trial of a search that draws this configuration; return what Tune is told."""
    search: Any = SimpleNamespace(config=lambda settings: config, objective="best")
    place = Place(store, data, conduct=Conduct(limits=limits))
    space = {"settings": {}, "held_out": False}
    with patch.object(trials, "AskedToEnd", return_value=lambda: False):  # it would start Ray
        return list(trials.drawn_trial(space, search, place, Resources()))


def test_a_searchs_trial_carries_its_warning_with_its_epochs_until_it_ends(
    stuck: RunConfig, drawn: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.stages.stage.watchdog", lambda *_: pytest.fail("it is watched"))
    told = draw(stuck, store, drawn, PriorLimits(5, 9))
    assert [record["epoch"] for record in told] == [1, 2, 3]
    assert ["after 5 iterations" in record.get("warning", "") for record in told] == [
        False,
        True,
        False,
    ]
    assert (told[-1]["objective"], told[-1]["failed"]) == (0, "not learning")
    assert "after 9 iterations" in told[-1]["message"]
    assert store.cam(cam_id(stuck)).warning() is not None


def test_a_searchs_trial_that_diverges_is_worth_nothing_and_no_error(
    wild: RunConfig, drawn: Path, store: Store
) -> None:
    (record,) = draw(wild, store, drawn, PriorLimits())
    assert (record["epoch"], record["objective"], record["failed"]) == (1, 0, DIVERGED)
    told = r"not finite at iteration \d+: .*loss_cls .*lower train\.lr \(now 10\.0\)"
    assert re.search(told, record["message"])


def test_a_searchs_history_tells_the_warned_and_the_not_learning_from_the_others(
    store: Store,
) -> None:
    heard = list[str]()

    def share(trial: SearchTrial | None) -> None:
        heard.append(f"{trial.status}: {trial.warning[:37]}")

    draws, history = Draws(SEARCH, store, 1, share), History(SEARCH, store)
    trial = draws.next()
    assert trial is not None
    judged = {"epoch": 1.0, "objective": 10.0, "threshold": 0.3}
    draws.reported(trial, judged | {"warning": str(WARNING)})
    assert "1 interrupted at the prior" in as_text(search_document(SEARCH, store), width=200)
    failed = {"epoch": 2.0, "objective": 0.0, "failed": NOT_LEARNING, "message": "still there"}
    draws.reported(trial, failed)
    assert heard == [
        "running: ",
        "running: not clearly below the label prior aft",
        "not learning: ",
    ]
    (known,) = ranking(history.trials())
    assert (known.ended, known.objective, known.message) == (True, 0.0, "still there")
    assert "1 not learning" in as_text(search_document(SEARCH, store), width=200)
