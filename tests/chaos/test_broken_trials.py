"""What ends trials from within: a hang, NaN, a bug in all, changed code, a spent budget."""

import os
import re
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from chaos_sweeps import command, end_orphans, in_mid_training, kill, run, started
from invariants import assert_nothing_lost, figures
from outcomes import epochs, results

pytestmark = [pytest.mark.chaos, pytest.mark.cluster, pytest.mark.timeout(1200)]
REPO = Path(__file__).parents[2]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the product's code, to be broken."""
    for package in ("wsss", "sweeps"):
        shutil.copytree(REPO / package, tmp_path / "code" / package)
    return tmp_path / "code"


def insert(path: Path, before: str, line: str) -> None:
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, line + before))


def without_code(metrics: dict[str, Any]) -> dict[str, Any]:
    """Leave out what says from which checkout a result came."""
    return {key: value for key, value in metrics.items() if key != "environment"}


SLOW_DISK = """
import pathlib, time
import PIL.Image
on_disk = PIL.Image.open
def wait_for_the_disk(file, *words, **options):
    while pathlib.Path(r"{hangs}").exists():
        time.sleep(0.1)
    return on_disk(file, *words, **options)
PIL.Image.open = wait_for_the_disk
"""
"""What every Python of the sweep does first: pictures are not to be had while a file exists."""


def test_a_hang_is_ended_with_its_stacks_and_the_trial_goes_on(
    pictures: Path, unbroken: Path, tmp_path: Path
) -> None:
    """In mid-training the disk of the pictures stops answering, as a network drive does."""
    store, hangs = tmp_path / "store", tmp_path / "hangs"
    (tmp_path / "sitecustomize.py").write_text(SLOW_DISK.format(hangs=hangs))
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    words = command(pictures, store, "--hang-after", "40")
    with started(words, tmp_path / "log", PYTHONPATH=paths) as driver:
        driver.until(in_mid_training(store), "a checkpoint")
        hangs.touch()
        stacks = driver.until(
            lambda: [p for p in store.glob("runs/*/stack.txt") if p.stat().st_size], "a dump"
        )
        hangs.unlink()
        assert driver.wait() == 0, driver.output()
    assert "in wait_for_the_disk" in stacks[0].read_text()
    assert "in read_image" in stacks[0].read_text()
    assert "made no progress" in driver.output()
    assert "restart 1 of 2" in driver.output()
    assert_nothing_lost(store, unbroken)


def test_a_trial_that_diverges_fails_alone_and_the_table_says_so(
    pictures: Path, unbroken: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    done = run(command(pictures, store, cells=("10", "0.05", "0.04")))
    assert done.returncode == 1, done.stdout + done.stderr
    assert figures(store) == figures(unbroken)
    (failure,) = results(store, "failure.json").values()
    assert failure["kind"] == "diverged"
    assert re.search(r"^ 10 +diverged *$", done.stdout, re.MULTILINE)
    assert "lower train.lr (now 10.0)" in done.stdout


def test_a_bug_in_all_trials_stops_the_sweep_and_mending_it_goes_on(
    pictures: Path, unbroken: Path, sources: Path, tmp_path: Path
) -> None:
    store, cells = tmp_path / "store", ("0.05", "0.04", "0.03", "0.02", "0.01")
    loop = sources / "wsss" / "training" / "loop.py"
    right = loop.read_text()
    insert(loop, "        parts = split(batch, micro_batch)\n", "        [][7]\n")
    words = command(pictures, store, cells=cells)
    broken = run(words, PYTHONPATH=str(sources))
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert "IndexError: list index out of range" in broken.stdout
    assert broken.stdout.count("stopped: several trials met the same error") == 1
    assert list(store.glob("runs/*/traceback.txt"))
    assert len(results(store, "failure.json")) < 3  # the others are left for the next time
    loop.write_text(right)
    again = run([*words, "--retry-failed"], PYTHONPATH=str(sources))
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(results(store)) == 5
    mended = {name: without_code(found) for name, found in figures(store).items()}
    for name, found in figures(unbroken).items():
        assert mended[name] == without_code(found)


def test_a_half_trained_network_is_not_continued_by_other_code_unless_told(
    pictures: Path, sources: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    words = command(pictures, store)
    with started(words, tmp_path / "log") as driver:
        driver.until(in_mid_training(store, 2), "a checkpoint")
        at_work = driver.session()
        kill(driver.process.pid, signal.SIGKILL)
        end_orphans(driver, at_work)
    before = epochs(store)
    loop = sources / "wsss" / "training" / "loop.py"
    loop.write_text(loop.read_text() + "# changed\n")
    refused = run(words, PYTHONPATH=str(sources))
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "is half trained, and wsss sources" in refused.stderr
    assert "--accept-changes" in refused.stderr
    assert epochs(store) == before
    accepted = run([*words, "--accept-changes"], PYTHONPATH=str(sources))
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    assert "MIXED: trained across a change of code or packages: chaos[0.05]" in accepted.stdout


def test_a_spent_budget_ends_a_sweep_in_order_and_without_it_all_goes_on(
    pictures: Path, unbroken: Path, tmp_path: Path
) -> None:
    """It is spent as the first trial begins: that saves what it has, the other never starts."""
    store, hours = tmp_path / "store", 0.0001
    spent = run(command(pictures, store, "--budget", str(hours)))
    assert spent.returncode == 130, spent.stdout + spent.stderr
    assert "are spent: starting no more trials" in spent.stdout
    assert results(store) == {}
    trained = list(epochs(store).values())
    assert len(trained) <= 1
    assert all(len(each) < 8 for each in trained)
    printed = [shlex.split(line) for line in spent.stdout.splitlines() if "--budget" in line]
    assert float(printed[-1][printed[-1].index("--budget") + 1]) > hours
    done = run(command(pictures, store))
    assert done.returncode == 0, done.stdout + done.stderr
    assert_nothing_lost(store, unbroken)
