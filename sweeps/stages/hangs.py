"""Ends a process that makes no progress, after writing down where each of its threads stands.

A thread that merely beats cannot tell a hang: it beats on while the training waits for ever. So
the clock is wound by progress itself, a step of an optimiser or a record, and it is Python's
faulthandler that watches it: a C thread, which acts even if the interpreter's lock is never freed.
"""

import faulthandler
import time
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

HANG_AFTER_SECONDS = 1800.0
"""Generous: between two signs of progress lies at most a fifth of the inference."""


class Watchdog:
    """Ends the process `limit` seconds after the last sign of progress. Use as a context manager.

    The stacks of all threads are appended to `stack_file`; the exit code is 1. A limit of 0 or
    less watches nothing. One per process at a time.
    """

    def __init__(self, stack_file: Path, limit: float) -> None:
        self.stack_file, self.limit = stack_file, limit
        self.wound_at = 0.0
        self.file: BinaryIO | None = None
        self.hook: Any = None
        self.ended = False

    def __enter__(self) -> "Watchdog":
        if self.limit <= 0:
            return self
        from torch.optim.optimizer import register_optimizer_step_post_hook

        self.stack_file.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.stack_file.open("ab")
        self.hook = register_optimizer_step_post_hook(lambda *_: self.beat())
        self.beat()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.file is None:
            return
        self.ended = True
        faulthandler.cancel_dump_traceback_later()
        self.hook.remove()
        self.file.close()
        if self.stack_file.exists() and not self.stack_file.stat().st_size:
            self.stack_file.unlink()

    def beat(self) -> None:
        """Take note of progress."""
        now = time.monotonic()
        # Winding starts a thread, so hundreds of steps a second share one.
        if self.file is None or self.ended or now - self.wound_at < self.limit / 20:
            return
        self.wound_at = now
        faulthandler.dump_traceback_later(self.limit, exit=True, file=self.file)


def num_hangs(folder: Path) -> int:
    """Return how often the processes of a run hung, as far as their stack files tell."""
    files = folder.glob("stack*.txt")
    return sum(path.read_bytes().count(b"Timeout (") for path in files)
