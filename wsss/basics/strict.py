"""The base of what is set, or written to be read again, and what is wrong with it."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wsss.basics.printable import counted, one_line

_MAPPING = "must be names with their values, as `name: value`"
RULES = dict.fromkeys(("model_type", "dataclass_type", "dict_type"), _MAPPING)
RULES["tuple_type"] = "must be a list, as `[a, b]`"
"""What a message says instead of pydantic's words for types of Python."""

Percent = Annotated[float, Field(ge=0, le=100)]


class Strict(BaseModel):
    """Immutable, without unknown keys, NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def rule_of(problem: Mapping[str, Any]) -> str:
    """Return the rule that a value breaks, in words of a file, not of Python's types."""
    if problem["type"] == "too_short":
        return f"must have at least {counted(problem['ctx']['min_length'], 'item')}"
    said = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return RULES.get(problem["type"], said)


def first_problem(error: ValidationError) -> str:
    """Return where a record is wrong, and the rule that it breaks."""
    wrong = error.errors()[0]
    return one_line(": ".join(filter(None, (".".join(map(str, wrong["loc"])), rule_of(wrong)))))
