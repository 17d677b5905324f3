"""The ledger: what is written, what it adds up to, and what a killed driver leaves."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from bucket_server import BUCKET, faulty_proxy, moto_server
from finished import finished_sweep
from typer import Typer
from typer.testing import CliRunner

from sweeps.cli.ledger import add_up, format_hours
from sweeps.cli.ledger import ledger as ledger_command
from sweeps.plan.sweep import save_sweep
from sweeps.plan.trials import Trial
from sweeps.run import ledger as ledger_module
from sweeps.run.ledger import Ledger, Size, append_lines, ledger_path
from sweeps.store import bucket as remote_bucket
from sweeps.store.code_version import ROOT
from sweeps.store.ledger_book import make_book, read_book
from sweeps.store.remote import Remote
from sweeps.store.results import merge_ledgers
from sweeps.store.store import Store, write_json
from wsss.training.checkpoint_names import checkpoint_name

SWEEP = finished_sweep(("VI",), 1)
FIRST, SECOND = SWEEP.plan.trials[:2]
HOUR = 3600.0
URL = f"s3://{BUCKET}/ledger"


class Clock:
    """A clock that is set by hand, in hours."""

    def __init__(self) -> None:
        self.hours = 100.0

    def __call__(self) -> float:
        return self.hours * HOUR


def driver(store: Store, clock: Clock, size: Size | None = None) -> Ledger:
    return Ledger(store, SWEEP.name, size or Size(workers=2, gpus=2.0, cpus=4.0), clock)


def epoch(ledger: Ledger, clock: Clock, trial: Trial, number: int, *, after: float) -> None:
    """Let an epoch take so many hours."""
    clock.hours += after
    ledger.update(trial, status="running", record={"epoch": float(number), "loss": 0.5})


def lines_of(store: Store) -> list[dict[str, Any]]:
    text = ledger_path(store, SWEEP.name).read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_finished_trial_is_useful_from_start_to_end(tmp_path: Path) -> None:
    store, clock = Store(tmp_path), Clock()
    with driver(store, clock) as ledger:
        ledger.room(2)
        ledger.update(FIRST, status="running")
        epoch(ledger, clock, FIRST, 1, after=1.0)
        epoch(ledger, clock, FIRST, 2, after=1.0)
        clock.hours += 0.5  # scoring
        ledger.update(FIRST, status="done", record={"epoch": 2.0})
    account = add_up(ledger.book())
    # 2.5 hours of 2 GPUs; of the 4 GPUs there was room for, the other 2 were idle
    assert (account.unit, account.useful, account.idle) == ("GPU", 5.0, 5.0)
    assert (account.repeated, account.lost, account.running) == (0.0, 0.0, 0.0)
    assert account.reasons == {"finished": 1}
    assert [line["event"] for line in lines_of(store)] == [
        "session", "room", "start", "mark", "mark", "end", "close",
    ]  # fmt: skip


def test_epochs_done_again_are_repeated_and_the_rest_of_a_dead_attempt_lost(tmp_path: Path) -> None:
    store, clock = Store(tmp_path), Clock()
    with driver(store, clock, Size(0, 1.0, 1.0)) as ledger:
        ledger.update(FIRST, status="running")
        for number in (1, 2, 3):
            epoch(ledger, clock, FIRST, number, after=1.0)
        clock.hours += 0.25
        ledger.ended(FIRST.run_id, "preempted")
        clock.hours += 5  # in the queue: nobody's hours
        ledger.update(FIRST, status="running")
        epoch(ledger, clock, FIRST, 3, after=1.0)  # its checkpoint was gone
        epoch(ledger, clock, FIRST, 4, after=1.0)
        ledger.update(FIRST, status="done", record={"epoch": 4.0})
        assert ledger.spent() == pytest.approx(5.25)
    account = add_up(ledger.book())
    assert (account.useful, account.repeated, account.lost) == (4.0, 1.0, 0.25)
    assert account.spent == 5.25
    assert account.reasons == {"preempted": 1, "finished": 1}


def test_scoring_after_a_training_that_was_kept_marks_no_epoch(tmp_path: Path) -> None:
    store, clock = Store(tmp_path), Clock()
    store.cam(FIRST.cam_id).checkpoints.mkdir(parents=True)
    for name in (checkpoint_name(7), checkpoint_name(7, 123)):
        (store.cam(FIRST.cam_id).checkpoints / name).touch()
    with driver(store, clock, Size(0, 1.0, 1.0)) as ledger:
        ledger.update(FIRST, status="running")
        clock.hours += 0.5
        ledger.update(FIRST, status="running", record={"epoch": 7.0, "progress": 0.9})
        clock.hours += 0.5
        ledger.ended(FIRST.run_id, "hang")
    (attempt,) = ledger.book().attempts
    assert (attempt.from_epoch, attempt.marks, attempt.why) == (7, [], "hang")
    assert add_up(ledger.book()).lost == 1.0


def test_all_is_lost_of_a_trial_that_failed_until_it_is_tried_again_and_finishes(
    tmp_path: Path,
) -> None:
    store, clock = Store(tmp_path), Clock()
    with driver(store, clock, Size(0, 1.0, 1.0)) as ledger:
        ledger.update(FIRST, status="running")
        epoch(ledger, clock, FIRST, 1, after=2.0)
        ledger.update(FIRST, status="failed")
    account = add_up(ledger.book())
    assert (account.useful, account.lost) == (0.0, 2.0)
    with driver(store, clock, Size(0, 1.0, 1.0)) as ledger:
        ledger.update(FIRST, status="running")
        epoch(ledger, clock, FIRST, 2, after=1.0)
        ledger.update(FIRST, status="done", record={"epoch": 2.0})
    account = add_up(ledger.book())
    assert (account.useful, account.lost) == (3.0, 0.0)


def test_a_restart_of_which_nobody_said_why_ends_the_attempt_before(tmp_path: Path) -> None:
    store, clock = Store(tmp_path), Clock()
    with driver(store, clock) as ledger:
        ledger.update(FIRST, status="running")
        clock.hours += 1
        ledger.update(FIRST, status="running")
        clock.hours += 1
        ledger.update(FIRST, status="started")
    assert add_up(ledger.book()).reasons == {"killed": 1, "interrupted": 1}


def test_a_result_that_comes_just_after_the_sweep_was_stopped_makes_the_attempt_finished(
    tmp_path: Path,
) -> None:
    store, clock = Store(tmp_path), Clock()
    with driver(store, clock, Size(0, 1.0, 1.0)) as ledger:
        for trial in (FIRST, SECOND):
            ledger.update(trial, status="running")
        clock.hours += 1
        for trial in (FIRST, SECOND):
            ledger.update(trial, status="started")
        clock.hours += 1
        write_json(store.run(FIRST.run_id).path / "done.json", {"miou_fixed": 1.0})
    account = add_up(ledger.book())
    assert account.reasons == {"finished": 1, "interrupted": 1}
    assert (account.useful, account.lost) == (1.0, 1.0)


def test_cpu_hours_are_counted_where_no_attempt_held_a_gpu(tmp_path: Path) -> None:
    store, clock = Store(tmp_path), Clock()
    with driver(store, clock, Size(2, 0.0, 3.0)) as ledger:
        ledger.update(FIRST, status="running")
        clock.hours += 2
        ledger.update(FIRST, status="done")
        assert ledger.spent() == 6.0
    assert (add_up(ledger.book()).unit, add_up(ledger.book()).useful) == ("CPU", 6.0)


KILLED = """
import sys, time
from pathlib import Path
from finished import finished_sweep
from sweeps.run.ledger import Ledger, Size
from sweeps.store.store import Store
sweep = finished_sweep(("VI",), 1)
with Ledger(Store(Path(sys.argv[1])), sweep.name, Size(0, 1.0, 1.0)) as ledger:
    ledger.update(sweep.plan.trials[0], status="running")
    ledger.update(sweep.plan.trials[0], status="running", record={"epoch": 1.0, "loss": 0.5})
    print("at work", flush=True)
    time.sleep(60)
"""


def test_the_attempts_of_a_killed_driver_end_at_its_last_line(tmp_path: Path) -> None:
    store = Store(tmp_path)
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        process.send_signal(signal.SIGKILL)
    before = lines_of(store)
    assert [line["event"] for line in before] == ["session", "start", "mark"]
    with ledger_path(store, SWEEP.name).open("a") as file:
        file.write('{"event": "ma')  # what it was writing
    time.sleep(0.05)
    with driver(store, Clock()):
        pass
    book = read_book(ledger_path(store, SWEEP.name))
    (attempt,) = book.attempts
    assert (attempt.end, attempt.why) == (before[-1]["at"], "killed")
    assert book.num_broken == 1
    assert list(book.sessions)[0:1] == [before[0]["session"]]
    assert len(book.sessions) == 2


def test_an_attempt_at_work_counts_until_the_last_sign_of_its_driver(tmp_path: Path) -> None:
    store, clock = Store(tmp_path), Clock()
    with driver(store, clock, Size(0, 1.0, 1.0)) as ledger:
        ledger.update(FIRST, status="running")
        epoch(ledger, clock, FIRST, 1, after=1.0)
        clock.hours += 0.5
        ledger.beat()
        account = add_up(ledger.book())
        assert (account.useful, account.running) == (1.0, 0.5)
        assert account.reasons == {"running": 1}


def test_the_driver_gives_a_sign_of_life_no_oftener_than_every_half_minute(tmp_path: Path) -> None:
    store, clock = Store(tmp_path), Clock()
    with driver(store, clock) as ledger:
        for _ in range(100):
            clock.hours += 1 / HOUR
            ledger.beat()
    assert [line["event"] for line in lines_of(store)].count("alive") == 3


def test_a_clock_that_is_set_back_takes_no_hours_away() -> None:
    start = {"event": "start", "at": 5 * HOUR, "session": "s", "attempt": "a", "run": "r",
             "cam": "c", "name": "n", "workers": 0, "gpus": 1, "cpus": 1, "epoch": 0}  # fmt: skip
    end = {"event": "end", "at": 4 * HOUR, "session": "s", "attempt": "a", "why": "finished"}
    assert add_up(make_book([start, end])).spent == 0.0


def test_lines_wait_while_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, clock = Store(tmp_path), Clock()
    with driver(store, clock) as ledger:

        def full(fd: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(ledger_module.os, "fsync", full)
            ledger.update(FIRST, status="running")
            assert ledger.problem is not None
        assert [line["event"] for line in lines_of(store)] == ["session"]
        ledger.update(FIRST, status="done")
        assert ledger.problem is None
    events = [line["event"] for line in lines_of(store)]
    assert events == ["session", "start", "end", "close"]


def test_a_cut_line_gets_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"cut')
    append_lines(path, [{"a": 1}, {"b": 2}])
    assert path.read_text() == '{"cut\n{"a": 1}\n{"b": 2}\n'


def test_the_command_prints_hours_by_trial_and_as_json(tmp_path: Path) -> None:
    store, clock = Store(tmp_path), Clock()
    save_sweep(store, SWEEP)
    app = Typer()
    app.command()(ledger_command)
    call = ["--store", str(tmp_path)]
    empty = CliRunner().invoke(app, call)
    assert "no attempt is in its ledger yet" in empty.output
    with driver(store, clock) as ledger:
        ledger.room(2)
        for trial, why in ((FIRST, "done"), (SECOND, "started")):
            ledger.update(trial, status="running")
            clock.hours += 1.5
            ledger.update(trial, status=why)
    shown = CliRunner().invoke(app, call, env={"COLUMNS": "150"})
    assert shown.exit_code == 0
    (row,) = [line for line in shown.output.splitlines() if FIRST.name in line]
    assert row.replace("│", " ").split()[-5:] == ["1", "3.00", "0", "0", "0"]
    assert "6.00 GPU-hours spent by 2 attempts (1 finished, 1 interrupted); 6.00 more idle" in (
        shown.output
    )
    told = json.loads(CliRunner().invoke(app, [*call, "--json"]).output)
    assert (told["useful"], told["lost"], told["spent"], told["idle"]) == (3.0, 3.0, 6.0, 6.0)
    assert [attempt["hours"] for attempt in told["attempts"]] == [3.0, 3.0]


@pytest.mark.parametrize(
    ("hours", "text"), [(0.0, "0"), (0.01234, "0.012"), (5.678, "5.68"), (123.45, "123.5")]
)
def test_hours_have_the_digits_that_tell_something(hours: float, text: str) -> None:
    assert format_hours(hours) == text


def test_in_a_bucket_a_result_takes_the_ledger_along_and_a_minute_without_one_as_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with moto_server() as port, faulty_proxy(port) as proxy:
        store, clock = Store(tmp_path / "here", Remote(URL, tmp_path / "here")), Clock()
        there = Remote(URL, tmp_path / "there")

        def uploaded() -> list[str]:
            there.pull_folder("sweeps")
            path = ledger_path(Store(tmp_path / "there"), SWEEP.name)
            lines = path.read_text().splitlines() if path.exists() else []
            return [json.loads(line)["event"] for line in lines]

        with driver(store, clock) as ledger:
            ledger.update(FIRST, status="running")
            assert uploaded() == []
            clock.hours += 59 / HOUR
            ledger.beat()
            assert uploaded() == []
            clock.hours += 2 / HOUR
            ledger.beat()
            assert uploaded() == ["session", "start", "alive"]
            monkeypatch.setattr(remote_bucket, "RETRY_DELAYS", (0.01,))
            proxy.faults = [("PUT", "refuse")] * 2
            ledger.update(FIRST, status="done", record={"epoch": 2.0})
            assert "tried 2 times" in str(ledger.problem)  # and the sweep goes on
            ledger.update(SECOND, status="running")
            ledger.update(SECOND, status="done", record={"epoch": 2.0})
            assert uploaded() == ["session", "start", "alive", "end", "start", "end"]
        assert uploaded()[-1] == "close"


def test_what_two_machines_wrote_into_a_ledger_is_kept_of_both() -> None:
    start, ours, theirs = b'{"at": 1}\n', b'{"at": 2, "session": "a"}\n', b'{"at": 3}\n'
    assert merge_ledgers(start + theirs, start + ours) == start + theirs + ours
    assert merge_ledgers(start + theirs, start) == start + theirs
    assert merge_ledgers(b"", ours) == ours
    assert merge_ledgers(b'{"cut', ours) == b'{"cut\n' + ours
