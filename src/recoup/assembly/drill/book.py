"""The book of drills of a plan or of a repository: reading it, judging the plan by it, closing an issue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from recoup.assembly.access import Readable, open_for_reading
from recoup.assembly.drill.plan import plan_identity
from recoup.assembly.stack import open_stack
from recoup.assembly.system import System
from recoup.drill.book import Book, file_proof, level, read_book, write_closing
from recoup.drill.issues import Closing, ClosingProof, TrackedIssue
from recoup.drill.measure import Forecast, forecast
from recoup.drill.model import DrillRecord
from recoup.drill.report import SHOWN, Report, report_on
from recoup.drill.state import UNSEEN, PlanState, State, plan_state
from recoup.kernel import clock, ids
from recoup.kernel.errors import RecoupError, RefusedError, UsageError
from recoup.kernel.finding import Verdict
from recoup.kernel.presence import login_name
from recoup.plan.people import Drill
from recoup.repository.drill_records import LIMIT_BYTES
from recoup.repository.seal import Key
from recoup.repository.signature import public_key, sign

_LONGEST_NAME: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBook:
    """A book, and the repositories it was read from. ``system`` is None on a machine without the plan."""

    opened: Readable
    book: Book

    @property
    def system(self) -> System | None:
        """The plan, when there is one."""
        return self.opened.system

    def likely(self, situation: str) -> dict[str, Forecast]:
        """How long each step is likely to take, by its key, from the newest drills of a situation."""
        return forecast([one for one in self.book.records if one.situation == situation][:SHOWN])

    def report(self, reference: str) -> Report:
        """The report on the drill meant by ``latest``, an id or the beginning of one. Raise ``UsageError``."""
        zone = "UTC" if self.system is None else self.system.plan.timezone
        today = clock.now().astimezone(ZoneInfo(zone)).date()
        key = self._key
        return report_on(self.book.find(reference), self.book, key_id=key.id, signer=public_key(key), today=today)

    def sign(self, file: bytes) -> bytes:
        """The signature of a file, such as a report: 64 bytes that go beside it."""
        return sign(self._key, file)

    @property
    def _key(self) -> Key:
        return self.opened.repositories[0].key


def open_book(file: Path | None, source: str | None, key_file: Path | None) -> OpenBook:
    """Read every drill of a plan, or of one repository. Raise as ``open_for_reading``."""
    opened = open_for_reading(file, source, key_file)
    name = None if opened.system is None else opened.system.plan.system
    return OpenBook(opened=opened, book=read_book(opened.repositories, system=name, failed=opened.failed))


def expiry_of(system: System) -> timedelta:
    """How long a drill proves the plan."""
    return (system.plan.drill or Drill()).expires


def state_now(system: System, book: Book, now: datetime) -> PlanState:
    """How the plan stands by its drills.

    Files are looked at first: the images that run are asked for only when everything else would be proven.
    """
    last = next(iter(book.records), None)
    known = {} if last is None else _images_of(last)
    state = plan_state(plan_identity(system, known), book.records, now, expires=expiry_of(system))
    if state.state is not State.VERIFIED or system.plan.compose is None:
        return state
    return plan_state(plan_identity(system, _images(system, known)), book.records, now, expires=expiry_of(system))


def _images_of(record: DrillRecord) -> dict[str, str]:
    prefix = "image of "
    return {
        name.removeprefix(prefix): digest for name, digest in record.plan.parts.items() if name.startswith(prefix)
    }  # fmt: skip


def _images(system: System, known: Mapping[str, str]) -> dict[str, str]:
    """What runs now. Whatever cannot be seen is not known, also when it was seen in the drill."""
    try:
        found = {one.service: one.image_id for one in open_stack(system).client.containers() if one.running}
    except RecoupError:
        found = {}
    return {name: found.get(name, UNSEEN) for name in {**known, **found}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """An issue that was closed. ``stored``: each repository, and why it did not take the closing (None: it did)."""

    closing: Closing
    issue: TrackedIssue
    stored: Mapping[str, RecoupError | None]


def close_issue(opened: OpenBook, identifier: str, *, because: str, proof: str | None, by: str | None = None) -> Closed:
    """Close an issue with a proof: a file, or a later drill that passed; without one, the newest such drill.

    Raise ``UsageError`` for what does not exist, ``RefusedError`` for an issue that is closed already and for a proof
    that proves nothing.
    """
    issue = opened.book.find_issue(identifier)
    if not because.strip():
        raise UsageError("a closing needs its reason", hint='Say what was done: --because "…".')
    if issue.closing is not None:
        ended = issue.closing
        raise RefusedError(
            f"{identifier} was closed by {ended.by} on {ended.closed:%Y-%m-%d}: {ended.because}",
            hint="A closing is never changed. When it is there again, the next drill finds it again.",
        )
    now = clock.now()
    shown, sealed = _proof(opened, issue, proof)
    closing = Closing(
        id=ids.new_id(now), issue=identifier, closed=now, by=by or login_name(), because=because.strip(), proof=shown
    )
    repositories = opened.opened.repositories
    if opened.system is not None:
        repositories = opened.system.open().repositories
    stored = dict(opened.book.failed) | write_closing(repositories, closing, sealed)
    level(repositories)
    return Closed(closing=closing, issue=issue, stored=stored)


def _proof(opened: OpenBook, issue: TrackedIssue, proof: str | None) -> tuple[ClosingProof, bytes | None]:
    book = opened.book
    if proof is not None and not ids.is_id(proof):
        path = Path(proof)
        return file_proof(opened.opened.repositories[0], path.name[:_LONGEST_NAME], _content(path))
    if proof is not None:
        drill = book.find(proof)
        if drill.declared <= issue.found or drill.verdict is not Verdict.OK:
            what = "it did not pass" if drill.verdict is not Verdict.OK else "it is not later than the issue"
            raise RefusedError(f"drill {proof} does not prove that {issue.issue.id} is solved: {what}", hint=_PROVE)
    else:
        situation = book.find(issue.drill).situation
        later = (one for one in book.records if one.declared > issue.found and one.situation == situation)
        passed = next((one for one in later if one.verdict is Verdict.OK), None)
        if passed is None:
            raise RefusedError(f"nothing proves yet that {issue.issue.id} is solved", hint=_PROVE)
        drill = passed
    return ClosingProof(kind="drill", name=drill.id, sha256=book.digests[drill.id]), None


_PROVE: Final = "Hold a drill that passes (`recoup drill`), or give a file that shows it: --proof FILE."


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise UsageError(f"{path} is neither a file nor the id of a drill", hint=_PROVE)
        size = path.stat().st_size
        if not 0 < size <= LIMIT_BYTES:
            raise UsageError(f"{path} has {size} bytes; a proof has some, and at most {LIMIT_BYTES}", hint=_PROVE)
        return path.read_bytes()
    except OSError as failure:
        raise UsageError(f"cannot read {path}: {failure.strerror}", hint=_PROVE) from failure
