"""The base of what is set, or written to be read again, and what is wrong with it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wsss.basics.printable import printable

Percent = Annotated[float, Field(ge=0, le=100)]


class Strict(BaseModel):
    """Immutable, without unknown keys, NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def first_problem(error: ValidationError) -> str:
    """Return where a record is wrong, and why."""
    wrong = error.errors()[0]
    if wrong["type"] in ("model_type", "dataclass_type"):  # whose words name a class of ours
        wrong["msg"] = "Input should be a dictionary"
    return printable(": ".join(filter(None, (".".join(map(str, wrong["loc"])), wrong["msg"]))))
