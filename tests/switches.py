"""The switches among the settings, and few configurations that try them out in all pairs."""

import itertools
from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic.fields import FieldInfo

from wsss.config import Settings

SHORT_RANGE = 10
"""A whole number with at most so many steps between its bounds is a switch of the two."""

Values = Mapping[str, tuple[Any, ...]]


def switches(model: type[Settings], *, without: Collection[str] = ()) -> Values:
    """Return the values of each setting that has few: a Literal, a bool, a short range."""
    if unknown := set(without) - set(model.model_fields):
        raise ValueError(f"{model.__name__} has no {', '.join(sorted(unknown))}; take it off")
    found = {name: values_of(field) for name, field in model.model_fields.items()}
    return {name: values for name, values in found.items() if values and name not in without}


def values_of(field: FieldInfo) -> tuple[Any, ...]:
    """Return a setting's values if they are few, else none."""
    low = [bound.ge for bound in field.metadata if isinstance(bound, Ge)]
    high = [bound.le for bound in field.metadata if isinstance(bound, Le)]
    if field.annotation is int and low and high:
        return (low[0], high[0]) if high[0] - low[0] <= SHORT_RANGE else ()
    return _members(field.annotation)


def each_once(values: Values) -> list[dict[str, Any]]:
    """Return as few settings as hold every value of every switch."""
    count = max(map(len, values.values()))
    return [
        {name: several[row % len(several)] for name, several in values.items()}
        for row in range(count)
    ]


def in_pairs(values: Values) -> list[dict[str, Any]]:
    """Return settings among which every two values of two switches come together.

    So a switch that counts only under one value of another is tried there. Greedy: each switch
    takes the value that makes most new pairs.
    """
    if len(values) < 2:
        return [{name: value} for name, several in values.items() for value in several]
    missing = [
        {one: first, other: second}
        for one, other in itertools.combinations(values, 2)
        for first in values[one]
        for second in values[other]
    ]
    rows = []
    while missing:
        row = dict(missing[0])
        for name in values:
            if name not in row:
                tries = [row | {name: value} for value in values[name]]
                row = max(tries, key=lambda tried: _num_pairs(missing, tried))
        rows.append(row)
        missing = [pair for pair in missing if not pair.items() <= row.items()]
    return rows


def _num_pairs(pairs: list[dict[str, Any]], row: dict[str, Any]) -> int:
    return sum(pair.items() <= row.items() for pair in pairs)


def _members(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) is Literal:
        return get_args(kind)
    return (False, True) if kind is bool else ()
