"""What every record is."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen, closed record."""

    model_config = ConfigDict(frozen=True, extra="forbid")
