"""Checking a report on a drill without the key of the backups: by its signature, and a public key. Pure.

A JSON report carries the record of the drill as it was signed when the drill ended, in a DSSE envelope. A page or a
paper has the signature of the whole file beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from recoup.drill.codec import decode
from recoup.drill.model import DrillRecord
from recoup.drill.report import of_record
from recoup.kernel.errors import DamageError, UsageError
from recoup.kernel.finding import Finding, Verdict
from recoup.repository.drill_records import PAYLOADS
from recoup.repository.signature import Envelope, PublicKey, read_envelope

SCHEMA: Final = "recoup.drill-report/1"

_SIGNED: Final = "the signature is right"
_WHOSE: Final = "it is signed by the key that is trusted"
_SAME: Final = "the report says what was signed"
_NOT_COVERED: Final = (
    "forecast, trend and regressions, which other drills give; what became of its issues; that no record was removed"
)
_GIVE: Final = (
    "Give the public key that you got on another way than the report: --public-key FILE. Who has the backup key prints "
    "it with `recoup key show-public`."
)


def signature_file(path: Path) -> Path:
    """Where the signature of a file lies."""
    return path.with_name(f"{path.name}.sig")


def check_file(name: str, content: bytes, signature: bytes | None, trusted: PublicKey | None) -> list[Finding]:
    """Whether a page or a paper is the one that was signed. ``signature`` None: there is none beside it."""
    if signature is None:
        hint = f"A report has {signature_file(Path(name)).name} beside it; ask for that too."
        return [_finding(_SIGNED, name, Verdict.UNKNOWN, "there is no signature beside it", hint)]
    if trusted is None:
        return [_finding(_SIGNED, name, Verdict.UNKNOWN, "no public key was given", _GIVE)]
    right = trusted.verifies(signature, content)
    said = f"the whole file, by {trusted}" if right else f"not the signature of this file by {trusted}"
    why = None if right else "The file, its signature or the public key is not the one that belongs to the others."
    return [_finding(_SIGNED, name, Verdict.OK if right else Verdict.FAILED, said, why)]


def check_report(name: str, content: bytes, trusted: PublicKey | None) -> list[Finding]:
    """Whether a report in JSON says what was signed. Without a ``trusted`` key it stays unknown by whom.

    Raise ``UsageError`` for what is no such report.
    """
    report = _parsed(name, content)
    if report.get("signed") is None:
        said = "it is not signed: its drill is from before there were signatures"
        return [_finding(_SIGNED, name, Verdict.UNKNOWN, said, "Hold a drill; its record is signed.")]
    try:
        sealed = read_envelope(report["signed"])
        own = PublicKey.from_pem(str(_of(report.get("seal"), "public_key")).encode())
    except (DamageError, UsageError) as wrong:
        return [_finding(_SIGNED, name, Verdict.FAILED, wrong.message)]
    public = trusted or own
    right = sealed.payload_type == PAYLOADS["records"] and sealed.is_signed_by(public)
    found = [
        _finding(
            _SIGNED, name, Verdict.OK if right else Verdict.FAILED,
            f"by {public}" if right else f"not by {public}",
            None if right else "It was changed, or signed by another key than the one that is trusted.",
        )
    ]  # fmt: skip
    if not right:
        return found
    if trusted is None:
        said = f"no public key was given; the report itself names {own}, as a forged one would"
        found.append(_finding(_WHOSE, name, Verdict.UNKNOWN, said, _GIVE))
    return [*found, _compare(name, sealed, report)]


def _parsed(name: str, content: bytes) -> Mapping[str, Any]:
    try:
        report = json.loads(content)
    except (ValueError, RecursionError) as wrong:
        raise UsageError(f"{name} is not JSON: {wrong}", hint="Give a report: recoup drill --show ID --json") from wrong
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise UsageError(f"{name} is no report on a drill", hint="recoup drill --show ID --json > drill.json")
    return report


def _compare(name: str, sealed: Envelope, report: Mapping[str, Any]) -> Finding:
    try:
        document = json.loads(sealed.payload)
        record = decode(DrillRecord, document["record"])
    except (ValueError, KeyError, TypeError, RecursionError) as wrong:
        # Authentic, and not understood: written by a newer Recoup, most likely.
        return _finding(_SAME, name, Verdict.UNKNOWN, f"what was signed is not understood: {wrong}",
                        "Check it with the newest Recoup.")  # fmt: skip
    # What follows from the record is as signed as the record itself. The record is compared as it was signed, too: one
    # from a newer Recoup has fields that this one does not know.
    ways = (document["record"], of_record(record))
    other = {key for one in ways for key, value in one.items() if not _holds(report.get(key), value)}
    if other:
        said = f"it differs in {', '.join(sorted(other))}"
        return _finding(_SAME, name, Verdict.FAILED, said, "Somebody changed the report after it was made.")
    return Finding(
        check=_SAME, subject=name, verdict=Verdict.OK, not_checked=_NOT_COVERED,
        detail=f"drill {record.id} of {record.system}, {record.situation}: {record.verdict.value}",
    )  # fmt: skip


def _holds(said: Any, signed: Any) -> bool:
    """Whether the report says all that was signed; beside it, it says what was worked out (``verdict`` and so on)."""
    if isinstance(signed, dict):
        return isinstance(said, dict) and all(_holds(said.get(key), value) for key, value in signed.items())
    if isinstance(signed, list):
        return (
            isinstance(said, list)
            and len(said) == len(signed)
            and all(_holds(one, other) for one, other in zip(said, signed, strict=True))
        )
    return bool(said == signed) and type(said) is type(signed)


def _of(said: Any, name: str) -> Any:
    return said.get(name) if isinstance(said, dict) else None


def _finding(check: str, subject: str, verdict: Verdict, detail: str, hint: str | None = None) -> Finding:
    return Finding(check=check, subject=subject, verdict=verdict, detail=detail, hint=hint)


def is_json(content: bytes) -> bool:
    """Whether a file is a report in JSON, and no page or paper."""
    return content.lstrip()[:1] == b"{"
