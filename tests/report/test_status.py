"""What a person sees of a sweep's state, from the store and from events."""

import csv
import io
import json
import os
import shutil
import socket
import time
from functools import partial
from typing import Any

import pytest
from commands import sweeps
from made_up.finished import cell, finish, finished_sweep, status_of
from rich.console import Console

from sweeps.plan.cost import CostEstimate, TrialCost
from sweeps.plan.run_command import run_command
from sweeps.plan.states import TrialState, count_statuses, read_metrics, read_states
from sweeps.plan.sweep import Sweep, save_sweep
from sweeps.plan.trials import Trial
from sweeps.report.live import status as status_module
from sweeps.report.live.cost_lines import cost_lines, format_bytes, format_seconds, time_left
from sweeps.report.live.progress import Board
from sweeps.report.live.status import Status, cell_badge
from sweeps.store.errors import StoreError
from sweeps.store.store import Folder, Store, write_json


@pytest.fixture
def sweep() -> Sweep:
    """Table VI, two seeds: 4 cells, 8 trials."""
    return finished_sweep(("VI",), 2)


def miou(store: Store, trial: Trial) -> float:
    metrics = store.run(trial.run_id).result()
    return float(metrics["miou_fixed"])


def fail(store: Store, trial: Trial, message: str = "loss is not finite") -> None:
    write_json(
        store.run(trial.run_id).path / "failure.json", {"kind": "diverged", "message": message}
    )


def train(store: Store, trial: Trial, epochs: int) -> None:
    for epoch in range(1, epochs + 1):
        store.cam(trial.cam_id).add_epoch({"epoch": epoch})


@pytest.fixture
def mixed(store: Store, sweep: Sweep) -> Store:
    """Finished: VI[no,no] twice, VI[yes,no] once; failed, started and missing ones."""
    finish(store, cell(sweep, "no,no", 0), 0.5)
    finish(store, cell(sweep, "no,no", 1), 0.6)
    finish(store, cell(sweep, "yes,no", 0), 0.7)
    fail(store, cell(sweep, "yes,no", 1))
    train(store, cell(sweep, "no,yes", 0), 3)
    return store


printed = partial(status_of, width=160)


# For scripts


def test_status_and_table_give_a_row_per_cell_as_json_and_as_csv(
    mixed: Store, sweep: Sweep
) -> None:
    save_sweep(mixed, sweep)

    def given(*words: str) -> str:
        result = sweeps(*words, "--store", mixed.root)
        assert result.exit_code == 0
        return result.output

    said = json.loads(given("status", "--json"))
    assert said == json.loads(given("table", "--json"))
    assert said["sweep"] == sweep.name
    first, second, third, fourth = said["cells"]
    mious = [miou(mixed, cell(sweep, "no,no", seed)) for seed in (0, 1)]
    assert first == {
        "table": "VI",
        "cell": "VI[no,no]",
        "labels": "no, no",
        "measure": "fixed",
        "paper_miou": 47.82,
        "mean_miou": pytest.approx(sum(mious) / 2),
        "sd_over_seeds": pytest.approx(abs(mious[0] - mious[1]) / 2**0.5),
        "seeds": 2,
        "planned_seeds": 2,
        "state": "finished",
    }
    assert [c["state"] for c in (second, third, fourth)] == ["failed", "started", "missing"]
    assert (second["seeds"], second["sd_over_seeds"]) == (1, None)
    rows = list(csv.DictReader(io.StringIO(given("table", "--csv"))))
    assert rows == list(csv.DictReader(io.StringIO(given("status", "--csv"))))
    assert rows == [
        {key: "" if v is None else str(v) for key, v in row.items()} for row in said["cells"]
    ]


# States


def test_each_trial_is_in_the_state_that_its_files_tell(mixed: Store, sweep: Sweep) -> None:
    states = read_states(mixed, sweep.plan.trials)
    found = {
        name: [states[trial.run_id].status for trial in trials]
        for name, trials in sweep.plan.cell_trials.items()
    }
    assert found == {
        "VI[no,no]": ["finished", "finished"],
        "VI[yes,no]": ["finished", "failed"],
        "VI[no,yes]": ["started", "missing"],
        "VI[yes,yes]": ["missing", "missing"],
    }
    assert states[cell(sweep, "no,yes").run_id].epoch == 3
    assert states[cell(sweep, "yes,no", 1).run_id].failure == "diverged: loss is not finite"
    first = cell(sweep, "no,no")
    assert states[first.run_id].miou_fixed == miou(mixed, first)
    assert read_states(mixed, sweep.plan.trials, read_metrics(mixed)) == states
    assert count_statuses(states.values()) == "3 finished, 1 started, 3 missing, 1 failed"


def test_a_run_that_scores_a_finished_training_again_counts_as_started(
    store: Store, sweep: Sweep
) -> None:
    trial = cell(sweep, "no,no")
    finish(store, trial, 0.5)
    (store.run(trial.run_id).path / "done.json").unlink()
    assert read_states(store, [trial])[trial.run_id].status == "started"


def test_known_figures_are_not_read_again_and_removed_runs_are_forgotten(
    mixed: Store, sweep: Sweep
) -> None:
    first, second = cell(sweep, "no,no", 0), cell(sweep, "no,no", 1)
    known = {first.run_id: {"miou_fixed": 99.0}, "gone": {"miou_fixed": 1.0}}
    found = read_metrics(mixed, known)
    assert found[first.run_id] == {"miou_fixed": 99.0}
    assert found[second.run_id]["miou_fixed"] == miou(mixed, second)
    assert "gone" not in found


def test_a_watch_reads_the_epochs_of_finished_trials_once(
    mixed: Store, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, read = Status(mixed, sweep), list[str]()
    before, epochs = dict(status.states), Folder.epochs
    monkeypatch.setattr(Folder, "epochs", lambda self: read.append(self.path.name) or epochs(self))
    status.read()
    assert status.states == before
    finished = {t.cam_id for t in sweep.plan.trials if before[t.run_id].status == "finished"}
    assert finished
    assert read
    assert not finished & {*read}
    shutil.rmtree(mixed.root / "runs")
    status.read()
    assert not any(state.metrics for state in status.states.values())


def test_a_damaged_result_is_refused_once_if_it_is_the_sweeps_own(
    mixed: Store, sweep: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    own = mixed.run(cell(sweep, "no,no").run_id).path / "done.json"
    own.write_text("{")
    with pytest.raises(StoreError, match=r"done\.json"):
        Status(mixed, sweep)
    assert not caplog.records
    found = read_metrics(mixed)
    assert own.parent.name not in found
    assert "until then no estimate uses it" in caplog.text


# The matrix


@pytest.mark.parametrize(
    ("states", "text"),
    [
        ([TrialState()], "·"),
        ([TrialState("finished", 1.0, 8, 41.256)], "41.26"),
        ([TrialState("finished", 1.0, 8, 41.0), TrialState()], "41.00 (1/2)"),
        ([TrialState("finished", 1, 8, 41.0), TrialState("finished", 1, 8, 42.0)], "41.50 (2/2)"),
        ([TrialState("started", 0.0, 3)], "ep 3/8"),
        ([TrialState("started", 0.0, 8)], "scoring"),
        ([TrialState("running", 0.371, 3), TrialState("started", 0.0, 5)], "37% ep 3/8"),
        ([TrialState("running", 0.9, 8)], "90% scoring"),
        ([TrialState("failed")], "failed"),
        ([TrialState("failed"), TrialState("failed")], "2 failed"),
        ([TrialState("finished", 1, 8, 41.0), TrialState("failed")], "41.00 (1/2), failed"),
        ([TrialState("started", 0.0, 8, dead="46 %")], "scoring, empty maps"),
    ],
)
def test_a_cell_says_its_mean_its_seeds_its_epoch_and_its_failures(
    sweep: Sweep, states: list[TrialState], text: str
) -> None:
    trials = sweep.plan.cell_trials["VI[no,no]"][: len(states)]
    by_id = {trial.run_id: state for trial, state in zip(trials, states, strict=True)}
    assert cell_badge(trials, by_id).text == text


def test_the_status_shows_the_table_then_failures_totals_and_time_left(
    mixed: Store, sweep: Sweep
) -> None:
    fail(mixed, cell(sweep, "yes,no", 1), "loss is not \x1b[2J finite")
    text = printed(mixed, sweep)
    mean = (miou(mixed, cell(sweep, "no,no", 0)) + miou(mixed, cell(sweep, "no,no", 1))) / 2
    assert f"{mean:.2f} (2/2)" in text
    assert f"{miou(mixed, cell(sweep, 'yes,no')):.2f} (1/2), failed" in text
    assert "ep 3/8" in text
    assert r"failed: VI[yes,no] seed 1: diverged: loss is not \x1b[2J finite" in text
    # Left: 5 of 8 epochs and 12 s of scoring, and three whole trials of 60 + 12 s.
    assert "3 finished, 1 started, 3 missing, 1 failed of 8 trials; about 4 min left" in text
    assert text.index("Table VI") < text.index("failed: ") < text.index("of 8 trials")


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        (None, True),
        ({"pid": os.getpid(), "host": socket.gethostname()}, False),
        ({"pid": 2**22 + 1, "host": socket.gethostname()}, True),
        ({"pid": 2**22 + 1, "host": "another"}, False),
        ({"pid": 2**80, "host": socket.gethostname()}, False),  # damaged, as the next two
        ({"pid": 1}, False),
        ([1], False),
    ],
)
def test_the_status_of_a_sweep_that_no_process_runs_says_how_to_resume_it(
    mixed: Store, sweep: Sweep, driver: Any, said: bool
) -> None:
    if driver:
        write_json(mixed.sweep(sweep.name) / ".driver.json", driver)
    resume = f"nothing runs; resume with: {run_command(sweep, mixed)}"
    lines = printed(mixed, sweep, width=60).splitlines()
    assert (resume in lines) is said  # in one line, to be copied
    again = run_command(sweep, mixed, "--retry-failed")
    assert f"run them again with: {again}" in lines


def test_by_trial_there_is_a_line_for_each(mixed: Store, sweep: Sweep) -> None:
    text = printed(mixed, sweep, by_trial=True)
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    assert set(lines) == {trial.run_id for trial in sweep.plan.trials}
    assert "started   3/8 epochs" in lines[cell(sweep, "no,yes").run_id]
    assert lines[cell(sweep, "no,yes").run_id].endswith("VI[no,yes] seed 0")


def test_watching_ends_when_every_trial_is_finished_or_failed(
    mixed: Store, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [
        t
        for t in sweep.plan.trials
        if not Status(mixed, sweep).states[t.run_id].failure and not mixed.run(t.run_id).result()
    ]
    waited = []

    def work(seconds: float) -> None:
        waited.append(seconds)
        finish(mixed, left.pop(), 0.5)

    def away_once() -> None:
        if len(waited) == 2:
            raise StoreError("cannot list s3://b/runs, tried 5 times")

    monkeypatch.setattr(status_module.time, "sleep", work)
    monkeypatch.setattr(mixed, "pull_results", away_once)
    text = printed(mixed, sweep, every=0.5)
    assert waited == [0.5] * 4
    assert text.count("not up to date: cannot list s3://b/runs, tried 5 times\n") == 1
    counts = [line for line in text.splitlines() if " of 8 trials; " in line]
    assert [line.split()[0] for line in counts] == ["3", "4", "5", "6", "7"]  # also into a file
    assert counts[-1] == "7 finished, 1 failed of 8 trials; nothing left to run"
    assert "nothing runs" not in text[text.index("Table VI") :]


def test_watching_stops_at_ctrl_c_with_the_last_view(
    mixed: Store, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(status_module.time, "sleep", interrupt)
    assert "3 finished" in printed(mixed, sweep, every=1.0)


# The board of a running sweep


def board_of(
    sweep: Sweep, terminal: str | None = None, **finished: TrialState
) -> tuple[Board, io.StringIO]:
    file = io.StringIO()
    kind = {} if terminal is None else {"TERM": terminal}
    console = Console(
        file=file, width=160, color_system=None, force_terminal=bool(kind), _environ=kind
    )
    return Board(sweep, console, finished), file


@pytest.mark.parametrize("terminal", [None, "dumb"])
def test_a_board_prints_a_line_for_each_end_and_none_for_each_step(
    sweep: Sweep, terminal: str | None
) -> None:
    board, file = board_of(sweep, terminal)
    board.last_line = time.monotonic()
    first, second = cell(sweep, "no,no"), cell(sweep, "yes,no")
    with board:
        board.update(first, status="running", record={"epoch": 2, "progress": 0.25})
        assert file.getvalue() == ""
        board.update(first, status="done", record={"epoch": 8, "miou_fixed": 40.5})
        board.update(second, status="failed")
    lines = file.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("finished: VI[no,no] seed 0 mIoU 40.50 (fixed); 1 finished, 7 miss")
    assert lines[1].startswith("failed: VI[yes,no] seed 0; 1 finished, 6 missing, 1 failed of 8")
    assert board.total_progress() == pytest.approx(2 / 8)
    for trial in sweep.plan.trials:
        board.update(trial, status="failed")
    assert file.getvalue().endswith(" s elapsed, nothing left to run\n")


def test_a_board_has_the_matrices_of_the_status_those_at_work_first_lest_they_be_cut_off() -> None:
    sweep = finished_sweep(("III", "VI"), 2)
    done = sweep.plan.cell_trials["VI[yes,yes]"][1]
    board, file = board_of(sweep, **{done.run_id: TrialState("finished", 1.0, 8, 44.0)})
    running = sweep.plan.cell_trials["VI[no,no]"][0]
    board.update(running, status="running", record={"epoch": 2, "progress": 0.25})
    board.console.print(board.view())
    text = file.getvalue()
    shown = [
        "1 finished, 1 running, 14 missing of 16 trials",
        "Table VI",
        "25% ep 2/8",
        "Table III",
    ]
    places = [text.index(part) for part in shown]
    assert places == sorted(places)
    assert "44.00 (1/2)" in text
    assert not any("━ " in line and "Table" in line for line in text.splitlines())


def test_the_time_left_follows_from_the_progress_since_the_start(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = {cell(sweep, "no,no").run_id: TrialState("finished", 1.0, 8, 40.0)}
    board, _ = board_of(sweep, **finished)
    now = time.monotonic()
    with board:
        board.started = now - 100
        assert board.remaining() == "time left: not known yet"
        board.update(cell(sweep, "no,no", 1), status="done")
        monkeypatch.setattr("sweeps.report.live.progress.time.monotonic", lambda: now)
        assert board.remaining() == "about 10 min left"  # 6 trials at 100 s each


@pytest.mark.parametrize(("words", "store"), [((), None), (("--store", "/shared/x"), "/shared/x")])
def test_a_cluster_is_asked_about_the_store_that_is_named(
    words: tuple[str, ...], store: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def run_tool(
        server: object, words: list[str], *, store: str | None, **_: object
    ) -> tuple[int, str]:
        asked.extend([words, store])
        return 1, "the tables\n"

    monkeypatch.setattr("sweeps.cluster.job_server.JobServer", str)
    monkeypatch.setattr("sweeps.cluster.jobs.run_tool", run_tool)
    monkeypatch.setenv("WSSS_STORE", "/of/this/machine")
    done = sweeps("status", "--address", "http://h", "--trials", *words)
    assert (done.exit_code, done.output) == (1, "the tables\n")
    assert asked == [["sweeps", "status", "--trials"], store]


# Words


def cost_of(*seconds: float | None, device: str = "cpu", measured: int = 2) -> CostEstimate:
    trials = {
        str(i): TrialCost(s, 2**29, "same" if i == 0 else "scaled")
        if s is not None
        else TrialCost(None, 0, "")
        for i, s in enumerate(seconds)
    }
    return CostEstimate(trials, measured, device, 2)


def test_costs_are_told_in_words_with_what_they_rest_on() -> None:
    first, second, third = cost_lines(cost_of(3600, 7200, None, device="cuda"), concurrent=2)
    assert first == (
        "2 trials to run: about 3 h 00 min one at a time, 2 h 00 min at 2 at a time if they do not "
        "slow each other down; 6 GPU-hours at one GPU per process; 1.0 GiB more on disk"
    )
    assert second == (
        "estimated from 2 measured trials on cuda: 1 from the same configuration, 1 scaled by "
        "views and epochs"
    )
    assert third == "1 more trial to run, time unknown: no measured trial is like them"
    assert cost_lines(cost_of()) == ["nothing left to run"]
    assert "add --probe 20 to the same `sweeps run`" in cost_lines(cost_of(None, measured=0))[0]
    assert "no measured trial is like them" in cost_lines(cost_of(None, None))[0]


def test_the_time_left_is_told_only_as_far_as_it_is_known() -> None:
    assert time_left(cost_of(60, 60)) == "about 2 min left one trial at a time"
    assert time_left(cost_of(60, None)).endswith("and 1 trial of unknown time")
    assert time_left(cost_of(None)) == "time left: not known yet"


def test_durations_and_sizes_are_rounded_for_people() -> None:
    durations = {0: "0 s", 89.4: "89 s", 90: "2 min", 5360: "89 min", 5400: "1 h 30 min"}
    assert {seconds: format_seconds(seconds) for seconds in durations} == durations
    assert [format_bytes(size) for size in (0.5, 1.0, 12.34)] == ["512 MiB", "1.0 GiB", "12.3 GiB"]
