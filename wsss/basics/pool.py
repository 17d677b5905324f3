"""A pool of worker processes for work on many images, with errors that name their image.

This file imports no torch, so that workers start fast.
"""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple, TypeVar

from wsss.basics.errors import ForeseenError

Job = TypeVar("Job")
Answer = TypeVar("Answer")


def pool_map(
    function: Callable[[Job], Answer], jobs: Iterable[tuple[str, Job]], *, num_workers: int
) -> Iterator[tuple[str, Answer]]:
    """Yield (image id, function(job)) for each (image id, job), in order, from worker processes.

    function: a module's function (or a functools.partial of one), since workers import it;
    num_workers: 0 works in this process, with equal answers and errors. Jobs are taken as workers
    need them, so `jobs` may be a generator over any number of images. The first error ends the map
    and names its image: a ForeseenError stays one, any other becomes a RuntimeError. When the map
    fails, is closed or is stopped by Ctrl-C, workers end after their current image; if this process
    is killed, at once. Each worker computes in one thread.
    """
    if num_workers < 0:
        raise ValueError(f"num_workers is {num_workers}; use 0 or more")
    answers = (
        _answers_of_pool(function, jobs, num_workers)
        if num_workers
        else ((image_id, _attempt(function, job)) for image_id, job in jobs)
    )
    with closing(answers):
        for image_id, answer in answers:
            if isinstance(answer, _Failure):
                raise answer.error(image_id)
            yield image_id, answer


def require_semaphores(context: BaseContext) -> None:
    """Raise ForeseenError where this system makes no semaphores, which processes need."""
    try:
        context.Semaphore()
    except OSError as error:
        raise ForeseenError(
            f"/dev/shm: no semaphores can be made there ({error.strerror}), which processes need; "
            "have it mounted writable, or do without them: --workers 0 or --label-workers 0 where "
            "labels are written, --loader-workers 0 where a network is trained"
        ) from None


class _Failure(NamedTuple):
    """An error in a worker, as text: not every exception can be sent back."""

    kind: str
    message: str
    foreseen: bool
    trace: str

    def error(self, image_id: str) -> Exception:
        if self.foreseen:
            return ForeseenError(f"image {image_id}: {self.message}")
        error = RuntimeError(f"image {image_id}: {self.kind}: {self.message}")
        error.add_note(self.trace)
        return error


_Pending = deque[tuple[str, Future[Answer | _Failure]]]


def _answers_of_pool(
    function: Callable[[Job], Answer], jobs: Iterable[tuple[str, Job]], num_workers: int
) -> Generator[tuple[str, Answer | _Failure], None, None]:
    context = multiprocessing.get_context("spawn")  # fork can deadlock with torch's threads
    require_semaphores(context)
    stop, owner = context.Pipe(duplex=False)
    pending: _Pending[Answer] = deque()
    pool = ProcessPoolExecutor(num_workers, context, _start_worker, (stop,))
    try:
        for image_id, job in jobs:
            pending.append((image_id, _submit(pool, function, job)))
            if len(pending) >= 2 * num_workers:  # for each worker one at work and one waiting
                yield _wait(pending)
        while pending:
            yield _wait(pending)
    finally:
        owner.close()  # jobs still in the pool's queue are not begun
        pool.shutdown(cancel_futures=True)
        stop.close()


def _submit(
    pool: ProcessPoolExecutor, function: Callable[[Job], Answer], job: Job
) -> Future[Answer | _Failure]:
    """Return the future of a job; failures to submit it are its exception.

    The job is pickled here: if the pool's own thread fails to do so, Python before 3.11.9 may wait
    for ever when the pool is shut down.
    """
    try:
        return pool.submit(_attempt_in_worker, bytes(ForkingPickler.dumps((function, job))))
    except Exception as error:  # cannot be pickled; or a worker died, which an earlier job reports
        failed: Future[Answer | _Failure] = Future()
        failed.set_exception(error)
        return failed


def _wait(pending: _Pending[Answer]) -> tuple[str, Answer | _Failure]:
    """Remove the oldest job; wait for its answer and return it."""
    in_work = ", ".join(image_id for image_id, _ in pending)
    image_id, future = pending.popleft()
    try:
        return image_id, future.result()
    except BrokenProcessPool:
        message = (
            f"a worker process died on one of {in_work}; if memory ran out, use fewer workers; "
            'a script that calls this needs `if __name__ == "__main__":`'
        )
        return image_id, _Failure("BrokenProcessPool", message, foreseen=False, trace="")
    except Exception as error:  # the job or its answer cannot be pickled
        return image_id, _failure(error)


def _attempt(function: Callable[[Job], Answer], job: Job) -> Answer | _Failure:
    try:
        return function(job)
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> _Failure:
    trace = "".join(traceback.format_exception(error))
    return _Failure(type(error).__name__, str(error), isinstance(error, ForeseenError), trace)


_worker_stop: Connection | None = None
"""In a worker: once it is closed, the owner wants no more answers."""


def _start_worker(stop: Connection) -> None:
    """Prepare a worker: one thread, ignores Ctrl-C and a lost terminal, ends with its owner."""
    global _worker_stop  # noqa: PLW0603 - an initialiser has no other way to store something
    _worker_stop = stop
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"  # for libraries that are not loaded yet
    if "torch" in sys.modules:  # loaded with the main script
        sys.modules["torch"].set_num_threads(1)
    threading.Thread(target=_end_with_owner, daemon=True).start()


def _end_with_owner() -> None:
    owner = multiprocessing.parent_process()
    if owner is not None:
        owner.join()
        os._exit(1)  # the owner was killed: the worker would wait for its next job for ever


def _attempt_in_worker(pickled: bytes) -> Any:
    if _worker_stop is not None and _worker_stop.poll():
        return _Failure("Stopped", "not begun", foreseen=False, trace="")
    return _attempt(*ForkingPickler.loads(pickled))
