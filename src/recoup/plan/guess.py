"""What was recognised on a machine, as input for a first plan. Guesses carry their reasons; values are no secrets.

A field called ``…_template`` is text of the plan: it may hold ``${VAR}``. Every other text is literal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class GuessedService:
    """One service as it will stand in the plan. ``reasons`` say, in a few words each, how it was recognised."""

    name: str
    engine: Literal["postgres", "redis", "files", "compose"]
    reasons: tuple[str, ...] = ()
    compose: str | None = None  #: its name in the Compose file
    image: str | None = None
    url_template: str | None = None  #: where it is, without Compose; a password only as a reference
    user_template: str | None = None  #: only when Recoup cannot read it from the container's environment
    password_template: str | None = None  #: likewise; a reference
    databases: tuple[str, ...] = ()
    health: str | None = None  #: a web address, as seen from this machine
    after: tuple[str, ...] = ()  #: names of other guessed services
    paths: tuple[str, ...] = ()  #: for files
    git: str | None = None  #: for files: the work tree


@dataclass(frozen=True, slots=True, kw_only=True)
class UnprotectedVolume:
    """Something that holds data of which no copy is made, and why."""

    volume: str  #: its name, or the folder of a bind mount
    used_by: tuple[str, ...]  #: services
    reason: str = ""

    def __str__(self) -> str:
        used = f" (used by {', '.join(self.used_by)})" if self.used_by else ""
        return f"{self.volume}{used}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Everything a first plan is written from. Paths are relative to the plan's folder where they can be."""

    system: str
    services: tuple[GuessedService, ...]
    compose_files: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    project: str | None = None
    source: str | None = None  #: the Git address the project was cloned from
    unprotected: tuple[UnprotectedVolume, ...] = ()
    notes: tuple[str, ...] = ()  #: what the user should look at; each a sentence
