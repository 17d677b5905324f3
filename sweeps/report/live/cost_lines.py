"""A cost estimate in words."""

from sweeps.plan.cost import CostEstimate
from wsss.basics.printable import counted

UNKNOWN_TIME = "time left: not known yet"


def cost_lines(cost: CostEstimate, *, concurrent: int = 1) -> list[str]:
    """Return the time left, also for `concurrent` trials at a time, and how it is estimated."""
    left, unknown = len(cost.trials), cost.num_unknown
    if not left:
        return ["nothing left to run"]
    if unknown == left:
        why = "no trial has ended yet; to measure it, add --probe 20 to the same `sweeps run`"
        if cost.num_measured:
            why = "no measured trial is like them"
        return [f"{counted(left, 'trial')} to run, time unknown: {why}"]
    times = f"{format_seconds(cost.seconds)} one at a time"
    if concurrent > 1:
        at_once = format_seconds(cost.seconds_at(concurrent))
        times += f", {at_once} at {concurrent} at a time if they do not slow each other down"
    device = "GPU" if cost.device == "cuda" else "CPU"
    lines = [
        f"{counted(left - unknown, 'trial')} to run: about {times}; {cost.device_hours:.2g} "
        f"{device}-hours at one {device} per process; {format_bytes(cost.gibibytes)} more on disk",
        f"estimated from {counted(cost.num_measured, 'measured trial')} on {cost.device}: "
        f"{cost.count('same')} from the same configuration, {cost.count('scaled')} scaled by views "
        "and epochs",
    ]
    if unknown:
        more = counted(unknown, "more trial")
        lines.append(f"{more} to run, time unknown: no measured trial is like them")
    return lines


def time_left(cost: CostEstimate) -> str:
    """Return the time left in a few words."""
    if not cost.trials:
        return "nothing left to run"
    if cost.num_unknown == len(cost.trials):
        return UNKNOWN_TIME
    more = f", and {counted(cost.num_unknown, 'trial')} of unknown time" if cost.num_unknown else ""
    return f"about {format_seconds(cost.seconds)} left one trial at a time{more}"


def format_seconds(seconds: float) -> str:
    """Return a duration as 45 s, 12 min or 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def format_bytes(gibibytes: float) -> str:
    """Return a size as 12 MiB or 3.4 GiB."""
    return f"{gibibytes * 1024:.0f} MiB" if gibibytes < 1 else f"{gibibytes:.1f} GiB"


def format_hours(hours: float) -> str:
    """Return hours with a sensible number of digits: 123.4, 5.67, 0.0123."""
    if hours == 0:
        return "0"
    return f"{hours:.1f}" if hours >= 100 else f"{hours:.2f}" if hours >= 1 else f"{hours:.2g}"
