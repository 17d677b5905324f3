"""What a training was begun with, so that no change of code or packages goes unnoticed.

`attempts/0001.json` and so on in a training's folder say what each attempt ran with. Data and
weights need no guard here: their digests are part of the ids, so that changed data is another
training.
"""

import platform
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from functools import cache
from importlib.metadata import version
from typing import Any

from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Trial
from sweeps.store.code_version import source_digest, sources_of
from sweeps.store.store import Folder, Store
from wsss.errors import ForeseenError

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
        raise ChangedError(_explain(f"{len(found)} trials", found))
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
            f"{', '.join(f'{key} {dict(kind)[key]}' for key in differing)}: {_names(names)}"
            for kind, names in sorted(groups.items(), key=lambda item: -len(item[1]))
        ]
        notes.append("MIXED: these results were not computed with the same. " + "; ".join(parts))
    if continued:
        notes.append(f"MIXED: trained across a change of code or packages: {_names(continued)}")
    return notes


def _kind(environment: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return of a result's environment what its numbers can depend on."""
    values = {"code": sources_of(str(environment.get("code_version", "unknown")))}
    for key in ("python", "device", *PACKAGES):
        values[key] = str(environment.get(key, "unknown"))
    return tuple(values.items())


def _values_per_key(groups: Iterable[tuple[tuple[str, str], ...]]) -> dict[str, int]:
    distinct = {pair for kind in groups for pair in kind}
    return Counter(key for key, _ in distinct)


def _names(names: list[str], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
