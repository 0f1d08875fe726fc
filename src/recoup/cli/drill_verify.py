"""The part of ``recoup drill`` that checks a report, also for somebody who has neither the plan nor the key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from recoup.kernel.errors import Exit, RecoupError, UsageError

if TYPE_CHECKING:
    from recoup.cli.output import Output
    from recoup.repository.signature import PublicKey

_LIMIT_BYTES: Final = 256 << 20


def verify_report(
    output: Output, report: Path, public_key: Path | None, plan_file: Path | None, key_file: Path | None
) -> Exit:
    """Check a report in JSON, or a page or paper that has its signature beside it.

    Trusted is the ``public_key``; without one, the key of the plan or of ``key_file``, where there is such a thing.
    """
    from recoup.cli.documents import finding_document
    from recoup.cli.restore import say_findings
    from recoup.drill.signed import check_file, check_report, is_json, signature_file
    from recoup.kernel.finding import exit_code, overall

    content = _content(report)
    trusted = _trusted(public_key, plan_file, key_file)
    if is_json(content):
        findings = check_report(report.name, content, trusted)
    else:
        beside = signature_file(report)
        signature = _content(beside) if beside.exists() else None
        findings = check_file(report.name, content, signature, trusted)
    verdict = overall(findings)
    say_findings(output, findings)
    output.document(
        "drill-signature",
        {
            "file": str(report),
            "verdict": verdict.value,
            "trusted": None if trusted is None else str(trusted),
            "findings": [finding_document(one) for one in findings],
        },
    )
    return exit_code(verdict)


def _trusted(public_key: Path | None, plan_file: Path | None, key_file: Path | None) -> PublicKey | None:
    from recoup.cli.key_file import read_key
    from recoup.repository.signature import PublicKey
    from recoup.repository.signature import public_key as of_key

    if public_key is not None:
        return PublicKey.from_pem(_content(public_key))
    try:
        key, _ = read_key(plan_file, key_file)
    except RecoupError:
        if plan_file is not None or key_file is not None:
            raise
        return None  # a stranger has neither
    return of_key(key)


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise UsageError(f"{path} is larger than any report on a drill", hint="Name the report.")
        return path.read_bytes()
    except OSError as failure:
        raise UsageError(f"cannot read {path}: {failure.strerror}", hint="Name a file that is there.") from failure
