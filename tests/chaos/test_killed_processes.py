"""Processes of a sweep killed by their ids: afterwards, everything is as if nothing had been."""

import os
import signal
from pathlib import Path

import pytest
from chaos_sweeps import command, in_mid_training, kill, run, started
from invariants import assert_nothing_lost
from outcomes import epochs

from sweeps.run.signals import handled

pytestmark = [pytest.mark.chaos, pytest.mark.cluster, pytest.mark.timeout(1200)]


def test_a_killed_trial_process_is_restarted_from_its_checkpoint(
    pictures: Path, unbroken: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    with started(command(pictures, store), tmp_path / "log") as driver:
        driver.until(in_mid_training(store, 2), "a checkpoint")
        (pid,) = driver.trial_processes()
        kill(pid, signal.SIGKILL)
        assert driver.wait() == 0, driver.output()
    assert "restart 1 of 2, from its last checkpoint" in driver.output()
    assert_nothing_lost(store, unbroken)


def test_a_killed_training_worker_and_a_killed_trial_driver_of_ray_train_lose_nothing(
    pictures: Path, unbroken: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    with started(command(pictures, store, "--workers", "1"), tmp_path / "log") as driver:
        driver.until(in_mid_training(store, 2), "a checkpoint")
        (worker,) = driver.ray_named("RayTrainWorker")
        kill(worker, signal.SIGKILL)
        first = {path.name for path in (store / "cams").iterdir()}
        driver.until(lambda: {p.name for p in (store / "cams").iterdir()} - first, "trial 2")
        driver.until(in_mid_training(store, 2), "its checkpoint")
        (trial,) = driver.ray_named("ImplicitFunc")
        kill(trial, signal.SIGKILL)
        assert driver.wait(600) == 0, driver.output()
    assert_nothing_lost(store, unbroken)


def test_a_killed_sweep_goes_on_by_the_same_command(
    pictures: Path, unbroken: Path, tmp_path: Path
) -> None:
    store, words = tmp_path / "store", command(pictures, tmp_path / "store")
    with started(words, tmp_path / "log") as driver:
        driver.until(in_mid_training(store, 2), "a checkpoint")
        kill(driver.process.pid, signal.SIGKILL)
        driver.wait()
    again = run(words)
    assert again.returncode == 0, again.stdout + again.stderr
    assert_nothing_lost(store, unbroken)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_after_a_checkpoint_and_the_printed_command_goes_on(
    pictures: Path, unbroken: Path, tmp_path: Path, how: signal.Signals
) -> None:
    store = tmp_path / "store"
    with (
        handled([signal.SIGHUP], signal.SIG_DFL),  # tests under nohup ignore it
        started(command(pictures, store), tmp_path / "log") as driver,
    ):
        driver.until(in_mid_training(store, 2), "a checkpoint")
        send = os.killpg if how == signal.SIGHUP else kill  # a terminal tells all of its group
        send(driver.process.pid, how)
        assert driver.wait(200) == 130, driver.output()
    assert f"{how.name}: starting no more trials" in driver.output()
    printed = driver.output().split("resumes from here:\n")[1].splitlines()[0]
    again = run(["/bin/sh", "-c", printed])
    assert again.returncode == 0, again.stdout + again.stderr
    assert_nothing_lost(store, unbroken)


def test_a_second_signal_stops_at_once(pictures: Path, tmp_path: Path) -> None:
    store, words = tmp_path / "store", command(pictures, tmp_path / "store")
    endless = [word.replace("train.crop_size=64", "train.crop_size=512") for word in words]
    with started(endless, tmp_path / "log") as driver:
        driver.until(driver.trial_processes, "a trial's start")
        driver.until(lambda: epochs(store) or list(store.glob("cams/*/config.json")), "a start")
        kill(driver.process.pid, signal.SIGINT)
        driver.until(lambda: "another signal stops all at once" in driver.output(), "the message")
        kill(driver.process.pid, signal.SIGINT)
        assert driver.wait(200) == 130, driver.output()
    assert "resumes from here" in driver.output()
