"""The part of ``recoup drill`` that tells of drills that were held: list, show, reports, issues."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recoup.kernel.errors import Exit, RecoupError, UsageError

if TYPE_CHECKING:
    from recoup.assembly.drill.book import OpenBook
    from recoup.cli.output import Output
    from recoup.drill.model import DrillRecord
    from recoup.drill.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options that tell of drills. ``file``, ``source`` and ``key_file`` say where they are."""

    listing: bool = False
    show: str | None = None
    html: Path | None = None
    pdf: Path | None = None
    issues: bool = False
    close: str | None = None
    because: str | None = None
    proof: str | None = None
    verify: Path | None = None
    public_key: Path | None = None
    file: Path | None = None
    source: str | None = None
    key_file: Path | None = None

    def tells(self) -> bool:
        """Whether it is about drills that were held, and none is to be. Raise ``UsageError`` for what makes no sense,
        ``UncheckedError`` when a PDF is wanted that cannot be made."""
        told = (self.listing, self.show is not None, self.issues, self.close is not None, self.verify is not None)
        if sum(told) > 1:
            words = "--list, --show, --issues, --close and --verify exclude each other"
            raise UsageError(words, hint="Leave all but one out.")
        if self.public_key is not None and self.verify is None:
            raise UsageError("--public-key belongs to --verify", hint="--verify drill.json --public-key drills.pem")
        if self.close is None and (self.because is not None or self.proof is not None):
            raise UsageError("--because and --proof belong to --close", hint='--close ID --because "…" --proof FILE')
        if (self.html or self.pdf) and any(told) and self.show is None:
            raise UsageError("--html and --pdf are of one drill", hint="`recoup drill --show ID --html FILE`")
        if self.pdf is not None:
            from recoup.drill.paper import require_typst

            require_typst()
        return any(told)


def tell(output: Output, asked: Asked) -> Exit:
    """Do what is asked. Exit code 3 for records that cannot be believed, 4 when a repository could not be asked."""
    from recoup.assembly.drill.book import open_book

    if asked.verify is not None:
        from recoup.cli.drill_verify import verify_report

        return verify_report(output, asked.verify, asked.public_key, asked.file, asked.key_file)
    opened = open_book(asked.file, asked.source, asked.key_file)
    _warn(output, opened)
    if asked.close is not None:
        return _close(output, opened, asked.close, asked)
    if asked.issues:
        _issues(output, opened)
    elif asked.listing:
        _list(output, opened)
    else:
        report = opened.report(asked.show or "latest")
        write_files(output, opened, report, asked)
        _show(output, report)
    return _end(opened)


def write_latest(output: Output, asked: Asked, drill: str) -> None:
    """Write the report on a drill that was just held, as the files that were asked for."""
    if asked.html is None and asked.pdf is None:
        return
    from recoup.assembly.drill.book import open_book

    opened = open_book(asked.file, asked.source, asked.key_file)
    try:
        write_files(output, opened, opened.report(drill), asked)
    except RecoupError as failure:  # the drill was held, and its result is not that of a file
        output.note(f"{failure.message}" + (f"\nhint: {failure.hint}" if failure.hint else ""))


def write_files(output: Output, opened: OpenBook, report: Report, asked: Asked) -> None:
    """Write the report as the files that were asked for, each with its signature beside it.

    Raise ``RecoupError`` when one cannot be written.
    """
    from recoup.drill.page import page
    from recoup.drill.paper import pdf as paper
    from recoup.drill.signed import signature_file
    from recoup.kernel.files import write_atomically

    for path, content in (
        (asked.html, page(report).encode() if asked.html is not None else b""),
        (asked.pdf, paper(report) if asked.pdf is not None else b""),
    ):
        if path is None:
            continue
        beside = signature_file(path)
        try:
            beside.unlink(missing_ok=True)  # a page beside the signature of another one would look forged
            write_atomically(path, content, mode=0o644)
            write_atomically(beside, opened.sign(content), mode=0o644)
        except OSError as failure:
            raise RecoupError(
                f"cannot write the report {path}: {failure.strerror or failure}",
                hint="Name a file in a folder that this user may write to.",
            ) from failure
        output.note(f"wrote {path}, and its signature {beside}")


def _warn(output: Output, opened: OpenBook) -> None:
    for name, failure in opened.book.failed.items():
        output.note(f"{name} could not be asked: {failure.message}")
    for one in opened.book.problems:
        output.note(f"{one.repository}: {one.key} cannot be believed: {one.what}")


def _end(opened: OpenBook) -> Exit:
    from recoup.kernel.finding import exit_code

    return exit_code(opened.book.verdict)


def _problems(opened: OpenBook) -> dict[str, Any]:
    return {
        "problems": [
            {"repository": one.repository, "key": one.key, "what": one.what, "verdict": one.verdict.value}
            for one in opened.book.problems
        ],
        "failed_repositories": {
            name: {"message": one.message, "hint": one.hint} for name, one in opened.book.failed.items()
        },
    }


def _list(output: Output, opened: OpenBook) -> None:
    from recoup.assembly.drill.book import state_now
    from recoup.drill.codec import encode
    from recoup.drill.measure import regressions
    from recoup.drill.report import summary
    from recoup.kernel import clock

    book = opened.book
    worse = {one.id: regressions(one, book.records) for one in book.records}
    rows = [
        (
            _word(one),
            f"{one.declared:%Y-%m-%d %H:%M}Z",
            one.situation,
            _number(one.rto.measured),
            _number(one.rto.objective, "none"),
            _number(one.lost),
            str(sum(each.is_open for each in book.issues if each.drill == one.id) or ""),
            ", ".join(each.number for each in worse[one.id]),
            one.id,
        )
        for one in book.records
    ]
    if rows:
        headings = ("", "DECLARED", "SITUATION", "RTO", "PROMISED", "RPO", "OPEN ISSUES", "WORSE", "ID")
        output.table(headings, rows)
    else:
        output.line("no drill was held yet")
    state = None
    if opened.system is not None:
        state = state_now(opened.system, book, clock.now())
        output.line()
        output.line(f"the plan is {state.state}" + (f": {'; '.join(state.reasons)}" if state.reasons else ""))
    document = {
        "drills": [
            summary(one)
            | {"regressions": [str(each) for each in worse[one.id]], "repositories": list(book.places[one.id])}
            for one in book.records
        ],
        "plan": None if state is None else encode(state),
        **_problems(opened),
    }
    output.document("drills", document)


def _show(output: Output, report: Report) -> None:
    from recoup.drill.model import verdicts
    from recoup.drill.report import against, document, in_words, outlook

    record = report.record
    output.line(f"drill {record.id} of {record.system}, {record.situation}: {_word(record)}")
    how = "announced" if record.kind == "announced" else "a surprise"
    output.line(f"declared {record.declared:%Y-%m-%d %H:%M:%S}Z by {record.declared_by}, {how}")
    if record.stopped is not None:
        output.line(f"it did not come to its end: {record.stopped}")
    output.line()
    output.line(f"RTO   {against(record.rto.measured, record.rto.objective)}")
    output.line(f"      machines {in_words(record.rto.machine)}, waiting for people {in_words(record.rto.waiting)}")
    for rpo in record.rpo:
        output.line(f"RPO   {rpo.service}: {against(rpo.measured, rpo.objective)} ({rpo.how})")
    for worse in report.regressions:
        output.line(f"WORSE {worse}")
    output.line(f"next  {outlook(report)}")
    point = record.point
    output.line(f"from  {point.target} in {point.repository}: " + ", ".join(one.id for one in point.copies))
    output.line()
    output.table(("", "PART"), [(verdict.value, name) for name, verdict in verdicts(record)])
    output.line()
    steps = [
        (one.verdict.value, number, one.title, one.kind, in_words(one.took, nothing="not come to"),
         in_words(one.waiting) if one.waiting else "", one.detail)
        for number, one in enumerate(record.steps, start=1)
    ]  # fmt: skip
    output.table(("", "STEP", "", "WHO", "TOOK", "WAITED", ""), steps)
    findings = [*record.checks, *record.isolation, *record.teardown]
    _rest(output, report, [(one.verdict.value, one.check, one.subject, one.detail) for one in findings])
    output.document("drill-report", document(report))


def _rest(output: Output, report: Report, findings: list[tuple[str, str, str, str]]) -> None:
    record = report.record
    output.line()
    output.table(("", "CHECK", "OF", "SEEN"), findings)
    acts = [
        (step.verdict.value, flow.name, step.what, step.detail) for flow in record.flows for step in flow.steps
    ]  # fmt: skip
    if acts:
        output.line()
        output.table(("", "FLOW", "ACT", "ANSWER"), acts)
    output.line()
    for one in record.not_tested:
        output.line(f"not tested: {one}")
    for tracked in report.issues:
        if tracked.drill == record.id:
            state = "open" if tracked.is_open else "closed"
            output.line(f"issue {tracked.issue.id} ({state}, {tracked.issue.owner}, due {tracked.issue.due}): "
                        f"{tracked.issue.text}")  # fmt: skip


def _issues(output: Output, opened: OpenBook) -> None:
    from recoup.drill.report import issue_document
    from recoup.kernel import clock

    today = clock.now().date()
    found = [one for one in opened.book.issues if one.is_open]
    rows = [
        ("OVERDUE" if one.overdue(today) else "open", one.issue.id, one.issue.owner, one.issue.due, one.issue.text)
        for one in sorted(found, key=lambda one: (one.issue.due, one.issue.id))
    ]
    if rows:
        output.table(("", "ID", "OWNER", "DUE", "ISSUE"), rows)
    else:
        output.line("no issue is open")
    output.document(
        "drill-issues", {"issues": [issue_document(one, today) for one in found], **_problems(opened)}
    )  # fmt: skip


def _close(output: Output, opened: OpenBook, identifier: str, asked: Asked) -> Exit:
    from recoup.assembly.drill.book import close_issue
    from recoup.drill.codec import encode

    if asked.because is None:
        raise UsageError("a closing needs its reason", hint=f'`recoup drill --close {identifier} --because "…"`')
    done = close_issue(opened, identifier, because=asked.because, proof=asked.proof)
    placed = [name for name, failure in done.stored.items() if failure is None]
    proof = f"{done.closing.proof.kind} {done.closing.proof.name}"
    output.line(
        f"closed {identifier} ({done.issue.issue.text}), proven by {proof}, in {', '.join(placed) or 'nowhere'}"
    )
    failed = {name: failure for name, failure in done.stored.items() if failure is not None}
    for name, failure in failed.items():
        output.note(f"{name}: {failure.message}" + (f"\nhint: {failure.hint}" if failure.hint else ""))
    output.document(
        "drill-closing",
        {
            "closing": encode(done.closing),
            "repositories": placed,
            "failed_repositories": {name: {"message": one.message, "hint": one.hint} for name, one in failed.items()},
        },
    )
    return next(iter(failed.values())).exit_code if failed else _end(opened)


def _word(record: DrillRecord) -> str:
    return "ok" if record.verdict == "ok" else record.verdict.value.upper()


def _number(duration: Any, nothing: str = "not known") -> str:
    from recoup.drill.report import in_words

    return in_words(duration, nothing=nothing)
