"""What this machine notes of proofs, under clocks that are right and under one that was ahead."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from recoup.kernel import clock
from recoup.repository.ledger import CoverageLedger, ReadBytes
from recoup.repository.proofs import ProofRecord, Proofs
from recoup.verification.expiry import held
from recoup.verification.grade import Grade

YEAR = timedelta(days=365)


def _record(verdict: str, moment: datetime, grade: str = "stored") -> ProofRecord:
    return ProofRecord(repository="r", artefact="a", grade=grade, verdict=verdict, moment=moment)


def test_a_proof_of_the_future_proves_nothing_and_a_failure_stays_one(tmp_path: Path) -> None:
    proofs, now = Proofs(tmp_path), clock.now()
    proofs.note([_record("ok", now + YEAR), _record("failed", now + YEAR, "intact")])
    known = proofs.of("r")["a"]
    assert (known["stored"].verdict, known["stored"].held) == ("unknown", None)
    assert known["intact"].verdict == "failed"
    assert all(one.moment <= clock.now() for one in known.values()), "nothing was looked at in the future"
    assert (held(known.values()).grade, held(known.values()).failed) == (None, Grade.INTACT)


def test_a_proof_of_now_counts_again_after_a_clock_was_ahead(tmp_path: Path) -> None:
    proofs, now = Proofs(tmp_path), clock.now()
    proofs.note([_record("ok", now + YEAR)])
    proofs.note([_record("ok", now)])
    assert held(proofs.of("r")["a"].values()).grade is Grade.STORED
    proofs.note([_record("ok", now + timedelta(minutes=2))])
    assert held(proofs.of("r")["a"].values()).grade is Grade.STORED, "clocks are a little apart"


def test_bytes_read_in_the_future_were_not_read(tmp_path: Path) -> None:
    ledger, now = CoverageLedger(tmp_path), clock.now()
    notes = [
        ReadBytes(repository="r", artefact="a", begin=begin, end=begin + 10, moment=moment)
        for begin, moment in ((0, now), (10, now + YEAR))
    ]
    ledger.replace("r", "a", notes)
    assert [(one.begin, one.end) for one in ledger.of("r")] == [(0, 10)]
