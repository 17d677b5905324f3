"""What guards an attempt: no change of code or packages goes unnoticed, and no hang lasts.

`attempts/0001.json` and so on in a training's folder record what each attempt ran with. Data and
weights need no guard here: their digests are part of the ids, so changed data is another training.

A heartbeat thread cannot detect a hang: it beats on while the training waits for ever. So the timer
is reset by progress itself, an optimiser step or a record. Python's faulthandler runs the timer in
a C thread, which acts even if the interpreter's lock is never released.
"""

import faulthandler
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Trial
from sweeps.store.code_version import source_digest, sources_of
from sweeps.store.store import Folder, Store
from wsss.basics.errors import ForeseenError
from wsss.basics.printable import counted, first_of

PACKAGES = ("torch", "torchvision", "numpy", "pillow")
"""Packages that results can depend on. Ray and MLflow only transport numbers."""

Origin = dict[str, str]


class ChangedError(ForeseenError, RuntimeError):
    """A half-trained network would be continued with other code or packages."""


@cache
def here() -> Origin:
    """Return what this process trains with: digest of the sources, and package versions.

    Only the sources of `wsss/` count: a new table or report changes no training.
    """
    return {
        "wsss sources": source_digest("wsss"),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def origins(folder: Folder) -> list[Origin]:
    """Return what a training's attempts ran with since its start, without repetitions."""
    found: list[Origin] = []
    for attempt in folder.attempts():
        if not attempt["resumed"]:
            found = []  # it started from scratch: nothing of earlier attempts is left
        if attempt["origin"] not in found[-1:]:
            found.append(attempt["origin"])
    return found


def is_half_trained(folder: Folder) -> bool:
    """Whether there is a checkpoint to continue from, of a training that is not finished."""
    return folder.result() is None and bool(folder.checkpoint_names())


def changes(folder: Folder) -> list[str]:
    """Return what differs between a training's last attempt and this process, as text."""
    known, now = origins(folder), here()
    last = known[-1] if known else {}
    return [
        f"{key} {last.get(key, 'not recorded')} -> {value}"
        for key, value in now.items()
        if last.get(key) != value
    ]


def claim(folder: Folder, *, accept_changes: bool) -> None:
    """Record what a new attempt at a training runs with.

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
    """Return a warning per half-trained trial that will continue across a change.

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
        "those, start from scratch with another --store, or continue anyway with --accept-changes"
    )


def mixture_notes(sweep: Sweep, store: Store) -> list[str]:
    """Return lines that say which of a sweep's results come from different code or packages.

    [] if all finished trials ran with the same and none was continued across a change.
    """
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    continued = []
    for trial in sweep.plan.trials:
        if metrics := store.run(trial.run_id).result():
            groups.setdefault(_kind(metrics.get("environment", {})), []).append(trial.name)
            if len(origins(store.cam(trial.cam_id))) > 1:
                continued.append(trial.name)
    notes = []
    if len(groups) > 1:
        common = set.intersection(*map(set, groups))
        parts = [
            f"{', '.join(f'{key} {value}' for key, value in kind if (key, value) not in common)}: "
            f"{first_of(names, 4)}"
            for kind, names in sorted(groups.items(), key=lambda item: -len(item[1]))
        ]
        notes.append(f"MIXED: results from different code, packages or devices. {'; '.join(parts)}")
    if continued:
        trials = first_of(continued, 4)
        notes.append(f"MIXED: trained across a change of code or packages: {trials}")
    return notes


def _kind(environment: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the part of a result's environment that its numbers can depend on."""
    values = {"code": sources_of(str(environment.get("code_version", "unknown")))}
    for key in ("python", "device", *PACKAGES):
        values[key] = str(environment.get(key, "unknown"))
    return tuple(values.items())


HANG_AFTER_SECONDS = 1800.0
"""Generous: between two signs of progress is at most a fifth of the inference."""


@contextmanager
def watchdog(stack_file: Path, limit: float) -> Iterator[Callable[[], None]]:
    """End the process `limit` seconds after the last sign of progress; yield what gives one.

    It appends the stacks of all threads to `stack_file`; the exit code is 1. A limit of 0 or less
    watches nothing. Only one per process at a time.
    """
    if limit <= 0:
        yield lambda: None
        return
    reset_at = 0.0

    def beat() -> None:
        nonlocal reset_at
        now = time.monotonic()
        if now - reset_at >= limit / 20:  # a reset starts a thread
            reset_at = now
            faulthandler.dump_traceback_later(limit, exit=True, file=file)

    from torch.optim.optimizer import register_optimizer_step_post_hook

    stack_file.parent.mkdir(parents=True, exist_ok=True)
    with stack_file.open("ab") as file:
        hook = register_optimizer_step_post_hook(lambda *_: beat())
        beat()
        try:
            yield beat
        finally:
            hook.remove()
            faulthandler.cancel_dump_traceback_later()
    if stack_file.exists() and not stack_file.stat().st_size:
        stack_file.unlink()


def num_hangs(folder: Path) -> int:
    """Return how often the processes of a run hung, from their stack files."""
    files = folder.glob("stack*.txt")
    return sum(path.read_bytes().count(b"Timeout (") for path in files)
