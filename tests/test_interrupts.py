"""Ctrl-C that waits for the end of what it must not break."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from sweeps.run.resources import Resources, held_back, running_ray


@pytest.fixture(autouse=True)
def _pythons_handler() -> Iterator[None]:
    """What a test before has left may be Ray's."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def twice(reached: list[str]) -> None:
    with held_back():
        press_ctrl_c()
        press_ctrl_c()
        reached.append("the end")


def test_ctrl_c_waits_for_the_end_and_comes_once() -> None:
    reached: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        twice(reached)
    assert reached == ["the end"]
    with pytest.raises(KeyboardInterrupt):  # the handler from before is back
        press_ctrl_c()


def then_an_error() -> None:
    with held_back():
        press_ctrl_c()
        raise RuntimeError("no Ray here")


def test_an_error_inside_is_not_lost_behind_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        then_an_error()
    assert isinstance(caught.value.__context__, RuntimeError)


def while_ray_starts_and_ends(monkeypatch: pytest.MonkeyPatch, done: list[str]) -> None:
    """Press Ctrl-C in the middle of both."""

    def slowly(step: str) -> None:
        press_ctrl_c()
        done.append(step)

    monkeypatch.setattr("sweeps.run.resources.start_ray", lambda resources: slowly("started"))
    monkeypatch.setattr("ray.shutdown", lambda: slowly("ended"))
    with running_ray(Resources()):
        done.append("work")


def test_ctrl_c_while_ray_starts_waits_until_it_has_and_ray_is_ended_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        while_ray_starts_and_ends(monkeypatch, done)
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
