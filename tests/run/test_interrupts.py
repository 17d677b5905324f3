"""Signals that ask for an orderly end, and those that wait for what they must not break."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up.finished import fill, finished_sweep

from sweeps.run.driver import drive
from sweeps.run.ray.resources import Resources
from sweeps.run.ray.start import running_ray
from sweeps.run.signals import Interrupts, as_ctrl_c, handled, held_back
from sweeps.run.subjects.tables import DrivenSweep
from sweeps.store.store import Store
from wsss.training.execution import SWITCH_VARIABLE


@pytest.fixture(autouse=True)
def _pythons_handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test before has left may be Ray's."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    with (
        handled([signal.SIGINT], signal.default_int_handler),
        handled([signal.SIGHUP], signal.SIG_DFL),  # tests under nohup ignore it
    ):
        yield


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_waits_for_the_end_and_comes_once() -> None:
    reached = []

    def twice() -> None:
        with held_back():
            press_ctrl_c()
            press_ctrl_c()
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        twice()
    assert reached == ["the end"]
    with pytest.raises(KeyboardInterrupt):  # the handler from before is back
        press_ctrl_c()


def test_an_error_inside_is_not_lost_behind_ctrl_c() -> None:
    def then_an_error() -> None:
        with held_back():
            press_ctrl_c()
            raise RuntimeError("no Ray here")

    with pytest.raises(KeyboardInterrupt) as caught:
        then_an_error()
    assert isinstance(caught.value.__context__, RuntimeError)


def test_ctrl_c_while_ray_starts_waits_until_it_has_and_ray_is_ended_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = []

    def slowly(step: str) -> None:
        press_ctrl_c()
        done.append(step)

    def work() -> None:
        with running_ray(Resources()):
            done.append("work")

    monkeypatch.setenv(SWITCH_VARIABLE, "0")
    monkeypatch.setattr("ray.init", lambda *_, **__: slowly("started"))
    monkeypatch.setattr("ray.shutdown", lambda: slowly("ended"))
    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["started", "ended"]


def test_another_thread_may_use_it_too() -> None:
    reached = []

    def work() -> None:
        with held_back():
            reached.append("the end")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert reached == ["the end"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_work_without_a_driver_ends_as_by_ctrl_c(how: signal.Signals) -> None:
    before = signal.getsignal(how)
    with as_ctrl_c() as came, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), how)
    assert came == [how]
    assert signal.getsignal(how) is before


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends(how: signal.Signals) -> None:
    before = signal.getsignal(how)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), how)
        assert interrupts.requested == how.name
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), how)
    assert signal.getsignal(how) is before


def test_a_hangup_that_is_ignored_stays_so() -> None:
    with handled([signal.SIGHUP], signal.SIG_IGN), as_ctrl_c(), Interrupts() as interrupts:
        with held_back():
            os.kill(os.getpid(), signal.SIGHUP)
        assert interrupts.requested is None


GOES_ON = """
import sys, time
from sweeps.run.signals import Interrupts
with Interrupts() as interrupts:
    print("ready", flush=True)
    while interrupts.requested is None:
        time.sleep(0.01)
    time.sleep(0.2)
    print("still here", flush=True)
sys.exit(7 if interrupts.requested == "SIGHUP" else 1)
"""


def test_a_terminal_that_closes_asks_once_and_printing_goes_on_without_it() -> None:
    terminal, end = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", GOES_ON], stdout=end, stderr=end, cwd=Path(__file__).parents[2]
    )
    os.close(end)
    assert os.read(terminal, 100).startswith(b"ready")
    os.close(terminal)
    for _ in range(2):  # one of the shell, one of the kernel
        process.send_signal(signal.SIGHUP)
        threading.Event().wait(0.05)
    assert process.wait(timeout=60) == 7


IS_NOT_READ = """
import sys
from sweeps.run.driver import Output, printer
from sweeps.run.signals import Interrupts
with Interrupts() as interrupts:
    sys.stdin.readline()
    for _ in range(2):
        printer(Output())("still here")
printer(Output())("still here")
sys.exit(7 if interrupts.requested == "SIGHUP" else 1)
"""


def test_a_reader_of_a_pipe_that_ends_asks_as_a_terminal_that_closes() -> None:
    """As `tee` does, which Ctrl-C ends, too."""
    with subprocess.Popen(
        [sys.executable, "-c", IS_NOT_READ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        process.stdout.close()
        process.communicate(b"go on\n", timeout=60)
    assert process.returncode == 7


class PressesAtOnce(DrivenSweep):
    def prepare(self, resources: Resources) -> list[str]:
        press_ctrl_c()
        return []


@pytest.mark.parametrize(
    ("quality", "told"), [(0.5, "only logs and reports the results:"), (None, "resumes from here:")]
)
def test_ctrl_c_says_what_the_same_command_would_do(
    quality: float | None, told: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = finished_sweep(("III",), 1)
    fill(store, sweep, lambda trial: quality)
    assert drive(PressesAtOnce(sweep, store), Resources()) == 130
    assert f"interrupted; the same command {told}" in capsys.readouterr().out
