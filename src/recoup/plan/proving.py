"""The part of a plan about proving copies: which grade, how often, and how much it may take."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recoup.plan.services import Section
from recoup.plan.types import Duration, DurationOrZero, Size

Grade = Literal["stored", "intact", "boots", "sound", "same", "works"]


class Budget(Section):
    """What one verification may take. What it does not get to is unknown, and said."""

    time: Duration | None = Field(default=None, description="How long it may take; by default as long as it needs.")
    disk: Size | None = Field(
        default=None,
        description="How much room a restored copy may take on the disk of the state folder; by default all but what "
        "is kept free (5 % of the disk, 1 GiB at least).",
    )
    processors: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None,
        description="On how many processors it runs at most. Scheduled verification lets everything else go first in "
        "any case.",
    )


class Verify(Section):
    """How well copies are proven, and when."""

    after_backup: Grade = Field(default="intact", description="Right after each backup.")
    daily: Grade | None = Field(default=None, description="Each day, the newest copy.")
    weekly: Grade | None = Field(default=None, description="Each week, the newest copy.")
    monthly: Grade | None = Field(default=None, description="Each month, the newest copy.")
    grace: DurationOrZero | None = Field(
        default=None,
        description="How long after its time a proof still holds; by default half of the time from one to the next, "
        "so that a daily proof expires after 36 hours, a weekly one after 10.5 days, a monthly one after 46.5.",
    )
    every_byte: Duration | None = Field(
        default=None,
        description="Reads every stored byte of every copy again within this time, a slice each day.",
    )
    budget: Budget = Field(default=Budget(), description="What one verification may take.")

    def rhythm(self) -> dict[str, Grade]:
        """The grade that is proven again and again, by ``daily``, ``weekly`` and ``monthly``."""
        grades = {"daily": self.daily, "weekly": self.weekly, "monthly": self.monthly}
        return {name: grade for name, grade in grades.items() if grade is not None}
