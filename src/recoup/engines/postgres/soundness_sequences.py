"""Sequences that fill a column are not behind what the column holds already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from recoup.engines.postgres.soundness_ask import WITHOUT_INDEXES, Examiner, Refusal
from recoup.engines.postgres.soundness_tally import Tally, many
from recoup.kernel.finding import Finding

#: 'a': a serial column or OWNED BY, 'i': an identity column (src/backend/commands/sequence.c). One that is owned but
#: does not fill the column says nothing of it. One that nobody owns fills the columns whose default is its next value
#: and nothing else.
_OWNED: Final = """
SELECT s.seqrelid::regclass::text, d.refobjid::regclass::text, quote_ident(a.attname), s.seqincrement, s.seqcycle,
       t.typcategory = 'N'
  FROM pg_sequence s
  JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid AND d.deptype IN ('a', 'i')
                  AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
  JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
  JOIN pg_type t ON t.oid = a.atttypid
 WHERE d.deptype = 'i'
    OR EXISTS (SELECT FROM pg_attrdef v JOIN pg_depend u ON u.classid = 'pg_attrdef'::regclass AND u.objid = v.oid
                WHERE v.adrelid = a.attrelid AND v.adnum = a.attnum AND u.refobjid = s.seqrelid
                  AND u.refclassid = 'pg_class'::regclass)
 UNION
SELECT s.seqrelid::regclass::text, a.attrelid::regclass::text, quote_ident(a.attname), s.seqincrement, s.seqcycle,
       t.typcategory = 'N'
  FROM pg_sequence s JOIN pg_depend u ON u.classid = 'pg_attrdef'::regclass AND u.refobjid = s.seqrelid
                                     AND u.refclassid = 'pg_class'::regclass
  JOIN pg_attrdef v ON v.oid = u.objid JOIN pg_attribute a ON a.attrelid = v.adrelid AND a.attnum = v.adnum
  JOIN pg_type t ON t.oid = a.atttypid JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p')
 WHERE pg_get_expr(v.adbin, v.adrelid) ~ '^nextval[(]''[^'']*''::regclass[)]$'
 ORDER BY 1"""
_NEAR: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceState:
    """Where a sequence stands."""

    last: int
    called: bool  #: ``last`` was handed out
    step: int

    @property
    def next(self) -> int:
        """What it hands out next."""
        return self.last + self.step if self.called else self.last


def ahead_of(table: str, column: str, state: SequenceState) -> str:
    """The query for how many values the sequence is going to meet, the furthest of them, and how many are near."""
    compare, furthest = (">=", "max") if state.step > 0 else ("<=", "min")
    near = state.next + _NEAR * state.step
    within = "<=" if state.step > 0 else ">="
    return (
        f"SELECT count(*), {furthest}({column}), count(*) FILTER (WHERE {column} {within} {near}) "
        f"FROM {table} WHERE {column} {compare} {state.next}"
    )


def check_sequences(examiner: Examiner) -> list[Finding]:
    """The next value of every sequence that fills a column is beyond all that the column holds."""
    tally = Tally("no sequence is behind its column", examiner.named("sequences"), unit="sequences with a column")
    cycling: list[str] = []
    owned = examiner.facts(_OWNED)
    with examiner.settings(WITHOUT_INDEXES):
        for name, table, column, step, cycle, number in owned:
            if cycle == "t" or number != "t":
                cycling.append(str(name))
            else:
                tally.examined += 1
                _check_one(examiner, tally, str(name), str(table), str(column), int(step or 1))
    tally.leave_out("sequences that cycle, or fill no number", cycling)
    return tally.findings()


def _check_one(examiner: Examiner, tally: Tally, name: str, table: str, column: str, step: int) -> None:
    what = examiner.named(f"{name} of {table}.{column}")
    now = examiner.ask(f"SELECT last_value, is_called FROM {name}")
    if isinstance(now, Refusal):
        tally.refused(what, now)
        return
    state = SequenceState(last=int(now[0][0] or 0), called=now[0][1] == "t", step=step)
    answer = examiner.ask(ahead_of(table, column, state))
    if isinstance(answer, Refusal):
        tally.refused(what, answer)
        return
    count, furthest, near = answer[0]
    if count == "0":
        return
    detail = f"its next value is {state.next}, and {many(count, 'row')} already reach from there to {furthest}"
    hint = f"SELECT setval('{name}', {furthest}) after a restore; find out who put it back."
    if near != "0":
        tally.failed(what, detail, hint=hint)
    else:
        tally.unknown(what, f"{detail}; none of them is near, so they may have been written by hand", hint=hint)
