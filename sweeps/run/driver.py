"""Drives the tables of a sweep, a search or a headline from the command line.

Each is a `Subject`. What they share is here: the lock of the one driver, starting Ray, showing and
tracking progress, all ways to end, and the command that resumes. Ray and MLflow are imported only
if something is missing.
"""

import os
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout
from rich.console import Console

from sweeps.plan.states import DRIVER_FILE
from sweeps.report.formats.terminal import as_rich
from sweeps.run.budget import Budget
from sweeps.run.dispatch import CommonError, Dispatch, Listener, Runner
from sweeps.run.ray.resources import Resources, concurrency
from sweeps.run.ray.start import running_ray, watched_head
from sweeps.run.signals import Interrupts, as_ctrl_c, held_back, lose_output
from sweeps.store.errors import StoreError
from sweeps.store.rooms import DRIVER_LOCK, Driven
from sweeps.store.store import Store, read_json, write_json
from sweeps.track.address import tracking_uri, without_password
from wsss.basics.printable import command, counted, own_command
from wsss.config import NetworkConfig
from wsss.weights import NAMES

if TYPE_CHECKING:  # those load MLflow, boto3 or NumPy
    from sweeps.stages.stage import Place
    from sweeps.store.local_lock import LocalLock
    from sweeps.store.remote.lease import Lease
    from sweeps.track.tracker import Tracker
    from sweeps.track.view import Summary, Tracked

    Held = Lease | LocalLock

INTERRUPTED, FAILED = 130, 1
SECONDS_TO_LOOK = 1.0
"""Before a start is refused: a command that downloads holds each lock for a moment (`_at_work`)."""
NOT_COMPLETE = "not complete; give the same command again to try what failed"
LOST = (
    "Ray's head at {} does not answer any more; a minute after its loss Ray ends this process. "
    "What is saved is kept. Once Ray runs again, this resumes:\n{}"
)
STOPPED = (
    "stopped: several {noun}s met the same error, so the others would too: {error}\n"
    "traceback: {file}\n"
    "fix its cause and give the same command again; what is finished is kept"
)

Say = Callable[..., None]
"""Prints lines."""


@dataclass(frozen=True)
class Ending:
    """How a start of the driver ended."""

    interrupted: bool = False
    """Whether a signal ended it."""
    common_error: CommonError | None = None
    """The error that stopped it, since several trials met it."""
    over_budget: bool = False


class Subject(ABC):
    """What is driven."""

    while_driven = "wait for it or end it"
    """The remedy while another process drives it."""
    noun = "trial"
    """What each piece of it is called."""
    page = Path("report/report.html")
    """Of its report, within its folder."""
    networks: list[NetworkConfig]
    """All networks that are trained."""

    def __init__(self, what: Driven, place: "Place") -> None:
        self.what, self.place, self.store = what, place, place.store
        self.folder = self.store.root / what.path

    @abstractmethod
    def prepare(self, resources: Resources) -> list[str]:
        """Download what the bucket has.

        Returns lines for a person: how much is done and missing, and any warning before the start.
        """

    @abstractmethod
    def write_down(self) -> None:
        """Write the subject's description into its folder; not called if the start is refused."""

    @abstractmethod
    def missing(self) -> Sequence[Any]:
        """Return what is left to run."""

    def accounts(self, resources: Resources) -> AbstractContextManager[Budget | None]:
        """Return the budget that counts hours while trials run, if there is one."""
        return nullcontext(None)

    def begin_alone(self, check_lock: Callable[[], None]) -> list[str]:
        """Prepare as the only driver; return lines for a person. Raises what forbids a start.

        check_lock: raises StoreError once another machine has taken the lock over.
        """
        return []

    def needs_ray(self, resources: Resources) -> bool:
        """Whether Ray does the work, not this process."""
        return True

    @abstractmethod
    def runner(self, resources: Resources) -> Runner[Any]:
        """Return what runs all that is missing; Ray is running by now, if needed."""

    def watched(self, console: Console) -> AbstractContextManager[list[Listener]]:
        """Return the listeners that show progress while trials run."""
        return nullcontext([])

    @abstractmethod
    def tracked(self) -> "Tracked":
        """Return it as MLflow is to show it."""

    def tracker(self) -> "Tracker":
        """Return a tracker that logs it to MLflow."""
        from sweeps.track.tracker import Tracker

        return Tracker(self.store, self.tracked())

    @abstractmethod
    def results(self) -> list[str]:
        """Return names of the present results; the list changes whenever they do."""

    @abstractmethod
    def show(self, console: Console) -> None:
        """Print the final tables."""

    def how_to_continue(self, resources: Resources) -> list[str]:
        """Return, once the budget is spent, how to continue with a larger one."""
        return []

    @abstractmethod
    def report(self) -> list[str]:
        """Write a report, attach it to the MLflow run, and return lines that say where it is.

        Not called after an interruption, nor if it is there and MLflow already has all results.
        """

    def attach(self, page: Path, said: "Summary | None" = None) -> list[str]:
        """Attach a written report to the MLflow run; return lines, the last says where it is."""
        tracker = self.tracker()
        tracker.log_report(page.parent.iterdir(), said)
        return [*tracker.remarks("the report", sync_command(self.store)), f"report: {page}"]

    @abstractmethod
    def failures(self) -> list[str]:
        """Return a line per failure, and the remedy; [] without failures."""


class Output(Console):
    """Standard output, which may be a pipe whose reader ends first: Ctrl-C also ends a `tee`."""

    def on_broken_pipe(self) -> None:
        """End in order; Rich would exit, and so end all trials at once."""
        lose_output()


def drive(subject: Subject, resources: Resources) -> int:
    """Run what is missing, log it, print the tables; return the process's exit code.

    0: complete; 1: some of it failed, or several trials met the same error; 130: interrupted, or
    the budget is spent. Raises StoreError if another process drives the subject, ChangedError for
    half-trained networks of other code, ClusterError, WeightsError, ConfigError or CapacityError,
    all before any trial starts.
    """
    console = Output()
    say = printer(console)
    with suppress(KeyboardInterrupt), as_ctrl_c():
        return _drive(subject, resources, console, say)
    left = "resumes from here" if subject.missing() else "only logs and reports the results"
    say(f"interrupted; the same command {left}:", own_command())
    return INTERRUPTED


def _drive(subject: Subject, resources: Resources, console: Console, say: Say) -> int:
    """Return the exit code. Raises KeyboardInterrupt if it was interrupted with work left."""
    subject.store.check_writable()
    say(*subject.prepare(resources))
    ending, mlflow_page = Ending(), ""
    if subject.missing():
        resources.require_cluster()
        ending = _run_tracked(subject, resources, console, say)
    else:
        subject.write_down()
        mlflow_page = _tracked_page(subject)
    was_tracked = bool(mlflow_page)
    if not was_tracked:
        with held_back():  # otherwise an MLflow run could stay RUNNING for ever
            mlflow_page = _track(subject, say)
    if error := ending.common_error:
        say(STOPPED.format(noun=subject.noun, error=error.note, file=error.traceback_file))
    is_missing = bool(subject.missing())
    is_spent = ending.over_budget and is_missing and not ending.interrupted
    if is_spent:
        say(*subject.how_to_continue(resources))
    subject.show(console)
    subject.store.folder(subject.what.path).push()
    if ending.interrupted and is_missing:
        raise KeyboardInterrupt
    written = subject.folder / subject.page
    if was_tracked and written.exists():
        say(f"report: {written}")
    else:
        say(*subject.report())
        subject.store.folder(subject.what.path).push()
    if mlflow_page:
        say(f"MLflow: {mlflow_page}")
    if is_spent:
        return INTERRUPTED
    failures = subject.failures()
    say(*failures)
    return FAILED if failures or ending.common_error else 0


def printer(console: Console) -> Say:
    """Return what prints lines on a console, unwrapped and without markup."""

    def say(*lines: str) -> None:
        for line in lines:
            style = "yellow" if line.startswith("warning: ") else ""
            console.print(as_rich(line, style), soft_wrap=True)

    return say


# Running


class DrivenError(StoreError):
    """Another process runs the sweep, search or headline."""


@contextmanager
def driving(store: Store, what: Driven, while_driven: str) -> "Iterator[Held]":
    """Hold something's folder in the store as its only driver, in a bucket by a lease.

    Yields the lock. while_driven: the remedy while another process drives it.

    Raises DrivenError naming the other driver, if there is one. If another machine takes the lease
    over, this process is interrupted as by Ctrl-C, and a StoreError says so.
    """
    folder = store.root / what.path
    lock = store.remote.lock(what.path, folder / DRIVER_LOCK)
    lock.on_lost = lambda: os.kill(os.getpid(), signal.SIGINT)
    holder = folder / DRIVER_FILE
    try:
        with lock.acquire(timeout=SECONDS_TO_LOOK):
            since = datetime.now().astimezone().isoformat(timespec="seconds")
            write_json(holder, {"pid": os.getpid(), "host": socket.gethostname(), "since": since})
            try:
                yield lock
            finally:
                holder.unlink(missing_ok=True)
            lock.check()
    except Timeout as held:
        who: object = held
        if not store.remote.url:
            with suppress(StoreError, KeyError, TypeError):  # not written yet, or damaged
                who = "process {pid} on {host}, since {since}".format(**read_json(holder))
        raise DrivenError(f"another process runs {what.title} ({who}); {while_driven}") from None


def run_missing(
    subject: Subject, resources: Resources, listeners: list[Listener], say: Say
) -> Ending:
    """Run what is missing of a subject; raises as `drive` does.

    Stops early and orderly after a signal, a spent budget, or an error that several trials met; a
    second signal raises KeyboardInterrupt.
    """
    download_weights(subject.networks)
    with ExitStack() as stack:
        lock = stack.enter_context(driving(subject.store, subject.what, subject.while_driven))
        budget = stack.enter_context(subject.accounts(resources))
        if budget and budget.reason():
            return Ending(over_budget=True)
        say(*subject.begin_alone(lock.check))
        at_once, ledger = 1, budget.ledger if budget else None
        if subject.needs_ray(resources):
            say(resources.first_words)
            stack.enter_context(running_ray(resources))
            stack.enter_context(watched_head(lambda head: say(LOST.format(head, own_command()))))
            at_once = concurrency(resources)
            say(f"Ray is ready: {counted(at_once, subject.noun)} at a time")
        interrupts = stack.enter_context(Interrupts())
        subject.write_down()
        if ledger:
            ledger.may_hold(at_once)
            listeners = [*listeners, ledger]

        def why_end() -> str | None:
            return interrupts.requested or (budget.reason() if budget else None)

        runner, note_end = subject.runner(resources), ledger.ended if ledger else None
        dispatch = Dispatch(runner.source, listeners, why_end, say, note_end)
        runner.run(dispatch, at_once)
        is_spent = budget is not None and budget.reason() is not None
        return Ending(interrupts.requested is not None, dispatch.common_error, is_spent)


def download_weights(networks: Iterable[NetworkConfig]) -> None:
    """Load ImageNet weights once here, so that a failed download is met before trials start.

    A file of weights was checked while planning. Imports torch only if weights are to be loaded.
    Raises WeightsError.
    """
    distinct = {(network.backbone, network.weights): network for network in networks}
    for network in distinct.values():
        if network.weights in NAMES and network.weights != "none":
            from wsss.networks.backbone import build_backbone

            build_backbone(network)


# Tracking


def _run_tracked(subject: Subject, resources: Resources, console: Console, say: Say) -> Ending:
    """Run what is missing; show progress and log to MLflow meanwhile."""
    from sweeps.track.thread import TrackingThread

    with TrackingThread(subject.tracker(), say) as thread:
        try:
            with subject.watched(console) as listeners:
                return run_missing(subject, resources, [*listeners, thread], say)
        except KeyboardInterrupt:
            return Ending(interrupted=True)


def _track(subject: Subject, say: Say) -> str:
    """Bring MLflow up to date and remember for which results; return their page, "" on failure."""
    tracker = subject.tracker()
    if not tracker.finish():
        say(
            f"MLflow: {tracker.address} is not up to date: {tracker.problem}; then give "
            f"{sync_command(subject.store)}"
        )
        return ""
    if not subject.missing():
        write_json(_tracking_file(subject), _tracking_state(subject, tracker.page))
    say(*(f"MLflow: {note}" for note in tracker.notes))
    say(f"MLflow: {tracker.address} is up to date")
    return tracker.page


def sync_command(store: Store) -> str:
    """Return the command that logs what MLflow lacks of a store, reports included."""
    return f"`{command('sweeps', 'sync', '--store', store.address)}`"


def _tracked_page(subject: Subject) -> str:
    """Return the MLflow page of these very results; "" if MLflow lacks some of them."""
    saved = read_json(_tracking_file(subject))
    page = str(saved.get("page", "")) if isinstance(saved, dict) else ""  # or anything
    return page if saved == _tracking_state(subject, page) else ""


def _tracking_file(subject: Subject) -> Path:
    return subject.folder / "tracking.json"


def _tracking_state(subject: Subject, page: str) -> dict[str, Any]:
    uri = without_password(tracking_uri(subject.store))
    return {"uri": uri, "results": subject.results(), "page": page}
