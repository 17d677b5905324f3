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
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import TypeVar

from wsss.basics.errors import FULL, OF_A_PATH, ForeseenError

Job = TypeVar("Job")
Answer = TypeVar("Answer")


def pool_map(
    function: Callable[[Job], Answer], jobs: Iterable[tuple[str, Job]], *, num_workers: int
) -> Iterator[tuple[str, Answer]]:
    """Yield (image id, function(job)) for each (image id, job), in order, from worker processes.

    function: a module's function (or a functools.partial of one), since workers import it;
    num_workers: 0 works in this process, with equal answers and errors. Jobs are taken as workers
    need them, so `jobs` may be a generator over any number of images. The first error ends the map
    and names its image: a ForeseenError stays one, any other becomes a RuntimeError. That of a full
    disk, or of a path that cannot be used, comes as it is, as `explained` knows it. When the map
    fails, is closed or is stopped by Ctrl-C, workers end after the few images that were handed to
    them; if this process is killed, at once. Each worker computes in one thread.
    """
    if num_workers == 0:
        for image_id, job in jobs:
            yield image_id, _named(function, image_id, job)
        return
    context = multiprocessing.get_context("spawn")  # fork can deadlock with torch's threads
    require_semaphores(context)
    pending: deque[tuple[str, Future[Answer]]] = deque()

    def oldest() -> tuple[str, Answer]:
        image_id, future = pending[0]
        answer = future.result()
        pending.popleft()
        return image_id, answer

    pool = ProcessPoolExecutor(num_workers, context, _start_worker)
    try:
        for image_id, job in jobs:
            pending.append((image_id, pool.submit(_named, function, image_id, job)))
            if len(pending) >= 2 * num_workers:  # for each worker one at work and one waiting
                yield oldest()
        while pending:
            yield oldest()
    except BrokenProcessPool:
        raise RuntimeError(
            f"a worker process died on one of {', '.join(image_id for image_id, _ in pending)}; if "
            "memory ran out, use fewer workers; a script that calls this needs "
            '`if __name__ == "__main__":`'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


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


def _named(function: Callable[[Job], Answer], image_id: str, job: Job) -> Answer:
    """Return function(job). An error names the image, and is of a kind that can be sent back."""
    try:
        return function(job)
    except ForeseenError as error:
        raise ForeseenError(f"image {image_id}: {error}") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL | OF_A_PATH:
            raise
        named = RuntimeError(f"image {image_id}: {type(error).__name__}: {error}")
        named.add_note(traceback.format_exc())
        raise named from None


def _start_worker() -> None:
    """Prepare a worker: one thread, ignores Ctrl-C and a lost terminal, ends with its owner."""
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
