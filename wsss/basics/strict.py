"""The base of what is set, or written to be read again."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Immutable, without unknown keys, NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
