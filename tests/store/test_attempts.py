"""The ledger: what is written, what it adds up to, and what a killed driver leaves."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from commands import sweeps
from made_up.bucket_server import BUCKET, faulty_proxy
from made_up.ledgers import FIRST, HOUR, ONE_GPU, SECOND, SWEEP, Clock, driver, play

from sweeps.plan.sweep import save_sweep
from sweeps.report.live.account import add_up
from sweeps.report.live.cost_lines import format_hours
from sweeps.store.attempts import Book, Size, read_book
from sweeps.store.errors import StoreError
from sweeps.store.remote.bucket import Times
from sweeps.store.remote.mirror import Remote
from sweeps.store.store import Store, write_json
from wsss.training.checkpoint_names import checkpoint_name


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize(
    ("script", "hours", "reasons"),
    [
        ("run 1 epoch=1 1 epoch=2 .5 done", (2.5, 0, 0), ["finished"]),
        # In the queue, they are nobody's hours. The checkpoint of epoch 3 was gone.
        (
            "run 1 epoch=1 1 epoch=2 1 epoch=3 .25 preempted 5 run 1 epoch=3 1 epoch=4 done",
            (4, 1, 0.25),
            ["preempted", "finished"],
        ),
        ("run .5 scored=7 .5 hang", (0, 0, 1), ["hang"]),
        ("run 2 epoch=1 failed", (0, 0, 2), ["failed"]),
        ("run 2 epoch=1 failed run 1 epoch=2 done", (3, 0, 0), ["failed", "finished"]),
        ("run 1 run 1 started", (0, 0, 2), ["killed", "interrupted"]),  # nobody said why
        ("run -1 done", (0, 0, 0), ["finished"]),  # its clock was set back
    ],
)
def test_hours_are_useful_repeated_or_lost(
    store: Store, clock: Clock, script: str, hours: tuple[float, ...], reasons: list[str]
) -> None:
    with driver(store, clock, ONE_GPU) as ledger:
        play(ledger, clock, script)
        assert ledger.spent() == pytest.approx(sum(hours))
    account = add_up(ledger.book())
    assert (account.useful, account.repeated, account.lost) == hours
    assert account.spent == sum(hours)
    assert account.reasons == dict.fromkeys(reasons, 1)


def test_where_a_training_breaks_off_the_attempt_at_its_present_run_ends(
    store: Store, clock: Clock
) -> None:
    other = replace(SECOND, cam_id=FIRST.cam_id)
    with driver(store, clock, ONE_GPU) as ledger:
        play(ledger, clock, "run 1 done")
        play(ledger, clock, "run 1 hang", other)
    assert [attempt.why for attempt in ledger.book().attempts] == ["finished", "hang"]


def test_an_attempt_names_the_epoch_from_which_it_goes_on(store: Store, clock: Clock) -> None:
    store.cam(FIRST.cam_id).checkpoints.mkdir(parents=True)
    for name in (checkpoint_name(7), checkpoint_name(7, 123)):
        (store.cam(FIRST.cam_id).checkpoints / name).touch()
    with driver(store, clock, ONE_GPU) as ledger:
        play(ledger, clock, "run .5 scored=7")
    (attempt,) = ledger.book().attempts
    assert (attempt.from_epoch, attempt.marks) == (7, [])


def test_a_result_that_comes_just_after_the_sweep_was_stopped_makes_the_attempt_finished(
    store: Store, clock: Clock
) -> None:
    with driver(store, clock, ONE_GPU) as ledger:
        for trial in (FIRST, SECOND):
            play(ledger, clock, "run 1 started", trial)
        write_json(store.run(FIRST.run_id).path / "done.json", {"miou_fixed": 1.0})
    account = add_up(ledger.book())
    assert account.reasons == {"finished": 1, "interrupted": 1}
    assert (account.useful, account.lost) == (1.0, 1.0)


def test_cpu_hours_are_counted_where_no_attempt_held_a_gpu(store: Store, clock: Clock) -> None:
    with driver(store, clock, Size(2, 0.0, 3.0)) as ledger:
        play(ledger, clock, "run 2 done")
    account = add_up(ledger.book())
    assert (account.unit, account.useful) == ("CPU", 6.0)


def test_the_attempts_of_a_killed_driver_end_at_its_last_sign_of_life(
    store: Store, clock: Clock
) -> None:
    killed = driver(store, clock).__enter__()
    play(killed, clock, "run 1 epoch=1 30")
    with driver(store, clock) as ledger:
        assert ledger.spent() == 2.0  # an hour of 2 GPUs
    (attempt,) = ledger.book().attempts
    assert (attempt.end, attempt.why) == (101 * HOUR, "killed")
    assert len(ledger.book().sessions) == 2


def test_an_attempt_at_work_counts_until_the_last_sign_of_its_driver(
    store: Store, clock: Clock
) -> None:
    with driver(store, clock, ONE_GPU) as ledger:
        play(ledger, clock, "run 1 epoch=1 .5")
        ledger.beat()
        account = add_up(ledger.book())
        assert (account.useful, account.running) == (1.0, 0.5)
        assert account.reasons == {"running": 1}
        (store.sweep(SWEEP.name) / "drivers" / f"{ledger.session.name}.json").unlink()
        assert add_up(ledger.book()).spent == 1.0, "without that sign, until its last epoch"


def test_the_driver_has_time_between_two_questions_to_a_bucket_that_is_away(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    with driver(store, clock) as ledger:

        def away() -> None:
            asked.append(clock())
            clock.hours += 35 / HOUR
            raise StoreError("no answer")

        with monkeypatch.context() as patch:
            patch.setattr(ledger.folder, "push", away)
            for _ in range(100):
                clock.hours += 1 / HOUR
                ledger.beat()
    assert [round(at - asked[0]) for at in asked] == [0, 65, 130]


def test_what_a_full_disk_refuses_waits_for_the_next_chance(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with driver(store, clock) as ledger:

        def full(fd: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            ledger.update(FIRST, status="running")
        assert ledger.book().attempts == []
        clock.hours += 1
        ledger.update(SECOND, status="running")
        assert [a.title for a in ledger.book().attempts] == [FIRST.name, SECOND.name]


@pytest.mark.parametrize("content", ["{}", '{"name": 1'])
def test_a_file_that_is_no_attempt_is_refused_by_name(store: Store, content: str) -> None:
    path = store.sweep("s") / "attempts" / "a.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(StoreError, match=f"^{path}: not .*; delete the file; its hours are then"):
        read_book(store, "s")


def test_a_copied_record_of_hours_counts_once_as_it_was_last_written(
    store: Store, clock: Clock
) -> None:
    with driver(store, clock, ONE_GPU) as ledger:
        play(ledger, clock, "run 1 epoch=1")
        for own in store.sweep(SWEEP.name).glob("*/*.json"):
            own.with_name("zz copied.json").write_bytes(own.read_bytes())
            own.with_name(f"._{own.name}").write_bytes(b"Mac OS X")
        play(ledger, clock, "1 done")
    account = add_up(ledger.book())
    assert (account.spent, account.reasons) == (2.0, {"finished": 1})


def test_the_command_prints_hours_by_trial_and_as_json(store: Store, clock: Clock) -> None:
    save_sweep(store, SWEEP)
    call = ("ledger", "--store", store.root)
    empty = sweeps(*call)
    assert "its ledger has no attempts yet" in empty.output
    with driver(store, clock) as ledger:
        ledger.may_hold(2)
        for trial, why in ((FIRST, "done"), (SECOND, "started")):
            play(ledger, clock, f"run 1.5 {why}", trial)
    shown = sweeps(*call, COLUMNS="150")
    assert shown.exit_code == 0
    (row,) = [line for line in shown.output.splitlines() if FIRST.name in line]
    assert row.split()[-5:] == ["1", "3.00", "0", "0", "0"]
    assert "6.00 GPU-hours spent by 2 attempts (1 finished, 1 interrupted); 6.00 more idle" in (
        shown.output
    )
    told = json.loads(sweeps(*call, "--json").output)
    assert (told["useful"], told["lost"], told["idle"]) == (3.0, 3.0, 6.0)
    assert [attempt["hours"] for attempt in told["attempts"]] == [3.0, 3.0]


@pytest.mark.parametrize(
    ("hours", "text"), [(0.0, "0"), (0.01234, "0.012"), (5.678, "5.68"), (123.45, "123.5")]
)
def test_hours_have_the_digits_that_tell_something(hours: float, text: str) -> None:
    assert format_hours(hours) == text


def test_in_a_bucket_a_result_takes_the_ledger_along_and_half_a_minute_without_one_as_well(
    port: int, tmp_path: Path
) -> None:
    with faulty_proxy(port) as proxy:
        url, clock = f"s3://{BUCKET}/ledger", Clock()
        remote = Remote(url, tmp_path / "here", Times(retry_delays=(0.01,)))
        store, there = Store(remote.mirror, remote), Remote(url, tmp_path / "there")

        def pulled() -> Book:
            there.pull_folder("sweeps")
            return read_book(Store(there.mirror), SWEEP.name)

        def uploaded() -> list[str | None]:
            return [attempt.why for attempt in pulled().attempts]

        with driver(store, clock) as ledger:
            ledger.update(FIRST, status="running")
            assert uploaded() == []
            clock.hours += 31 / HOUR
            ledger.beat()
            assert uploaded() == [None]
            proxy.faults = [("PUT", "refuse")] * 4  # two files, two tries
            ledger.update(FIRST, status="done", record={"epoch": 2.0})
            assert not proxy.faults
            assert uploaded() == [None]  # and the sweep goes on
            ledger.update(SECOND, status="running")
            ledger.update(SECOND, status="done", record={"epoch": 2.0})
            assert uploaded() == ["finished", "finished"]
            clock.hours += 1
        assert pulled().sessions[ledger.session.name].last == clock()
