"""What guards an attempt: no change of code or packages goes unnoticed, and no hang lasts.

`attempts/0001.json` and so on in a training's folder say what each attempt ran with. Data and
weights need no guard here: their digests are part of the ids, so that changed data is another
training.

A thread that merely beats cannot tell a hang: it beats on while the training waits for ever. So the
clock is wound by progress itself, a step of an optimiser or a record, and it is Python's
faulthandler that watches it: a C thread, which acts even if the interpreter's lock is never freed.
"""

import faulthandler
import platform
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Trial
from sweeps.store.code_version import source_digest, sources_of
from sweeps.store.store import Folder, Store
from wsss.errors import ForeseenError
from wsss.printable import counted, first_of

PACKAGES = ("torch", "torchvision", "numpy", "pillow")
"""Those which a number can depend on. Ray and MLflow carry numbers and make none."""

Origin = dict[str, str]


class ChangedError(ForeseenError, RuntimeError):
    """A half-trained network would go on under other code or packages."""


@cache
def here() -> Origin:
    """Return what this process trains with: the sources of the method, and package versions.

    Of the sources only `wsss/` counts: a new table or another report changes no training.
    """
    return {
        "wsss sources": source_digest("wsss"),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def origins(folder: Folder) -> list[Origin]:
    """Return what a training's attempts ran with since it was begun, without repetition."""
    found: list[Origin] = []
    for attempt in folder.attempts():
        if not attempt["resumed"]:
            found = []  # it began anew: nothing is kept of the attempts before
        if attempt["origin"] not in found[-1:]:
            found.append(attempt["origin"])
    return found


def is_half_trained(folder: Folder) -> bool:
    """Whether there is a checkpoint to continue from, of a training that is not finished."""
    return folder.result() is None and bool(folder.checkpoint_names())


def changes(folder: Folder) -> list[str]:
    """Return what differs between a training's last attempt and this process, in words."""
    known, now = origins(folder), here()
    last = known[-1] if known else {}
    return [
        f"{key} {last.get(key, 'not recorded')} -> {value}"
        for key, value in now.items()
        if last.get(key) != value
    ]


def claim(folder: Folder, *, accept_changes: bool) -> None:
    """Record what an attempt at a training is about to run with.

    Raises ChangedError if it is half trained with something else, unless that is accepted.
    """
    resumed = bool(folder.checkpoint_names())
    if is_half_trained(folder) and not accept_changes and (changed := changes(folder)):
        raise ChangedError(_explain(folder.path.name, changed))
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    folder.add_attempt(
        {"origin": here(), "resumed": resumed, "host": platform.node(), "started": started}
    )


def check_half_trained(trials: Iterable[Trial], store: Store, *, accept_changes: bool) -> list[str]:
    """Return a warning per half-trained trial that will go on under a change.

    Raises ChangedError, which names them all, unless changes are accepted.
    """
    found = []
    for trial in trials:
        cam = store.cam(trial.cam_id)
        if is_half_trained(cam) and (changed := changes(cam)):
            found.append(f"{trial.name} is half trained, and {', '.join(changed)} since")
    if found and not accept_changes:
        raise ChangedError(_explain(counted(len(found), "trial"), found))
    return found


def _explain(what: str, changed: list[str]) -> str:
    return (
        f"{what}: trained in part with other code or packages: {'; '.join(changed)}; restore "
        "those, or start anew with another --store, or go on all the same with --accept-changes"
    )


def mixture_notes(sweep: Sweep, store: Store) -> list[str]:
    """Return lines that say which of a sweep's results come from different code or packages.

    [] if all finished trials ran with the same and none was continued across a change.
    """
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    continued = []
    for trial in sweep.plan.trials:
        if metrics := store.run(trial.run_id).metrics():
            groups.setdefault(_kind(metrics.get("environment", {})), []).append(trial.name)
            if len(origins(store.cam(trial.cam_id))) > 1:
                continued.append(trial.name)
    notes = []
    if len(groups) > 1:
        differing = [key for key, n in _values_per_key(groups).items() if n > 1]
        parts = [
            f"{', '.join(f'{key} {dict(kind)[key]}' for key in differing)}: {_named(names)}"
            for kind, names in sorted(groups.items(), key=lambda item: -len(item[1]))
        ]
        notes.append("MIXED: these results were not computed with the same. " + "; ".join(parts))
    if continued:
        notes.append(f"MIXED: trained across a change of code or packages: {_named(continued)}")
    return notes


def _named(trials: list[str]) -> str:
    return first_of(trials, 4)


def _kind(environment: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return of a result's environment what its numbers can depend on."""
    values = {"code": sources_of(str(environment.get("code_version", "unknown")))}
    for key in ("python", "device", *PACKAGES):
        values[key] = str(environment.get(key, "unknown"))
    return tuple(values.items())


def _values_per_key(groups: Iterable[tuple[tuple[str, str], ...]]) -> dict[str, int]:
    distinct = {pair for kind in groups for pair in kind}
    return Counter(key for key, _ in distinct)


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
