"""A command of one's own at the end of a run: what it is told, and that it changes nothing."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from commands import sweeps
from made_up.finished import fill, finished_sweep

from sweeps.run import notify
from sweeps.run.notify import then_notify
from sweeps.store.errors import StoreError
from sweeps.store.rooms import Driven
from sweeps.store.store import Store

SWEEP = finished_sweep(("VI",), 1)
TELL = 'printf "%s|%s|%s|%s" "$SWEEP_STATE" "$SWEEP_NAME" "$SWEEP_TABLES" "$SWEEP_TEXT" > '


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three of four trials of VI are done, the second best."""
    store = Store(tmp_path / "results")
    qualities = dict(zip((t.run_id for t in SWEEP.plan.trials), (0.5, 0.8, 0.6, None), strict=True))
    fill(store, SWEEP, lambda trial: qualities[trial.run_id])
    return store


@pytest.fixture
def told(store: Store, tmp_path: Path) -> Callable[[Callable[[], int]], str]:
    """Does some work with a command that notes what it is told; returns that."""

    def work_and_read(work: Callable[[], int]) -> str:
        with suppress(KeyboardInterrupt, StoreError):
            then_notify(f"{TELL}{tmp_path}/told", store, Driven("sweep", SWEEP.name), work)
        return (tmp_path / "told").read_bytes().decode(errors="replace")

    return work_and_read


def raises(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "state", "more"),
    [
        (lambda: 0, "done", ""),
        (lambda: 1, "failed", ""),
        (lambda: 130, "interrupted", ""),
        (raises(KeyboardInterrupt()), "interrupted", ""),
        (raises(StoreError("the bucket is gone")), "failed", "; the bucket is gone"),
    ],
)
def test_a_command_is_told_how_a_run_ended_and_how_far_it_is(
    store: Store, told: Callable[..., str], work: Callable[[], int], state: str, more: str
) -> None:
    best = SWEEP.plan.trials[1]
    miou = (store.run(best.run_id).result() or {})["miou_fixed"]
    text = f"sweep {SWEEP.name}: 3 of 4 done, best {best.cells[0]} {miou:.2f} %{more}"
    assert told(work) == f"{state}|{SWEEP.name}|VI|{text}"


@pytest.mark.parametrize("text", ["x" * 3_000_000, "é" * 200_000, "a\0b", "lone \ud800", "\udcff"])
def test_no_text_of_an_error_keeps_the_command_from_being_run(
    text: str, told: Callable[..., str], capfd: pytest.CaptureFixture[str]
) -> None:
    said = told(raises(StoreError(f"{text} is the reason")))
    assert said.startswith(f"failed|{SWEEP.name}|VI|")
    assert capfd.readouterr().err == ""


def test_a_store_that_cannot_be_read_is_told_and_any_other_error_is_a_warning(
    store: Store,
    told: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    error: Exception = OSError(5, "Input/output error", "/some/file")

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(notify, "read_entries", refuse)
    assert "Input/output error: '/some/file'" in told(lambda: 0)
    error = ZeroDivisionError("by nothing")
    assert then_notify("true", store, Driven("sweep", "x"), lambda: 0) == 0
    assert "warning: --notify true: cannot be run (by nothing)" in capfd.readouterr().err


def test_a_command_that_fails_or_hangs_is_a_warning(
    store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nothing, late = Driven("sweep", "none"), tmp_path / "late"
    hangs = f"(sleep 1; touch {late}) | cat"
    for command, why in (("exit 3", "ended with exit code 3"), (hangs, "ended after 0.2 s")):
        assert then_notify(command, store, nothing, lambda: 1, limit_s=0.2) == 1
        assert f"--notify {command}: " in (said := capfd.readouterr().err)
        assert why in said
    with pytest.raises(StoreError, match="gone"):
        then_notify("exit 3", store, nothing, raises(StoreError("gone")))
    time.sleep(1.2)
    assert not late.exists(), "what the shell has started went on"


@pytest.mark.parametrize("words", [("run", "VI"), ("search",), ("headline", "none")])
def test_every_command_that_trains_has_it_and_one_that_is_refused_tells_nobody(
    words: tuple[str, ...], drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.run.driver.drive", lambda *_, **__: 130)
    common = ("--data", drawn, "--preset", "tiny", "--store", tmp_path / "results")
    asked = (*words, *common, "--notify", f"{TELL}{tmp_path}/told")
    assert sweeps(*asked, "--set", "train.epochz=1").exit_code == 2
    assert not (tmp_path / "told").exists()
    done = sweeps(*asked)
    assert done.exit_code == 130, done.output
    assert (tmp_path / "told").read_text().startswith("interrupted|")
