"""A limit to waiting for what has none of its own, such as the look-up of a host's name."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

Answer = TypeVar("Answer")


def within(seconds: float | None, question: Callable[[], Answer]) -> Answer:
    """Return what a function returns, or raise what it raises; None: without a limit.

    Raises TimeoutError if it takes longer; its thread is left behind then.
    """
    answer: Future[Answer] = Future()

    def ask() -> None:
        try:
            answer.set_result(question())
        except BaseException as error:  # else nobody would be told, and the wait have no end
            answer.set_exception(error)

    Thread(target=ask, daemon=True).start()
    return answer.result(seconds)
