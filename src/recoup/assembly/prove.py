"""Which artefacts a verification looks at, and verifying one with its engine's check."""

from __future__ import annotations

from recoup.assembly.access import Found, Readable
from recoup.assembly.checks import check_content
from recoup.kernel.errors import RecoupError, UsageError, WrongKeyError
from recoup.verification.verify import Grade, Verification, verify_artefact


def choose(
    opened: Readable, reference: str | None, *, service: str | None, everything: bool
) -> tuple[list[Found], list[str]]:
    """The artefacts to verify, and what is wrong with those whose manifest cannot be believed.

    Raise ``UsageError`` when there is nothing to verify.
    """
    if reference is not None:
        return [opened.find(reference, service=service)], []
    catalog = opened.catalog()
    seen: set[tuple[str, str]] = set()
    chosen: list[Found] = []
    problems = [f"{one.repository}: {one.id}: {one.what}" for one in catalog.problems]
    for entry in catalog.entries:
        newest = (entry.service, entry.kind) not in seen
        seen.add((entry.service, entry.kind))
        if (service is None or entry.service == service) and (everything or newest):
            try:
                chosen.append(opened.find(entry.id))
            except WrongKeyError:
                raise
            except RecoupError as failure:
                problems.append(f"{entry.id}: {failure.message}")
    problems += [f"{name}: {failure.message}" for name, failure in catalog.silent]
    if not chosen and not problems:
        raise UsageError("there is nothing to verify yet", hint="Take a first copy with `recoup backup`.")
    return chosen, problems


def prove(found: Found, grade: str) -> Verification:
    """Verify one artefact in every repository that holds it, up to ``grade``."""
    return verify_artefact(found.manifest, found.holders, Grade(grade), check_content(found.manifest.kind))
