"""Which settings a search draws, and between which bounds.

A range is written `setting=low:high`, or `setting=low:high:log`, as in
`transfer.lambda_s=0.05:2:log`.
"""

import difflib
import math
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from wsss.config import RunConfig
from wsss.identity import cam_id
from wsss.overrides import ConfigError, apply_overrides
from wsss.printable import quoted

SIGNIFICANT_DIGITS = 4
"""Drawn values are rounded to these, so that the ids of equal trials are equal everywhere."""

EXAMPLE = "transfer.lambda_s=0.05:2:log"

KEY = re.compile(r"[A-Za-z_][\w.]{0,99}", re.ASCII)


@dataclass(frozen=True)
class Range:
    """The bounds of one setting; drawn evenly, or evenly in its logarithm."""

    key: str
    """Dotted setting of RunConfig."""
    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        return f"{self.key}={self.low:g}:{self.high:g}{':log' if self.log else ''}"

    def round(self, value: float) -> float:
        """Return a drawn value with four significant digits, never outside the bounds."""
        rounded = float(f"{value:.{SIGNIFICANT_DIGITS}g}")
        return min(max(rounded, self.low), self.high) + 0.0  # -0.0 becomes 0.0


@dataclass(frozen=True)
class SearchSpace:
    """The ranges of a search, each setting once."""

    ranges: tuple[Range, ...]

    def round(self, drawn: Mapping[str, float]) -> dict[str, float]:
        """Return drawn values as they are trained and remembered, in the order of the ranges."""
        return {r.key: r.round(float(drawn[r.key])) for r in self.ranges}

    def check(self, base: RunConfig) -> None:
        """Raise ConfigError for a range that cannot be searched from this configuration.

        Both bounds must be values which the setting takes, and must give different trainings.
        """
        names = float_settings()
        for r in self.ranges:
            if r.key not in base.flat():
                near = difflib.get_close_matches(r.key, names, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
                raise ConfigError(f"--space {r}: unknown setting {r.key!r}; {hint}")
            if r.key not in names:
                raise ConfigError(
                    f"--space {r}: {r.key} is not a number with decimals, and only those are "
                    f"searched: {', '.join(names)}"
                )
            ends = [self._at(base, r, value) for value in (r.low, r.high)]
            if cam_id(ends[0]) == cam_id(ends[1]):
                raise ConfigError(
                    f"--space {r}: {r.key} has no effect on this training; leave it out, or switch "
                    "on with --set what it belongs to"
                )

    def _at(self, base: RunConfig, r: Range, value: float) -> RunConfig:
        try:
            return apply_overrides(base, {r.key: value})
        except ConfigError as error:
            raise ConfigError(f"--space {r}: {error}; move the bound") from None


DEFAULT_SPACE = SearchSpace(
    (
        Range("transfer.lambda_s", 0.05, 2.0, log=True),
        Range("transfer.lambda_bs", 0.05, 2.0, log=True),
        Range("views.alpha_enhanced", 1.0, 2.0),
        Range("views.beta_enhanced", 0.0, 600.0),
        Range("views.alpha_decreased", 0.5, 1.0),
        Range("views.beta_decreased", -150.0, 300.0),
    )
)
"""About the paper's .5, .5, 1.5, 300, .8 and 150."""


def parse_space(words: Iterable[str]) -> SearchSpace:
    """Parse ranges of a command line; none give the default space.

    Raises ConfigError naming the word, the rule and the remedy.
    """
    ranges = tuple(_parse_range(word) for word in words)
    keys = [r.key for r in ranges]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"--space gives {key} twice; give one range for it")
    return SearchSpace(ranges) if ranges else DEFAULT_SPACE


def _parse_range(word: str) -> Range:
    key, separator, bounds = (part.strip() for part in word.partition("="))
    parts = [part.strip() for part in bounds.split(":")]
    if not separator or not KEY.fullmatch(key) or len(parts) not in (2, 3):
        raise ConfigError(
            f"--space {quoted(word)} is not setting=low:high[:log]; write it as {EXAMPLE}"
        )
    if len(parts) == 3 and parts[2] != "log":
        raise ConfigError(
            f"--space {quoted(word)}: {quoted(parts[2])} is no scale; write log, or leave it out"
        )
    low, high = (_parse_number(word, part) for part in parts[:2])
    if low >= high:
        raise ConfigError(f"--space {word!r}: low {low:g} is not below high {high:g}; swap them")
    log = len(parts) == 3
    if log and low <= 0:
        raise ConfigError(
            f"--space {word!r}: a logarithmic range starts above 0, not at {low:g}; raise it or "
            "leave out :log"
        )
    return Range(key, low, high, log)


def _parse_number(word: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(
            f"--space {quoted(word)}: {quoted(text)} is not a number; write it as {EXAMPLE}"
        )
    return number


def float_settings() -> tuple[str, ...]:
    """Return the dotted settings of RunConfig that take any number within bounds."""
    names = []
    for section, field in RunConfig.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += [
                f"{section}.{name}"
                for name, inner in kind.model_fields.items()
                if _takes_float(inner.annotation)
            ]
    return tuple(names)


def _takes_float(annotation: Any) -> bool:
    """Whether a type is float, also one with rules or one that may be None."""
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return any(_takes_float(part) for part in get_args(annotation))
    return annotation is float
