"""How a start of the driver ends before its work does: by a signal, or when the budget is spent.

Both ask for an orderly end: nothing starts any more, and what is at work is ended once it has saved
a checkpoint or is past its training. So nothing is lost but the steps since, and the scoring, which
is short. A second signal ends at once. The signals are SIGINT, SIGTERM and SIGHUP. Python allows
handlers in the main thread alone; in any other, none of this heeds them.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # `wsss`, which handles signals too, starts without them
    from sweeps.run.budget import Budget
    from sweeps.store.store import Store

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TUNE_HANDLER = "TUNE_DISABLE_SIGINT_HANDLER"

Handler = Callable[[int, FrameType | None], None] | signal.Handlers


@contextmanager
def handled(numbers: Iterable[int], handler: Handler) -> Iterator[None]:
    """Handle signals by this for a while. Processes started meanwhile ignore what it ignores."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@contextmanager
def held_back() -> Iterator[None]:
    """Let signals wait; at the end each that came is delivered, once.

    For `ray.init` and `ray.shutdown`: the first swallows a KeyboardInterrupt at one place and at
    another leaves a process that crashes at its end. And for what must be said at the end.
    """
    noted: list[int] = []
    try:
        with handled(SIGNALS, lambda number, frame: noted.append(number)):
            yield
    finally:
        for number in dict.fromkeys(noted):
            signal.raise_signal(number)


@contextmanager
def as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt, as SIGINT does."""
    terminals = _terminals()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _leave(terminals)
        raise KeyboardInterrupt

    with handled(_heeded() - {signal.SIGINT}, interrupt):
        yield


class Interrupts:
    """Takes the three signals over while trials run. Use as a context manager.

    The first one sets `requested`; a further SIGINT or SIGTERM raises KeyboardInterrupt. A further
    SIGHUP does not, as a terminal that closes may send two.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        """The first signal's name."""
        self.on_first: Callable[[str], None] = lambda name: None
        """Called in the handler of the first one, with its name."""
        self.terminals = _terminals()
        self.stack = ExitStack()

    def __enter__(self) -> "Interrupts":
        self.stack.enter_context(handled(_heeded(), self._handle))
        self.stack.enter_context(_without_tunes_handler())
        return self

    def __exit__(self, *exc: object) -> None:
        self.stack.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _leave(self.terminals)
        elif self.requested is not None:
            raise KeyboardInterrupt
        if self.requested is None:
            self.requested = signal.Signals(number).name
            self.on_first(self.requested)


def _heeded() -> set[signal.Signals]:
    """Return the three, without SIGHUP where it is ignored already, as under nohup."""
    is_deaf = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return set(SIGNALS) - ({signal.SIGHUP} if is_deaf else set())


def _terminals() -> list[int]:
    """Return the descriptors of standard output and error, if a person reads them."""
    return [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]


def _leave(terminals: list[int]) -> None:
    """Write nowhere from now on: to print on a closed terminal is an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in terminals:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


@contextmanager
def _without_tunes_handler() -> Iterator[None]:
    """Tune's own handler of SIGINT would end trials in mid-epoch."""
    before = os.environ.get(TUNE_HANDLER)
    os.environ[TUNE_HANDLER] = "1"
    try:
        yield
    finally:
        os.environ.pop(TUNE_HANDLER)
        if before is not None:
            os.environ[TUNE_HANDLER] = before


ORDERLY = (
    "{why}: starting no more {noun}s. Those running continue to their next checkpoint, then all "
    "stops; another signal stops all at once, and work since the last checkpoint is repeated."
)


class OrderlyEnd:
    """Says whether work may still start, and when what is at work may be ended.

    noun: what a piece of work is called.
    """

    def __init__(
        self,
        store: "Store",
        interrupts: Interrupts,
        budget: "Budget | None",
        say: Callable[[str], None],
        noun: str = "trial",
    ) -> None:
        self.store, self.interrupts, self.budget = store, interrupts, budget
        self.say, self.noun = say, noun
        self.waiting: dict[str, _Reached] | None = None
        """Run id -> how far its training was when the end was asked for; None before that."""
        self.is_said = False
        interrupts.on_first = self._say_soon

    def reason(self) -> str | None:
        """Return why nothing more may start; None if it may."""
        if self.interrupts.requested:
            return self.interrupts.requested
        return self.budget.reason() if self.budget else None

    def is_due(self, at_work: Mapping[str, str], epochs: Mapping[str, float]) -> bool:
        """Whether all that is at work may be ended now.

        at_work: run id -> path in the store of its training. epochs: run id -> the last reported
        epoch.
        """
        why = self.reason()
        if why is None:
            return False
        if self.waiting is None:
            self.waiting = {
                run_id: self._reached(rel, epochs.get(run_id, 0.0))
                for run_id, rel in at_work.items()
            }
            if not self.is_said:
                self.say(self._words(why))
        self.waiting = {
            run_id: then
            for run_id, then in self.waiting.items()
            if run_id in at_work
            and not self._is_safe(at_work[run_id], then, epochs.get(run_id, 0.0))
        }
        return not self.waiting

    def _say_soon(self, why: str) -> None:
        """Say it now, though this process be at work: from a thread, as a handler may not print."""
        self.is_said = True
        threading.Thread(target=self.say, args=(self._words(why),)).start()

    def _words(self, why: str) -> str:
        return ORDERLY.format(why=why, noun=self.noun)

    def _reached(self, rel: str, epoch: float) -> "_Reached":
        return _Reached(set(self.store.folder(rel).checkpoint_names()), epoch)

    def _is_safe(self, rel: str, then: "_Reached", epoch: float) -> bool:
        """Whether a checkpoint came since. On another machine, two epochs later one must have."""
        now = self._reached(rel, epoch)
        return (
            self.store.folder(rel).result() is not None
            or bool(now.checkpoints - then.checkpoints)
            or now.epoch >= then.epoch + 2
        )


class _Reached(NamedTuple):
    """How far a training is."""

    checkpoints: set[str]
    epoch: float
