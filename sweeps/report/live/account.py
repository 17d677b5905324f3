"""`sweeps ledger`: the hours that a sweep's attempts have used, by their use.

An attempt's time is split at the ends of its epochs. An epoch is useful the first time and repeated
after that. The rest of an attempt, such as scoring, is useful if the attempt finished its trial,
otherwise lost. A trial that failed for good is lost, unless another trial finished with the same
training. Idle is the capacity of a driver that no attempt used.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from rich.console import Console

from sweeps.report.document import Column, Grid, Heading, Row, RowGroup, Text
from sweeps.report.formats.terminal import print_blocks
from sweeps.report.live.cost_lines import format_hours
from sweeps.store.attempts import Attempt, Book, Unit, hours_between
from wsss.basics.printable import counted

Use = Literal["useful", "repeated", "lost", "running"]
"""running: hours of a running attempt since its last epoch, not yet useful or lost."""

USES: tuple[Use, ...] = get_args(Use)


@dataclass(frozen=True)
class Account:
    """The totals of a ledger, in hours of one unit."""

    unit: Unit
    useful: float
    repeated: float
    lost: float
    running: float
    idle: float
    reasons: dict[str, int]
    """Why attempts ended (or `running`) -> number of attempts."""

    @property
    def spent(self) -> float:
        """Hours of all attempts."""
        return self.useful + self.repeated + self.lost + self.running


def add_up(book: Book) -> Account:
    """Return the totals of a ledger; open attempts count up to their driver's last sign of life."""
    unit = book.unit
    uses = dict.fromkeys(USES, 0.0)
    for _, use, hours in classify(book):
        uses[use] += hours
    reasons: Counter[str] = Counter(attempt.why or "running" for attempt in book.attempts)
    return Account(unit, **uses, idle=_idle(book, unit), reasons=dict(reasons))


def classify(book: Book) -> Iterator[tuple[Attempt, Use, float]]:
    """Yield (attempt, use, hours of the ledger's unit) of each part of each attempt's time."""
    last = {attempt.run: attempt for attempt in book.attempts}
    served = {attempt.cam for attempt in book.attempts if attempt.why == "finished"}
    given_up = {a.run for a in last.values() if a.why == "failed" and a.cam not in served}
    best: dict[str, int] = defaultdict(int)
    for attempt in book.attempts:
        for use, hours in _parts(attempt, best, book.last_sign(attempt)):
            is_lost = use == "useful" and attempt.run in given_up
            yield attempt, "lost" if is_lost else use, hours * attempt.devices(book.unit)


def _parts(attempt: Attempt, best: dict[str, int], until: float) -> Iterator[tuple[Use, float]]:
    """Split an attempt's time; update in `best` the epoch that each training has reached."""
    at, known = attempt.start, attempt.cam
    for mark_at, epoch in attempt.marks:
        yield "useful" if epoch > best[known] else "repeated", hours_between(at, mark_at)
        at, best[known] = max(at, mark_at), max(best[known], epoch)
    rest: Use = "lost"
    if attempt.why in ("finished", None):
        rest = "running" if attempt.why is None else "useful"
    yield rest, hours_between(at, until if attempt.end is None else attempt.end)


def _idle(book: Book, unit: Unit) -> float:
    idle = 0.0
    for session in book.sessions.values():
        held = sum(
            attempt.hours(unit, session.last)
            for attempt in book.attempts
            if attempt.session == session.name
        )
        room = session.gpus if unit == "GPU" else session.cpus
        idle += max(0.0, room * hours_between(session.start, session.last) - held)
    return idle


def as_json(book: Book) -> dict[str, Any]:
    """Return totals and attempts as JSON: hours, and times in seconds since 1970."""
    account = add_up(book)
    attempts = [
        attempt.model_dump() | {"hours": attempt.hours(account.unit, book.last_sign(attempt))}
        for attempt in book.attempts
    ]
    return asdict(account) | {
        "spent": account.spent,
        "sessions": len(book.sessions),
        "attempts": attempts,
    }


def print_account(console: Console, name: str, book: Book) -> None:
    """Print the hours by use and by trial, and why attempts ended."""
    account = add_up(book)
    unit = account.unit
    attempts = Counter(attempt.title for attempt in book.attempts)
    spent: dict[tuple[str, Use], float] = defaultdict(float)
    for attempt, use, hours in classify(book):
        spent[attempt.title, use] += hours
    rows = tuple(
        Row((title,), (f"{number}", *(format_hours(spent[title, use]) for use in USES)))
        for title, number in attempts.items()
    )
    totals = (format_hours(getattr(account, use)) for use in USES)
    groups = RowGroup("", rows), RowGroup("", (Row(("all",), (f"{len(book.attempts)}", *totals)),))
    title = f"sweep {name}: {unit}-hours"
    grid = Grid(title, ("trial",), tuple(map(Column, ("attempts", *USES))), groups)
    print_blocks(console, (Heading(title), grid, *map(Text, _lines(account, book))))


def _lines(account: Account, book: Book) -> list[str]:
    reasons = ", ".join(f"{count} {why}" for why, count in sorted(account.reasons.items()))
    text = f"{format_hours(account.spent)} {account.unit}-hours spent"
    attempts = counted(len(book.attempts), "attempt")
    lines = [f"{text} by {attempts} ({reasons}); {format_hours(account.idle)} more idle"]
    if account.unit == "CPU":
        lines.append("no attempt held a GPU, so CPU-hours are counted")
    return lines
