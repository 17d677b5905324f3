"""A pool of worker processes: order, errors, and how it ends."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from waiting import wait_for

from wsss.basics.errors import ForeseenError
from wsss.basics.pool import pool_map

JOBS = [(f"picture{number}", number) for number in range(7)]


def square(number: int) -> int:
    time.sleep(0.02 * (7 - number))  # later jobs are done earlier
    return number * number


def odd_one_out(number: int, *, error: Callable[[str], Exception]) -> int:
    if number == 3:
        raise error("no picture of three")
    return number


def vanish(number: int) -> int:
    if number == 2:
        os._exit(9)
    return number


def threads(_: int) -> tuple[str, bool]:
    return os.environ["OMP_NUM_THREADS"], "torch" in sys.modules


@pytest.mark.parametrize("num_workers", [0, 3])
def test_answers_keep_the_order_of_jobs_for_any_number_of_processes(num_workers: int) -> None:
    found = list(pool_map(square, JOBS, num_workers=num_workers))
    assert found == [(f"picture{number}", number * number) for number in range(7)]


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (ForeseenError, ForeseenError, "image picture3: no picture of three"),
        (KeyError, RuntimeError, "image picture3: KeyError: 'no picture of three'"),
        (partial(OSError, errno.ENOSPC), OSError, "[Errno 28] no picture of three"),  # a full disk
    ],
)
def test_an_error_names_its_image_and_stops(
    num_workers: int, raised: Callable[[str], Exception], expected: type[Exception], message: str
) -> None:
    answers = pool_map(partial(odd_one_out, error=raised), JOBS, num_workers=num_workers)
    assert [next(answers) for _ in range(3)] == [JOBS[0], JOBS[1], JOBS[2]]
    with pytest.raises(expected) as caught:
        next(answers)
    assert str(caught.value) == message
    assert list(answers) == []
    if expected is RuntimeError:
        assert "in odd_one_out" in caught.value.__notes__[0]


@pytest.mark.parametrize("seconds", [0, 0.5], ids=["at once", "while nothing waited"])
def test_a_dead_worker_is_reported_with_its_images(seconds: float) -> None:
    def jobs() -> Iterator[tuple[str, int]]:
        for image_id, number in JOBS:
            time.sleep(seconds if number > 2 else 0)
            yield image_id, number

    with pytest.raises(RuntimeError, match=r"a worker process died on one of .*picture2"):
        list(pool_map(vanish, jobs(), num_workers=1))


def test_jobs_are_taken_as_workers_need_them_and_closing_takes_no_more() -> None:
    taken: list[int] = []

    def endless() -> Iterator[tuple[str, int]]:
        for number in range(10**9):
            taken.append(number)
            yield str(number), number % 7

    answers = pool_map(square, endless(), num_workers=1)
    assert [next(answers)[1] for _ in range(3)] == [0, 1, 4]
    answers.close()  # type: ignore[attr-defined]
    assert len(taken) <= 5


def test_workers_start_without_torch_and_compute_in_one_thread() -> None:
    assert list(pool_map(threads, JOBS[:1], num_workers=1)) == [("picture0", ("1", False))]


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from wsss.basics.pool import pool_map

def work(number):
    (Path(sys.argv[1]) / str(os.getpid())).touch()
    time.sleep(0.2)
    return number

if __name__ == "__main__":
    # A shell without job control starts what it puts in the background deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    list(pool_map(work, ((str(n), n) for n in range(1000)), num_workers=2))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_an_owner_that_is_stopped_or_killed(
    tmp_path: Path, how: signal.Signals
) -> None:
    script, pids = tmp_path / "owner.py", tmp_path / "pids"
    script.write_text(SCRIPT)
    pids.mkdir()
    owner = subprocess.Popen(
        [sys.executable, str(script), str(pids)], stderr=subprocess.PIPE, start_new_session=True
    )
    wait_for(lambda: len(list(pids.iterdir())) == 2, seconds=60)
    if how == signal.SIGINT:
        os.killpg(owner.pid, how)  # a terminal's Ctrl-C reaches every process of the group
    else:
        owner.kill()
    _, errors = owner.communicate(timeout=30)
    assert owner.returncode == -how
    wait_for(lambda: not any(alive(int(path.name)) for path in pids.iterdir()), seconds=30)
    if how == signal.SIGINT:
        assert errors.decode().count("Traceback") == 1  # the owner's own, none of a worker


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1]
    except FileNotFoundError:
        return False
    return status[0] != "Z"
