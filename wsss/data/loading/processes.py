"""Processes that load data: how they start, and what they do where shared memory is short."""

import multiprocessing
import os
import signal
import sys
import tempfile
from multiprocessing.context import BaseContext
from multiprocessing.queues import Queue
from multiprocessing.util import get_temp_dir
from pathlib import Path
from shutil import disk_usage

from wsss.basics.pool import require_semaphores

SHARED_MEMORY = Path("/dev/shm")
LITTLE_SHARED_MEMORY = 1 << 30
"""Bytes. Docker gives a container 64 MiB; eight processes fill 150 MB with batches of 16 crops, and
Ray's objects lie there, too."""
MAX_BYTES = 64
"""Of the folder for temporary files: a socket's path may have 107, and Python appends up to 35."""
SHORT = "/tmp"


def loader_context(module: str) -> BaseContext:
    """Return a context whose processes are forked from one without threads.

    module: what they need, imported only once. Copies of this process would have its locks and
    memory as another thread, of Ray or MLflow, left them at that moment: now and then one hangs or
    crashes. Their sockets lie in a folder with a short path. Raises ForeseenError if this system
    makes no semaphores.
    """
    if len(os.fsencode(tempfile.gettempdir())) > MAX_BYTES:
        usual, tempfile.tempdir = tempfile.tempdir, SHORT
        try:
            get_temp_dir()  # remembers what it is now
        finally:
            tempfile.tempdir = usual
    context = multiprocessing.get_context("forkserver")
    require_semaphores(context)
    context.set_forkserver_preload(["__main__", module])
    return context


def has_little_shared_memory() -> bool:
    """Whether batches could fill what is free there."""
    return SHARED_MEMORY.is_dir() and disk_usage(SHARED_MEMORY).free < LITTLE_SHARED_MEMORY


def start_loading(worker: int) -> None:
    """Prepare a loading process: it ignores Ctrl-C and a lost terminal, as its training heeds them.

    It ends if it cannot send a batch, e.g. without shared memory. By default it would only print
    the error, and the training would wait for ever.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    def end(error: Exception, batch: object) -> None:
        print(f"loading process {worker} cannot send a batch: {error}", file=sys.stderr)
        os._exit(1)

    Queue._on_queue_feeder_error = staticmethod(end)  # type: ignore[attr-defined]
