"""Placing, listing and releasing holds in every repository of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from recoup.assembly.system import System
from recoup.kernel import clock, ids
from recoup.kernel.errors import RecoupError, UsageError, WrongKeyError
from recoup.repository.catalog import read_catalog
from recoup.repository.holds import HoldRecord, place_hold, read_holds, release_hold
from recoup.repository.layout import SAFE_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The holds of a plan's repositories. ``places`` are by the hold's name; ``failed`` repositories did not answer."""

    records: tuple[HoldRecord, ...]
    places: Mapping[str, tuple[str, ...]]
    problems: tuple[tuple[str, str, str], ...]  #: repository, name, what is wrong
    failed: Mapping[str, RecoupError]


def list_holds(system: System) -> Held:
    """Every hold in every repository that answers."""
    opened = system.open()
    failed, problems = dict(opened.failed), []
    records: dict[str, HoldRecord] = {}
    places: dict[str, tuple[str, ...]] = {}
    for repository in opened.repositories:
        try:
            found = read_holds(repository)
        except WrongKeyError:
            raise
        except RecoupError as failure:
            failed[repository.name] = failure
            continue
        problems += [(repository.name, name, what) for name, what in found.problems]
        for record in found.records:
            records.setdefault(record.name, record)
            places[record.name] = (*places.get(record.name, ()), repository.name)
    ordered = tuple(sorted(records.values(), key=lambda one: (one.created, one.name)))
    return Held(records=ordered, places=places, problems=tuple(problems), failed=failed)


def hold(system: System, name: str, *, reason: str, since: str | None) -> dict[str, RecoupError | None]:
    """Place a hold in every repository; how it went, by repository.

    ``since`` is an artefact's id or an instant; None holds everything. Raise ``UsageError`` for what is neither.
    """
    if not SAFE_NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a hold", hint="Use letters, digits, '.', '_' and '-'.")
    if not reason.strip():
        raise UsageError("a hold needs its reason", hint="Say for those who find it why it is there: --reason TEXT.")
    opened = system.open()
    begins, artefact = None, None
    if since is not None:
        begins, artefact = _beginning(system, since)
    record = HoldRecord(name=name, begins=begins, reason=reason.strip(), created=clock.now(), artefact=artefact)
    outcome: dict[str, RecoupError | None] = dict(opened.failed)
    for repository in opened.repositories:
        try:
            place_hold(repository, record)
            outcome[repository.name] = None
        except RecoupError as failure:
            outcome[repository.name] = failure
    return outcome


def release(system: System, name: str) -> tuple[dict[str, RecoupError], int]:
    """Release a hold in every repository: the failures by repository, and in how many it was."""
    if not SAFE_NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a hold", hint="`recoup hold` lists those there are.")
    opened = system.open()
    failed, found = dict(opened.failed), 0
    for repository in opened.repositories:
        try:
            found += release_hold(repository, name)
        except RecoupError as failure:
            failed[repository.name] = failure
    return failed, found


def _beginning(system: System, since: str) -> tuple[datetime, str | None]:
    """The instant from which on things are held, and the artefact it was named by."""
    try:
        instant = datetime.fromisoformat(since)
    except ValueError:
        catalog = read_catalog(system.open().repositories, system.state_folder)
        entry = catalog.find(since)
        return entry.begun, entry.id
    if ids.is_id(since):  # never an ISO instant, but be sure which one was meant
        raise UsageError(f"{since!r} is both an id and an instant", hint="Write the instant with its time zone.")
    return instant if instant.tzinfo else instant.replace(tzinfo=ZoneInfo(system.plan.timezone)), None
