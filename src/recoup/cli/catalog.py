"""``recoup list`` and ``recoup show``: what there is to go back to."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from recoup.cli.options import FileOption, FromOption, JsonOption, KeyFileOption, add_command
from recoup.kernel.errors import Exit


def register(app: typer.Typer) -> None:
    """Add the commands."""
    add_command(
        app,
        "list",
        list_artefacts,
        examples=(
            "recoup list",
            "recoup list postgres --kind base --json",
            "recoup list --from s3://bucket/production --key-file recoup.key    # on a machine without the plan",
        ),
    )
    add_command(
        app, "show", show, examples=("recoup show latest --service postgres", "recoup show 20261123-020000-k7f3q2")
    )


def list_artefacts(
    service: Annotated[str | None, typer.Argument(help="Only this service.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind: base, incremental, dump, rdb, files.")] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=0, help="The newest so many; 0 for all.")] = 50,
    source: FromOption = None,
    key_file: KeyFileOption = None,
    file: FileOption = None,
    as_json: JsonOption = False,
) -> Exit:
    """List artefacts, newest first, and the repositories that hold each.

    A repository that does not answer, and a manifest that cannot be believed, are named; the exit code is then 4 or 3.
    """
    from recoup.assembly.access import open_for_reading
    from recoup.assembly.prove.proven import proofs_of
    from recoup.cli.documents import entry_document, proof_words
    from recoup.cli.output import Output
    from recoup.kernel.units import show_size

    output = Output(json=as_json)
    opened = open_for_reading(file, source, key_file)
    catalog = opened.catalog()
    wanted = [
        one
        for one in catalog.entries
        if (service is None or one.service == service) and (kind is None or one.kind == kind)
    ]
    shown = wanted[:limit] if limit else wanted
    proofs = proofs_of(opened, [one.id for one in shown])
    chained = any(one.depends_on for one in shown)
    rows = [
        (
            one.id,
            one.service,
            one.kind,
            one.label or "",
            show_size(one.plain_bytes),
            show_size(one.stored_bytes),
            ", ".join(one.repositories),
            proof_words(proofs[one.id]),
            *(([one.depends_on[-1] if one.depends_on else ""]) if chained else []),
        )
        for one in shown
    ]
    titles = ("ID", "SERVICE", "KIND", "LABEL", "PLAIN", "STORED", "IN", "PROVEN")
    output.table((*titles, "BUILDS ON") if chained else titles, rows)
    if len(shown) < len(wanted):
        output.line(f"… and {len(wanted) - len(shown)} older; -n 0 shows all")
    silent = {**opened.failed, **dict(catalog.silent)}
    for name, error in silent.items():
        output.note(f"{name}: not listed: {error}" + (f"\nhint: {error.hint}" if error.hint else ""))
    for problem in catalog.problems:
        output.note(f"{problem.repository}: {problem.id} cannot be believed: {problem.what}")
    output.document(
        "list",
        {
            "artefacts": [{**entry_document(one), "proof": proofs[one.id]} for one in shown],
            "problems": [{"id": p.id, "repository": p.repository, "what": p.what} for p in catalog.problems],
            "unreachable": {name: {"message": e.message, "hint": e.hint} for name, e in silent.items()},
        },
    )
    if any(problem.fault != "format" for problem in catalog.problems):
        return Exit.BAD
    return Exit.UNKNOWN if silent or catalog.problems else Exit.OK


def show(
    reference: Annotated[str, typer.Argument(metavar="ID", help="An id, part of one, or latest.")],
    service: Annotated[str | None, typer.Option(help="Of which service, for latest.")] = None,
    source: FromOption = None,
    key_file: KeyFileOption = None,
    file: FileOption = None,
    as_json: JsonOption = False,
) -> Exit:
    """Show everything that is known of one artefact, from its manifest."""
    from recoup.assembly.access import open_for_reading
    from recoup.assembly.prove.proven import proofs_of
    from recoup.cli.output import Output
    from recoup.repository.manifest import to_body

    output = Output(json=as_json)
    opened = open_for_reading(file, source, key_file)
    found = opened.find(reference, service=service)
    body = to_body(found.manifest)
    proof = proofs_of(opened, [found.manifest.id])[found.manifest.id]
    output.document("artefact", {**body, "repositories": [one.name for one in found.holders], "proof": proof})
    _lines(output, body, [str(one) for one in found.holders])
    _proof(output, proof)
    return Exit.OK


def _lines(output: Any, body: dict[str, Any], holders: list[str]) -> None:
    for name in ("id", "system", "service", "engine", "kind", "label", "begun", "ended"):
        if body[name] is not None:
            output.line(f"{name + ':':<14} {body[name]}")
    output.line(f"{'in:':<14} {', '.join(holders)}")
    if body["depends_on"]:
        output.line(f"{'builds on:':<14} {', '.join(body['depends_on'])}")
    output.line(f"{'key:':<14} {body['key']['id'][:16]}")
    for name, value in sorted(body["facts"].items()):
        if body["kind"] == "stack" and name == "members":
            continue  # as a table, below
        text = str(value)
        output.line(f"{name + ':':<14} {text if len(text) <= 200 else text[:200] + ' …'}")
    if body["kind"] == "stack":
        _members(output, body["facts"])
    else:
        _streams(output, body)
    for what, why in body["left_out"]:
        output.line(f"left out: {what}: {why}")


def _proof(output: Any, proof: dict[str, Any] | None) -> None:
    from recoup.cli.documents import proof_words

    output.line(f"{'proven:':<14} {proof_words(proof)}")
    if proof is None:
        return
    if proof["expires"] is not None:
        word = "expired" if proof["expired"] else "holds until"
        output.line(f"{'':<14} {word} {proof['expires'][:16]}Z")
    for grade, when in proof["grades"].items():
        output.line(f"{'':<14} {grade:<8}{when[:16]}Z")


def _streams(output: Any, body: dict[str, Any]) -> None:
    from recoup.kernel.units import show_size

    output.table(
        ("STREAM", "PLAIN", "STORED", "SHA256"),
        [
            (o["stream"], show_size(o["plain_bytes"]), show_size(o["stored_bytes"]), o["sha256"])
            for o in body["objects"]
        ],
    )
    if body["fingerprint"] is None:
        output.line("no fingerprint was taken")


def _members(output: Any, facts: dict[str, Any]) -> None:
    rows = []
    for one in facts.get("members", ()):
        position = ", ".join(f"{name} {value}" for name, value in one["position"].items())
        rows.append((one["service"], one["kind"], one["artefact"], one["moment"], position))
    output.table(("SERVICE", "KIND", "COPY", "STATE OF", "POSITION"), rows)
