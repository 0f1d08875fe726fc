"""Read SQL text as psql does, far enough to know what it would do: where statements, COPY data and commands are.

A dump is run by psql, and psql obeys backslash commands: ``\\!`` starts a shell, ``\\connect`` leaves the database. A
file must do neither. This reader follows psql's lexer (src/fe_utils/psqlscan.l): quoted text, dollar quotes, nested
comments, COPY data. Outside of those, a backslash is a command, and only ``\\restrict``, ``\\unrestrict`` and the one
``\\connect`` of ``pg_dump --create`` are taken out silently; any other is refused with its line.

The text streams; lines keep their numbers, so what psql complains of is found in the file.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from recoup.kernel.errors import DamageError, RefusedError

_IDENTIFIER = rb"[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*"
_TOKEN = re.compile(
    rb"(?P<escape>[eE]')|(?P<word>" + _IDENTIFIER + rb")|(?P<text>'[^'\\]*')|(?P<newline>\n)"
    rb"|(?P<mark>['\"\\;()]|--|/\*|\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$)"
    rb"|(?P<other>[-/$]|[^\s'\"\\;()\-/$A-Za-z_\x80-\xff]+)"
)
_KEEP = 256  #: bytes held back at the end of a piece, so that no token is cut
_LONGEST_TOKEN = 128  #: names end after 63 bytes; a longer one, or a longer dollar quote, is refused
_LONGEST_HELD = 256 << 10  #: a statement about databases is shorter; of others only the beginning matters
_WORDS = 24
_COPY_END = re.compile(rb"(?:\A|\n)\\\.\r?\n")
_COPY_END_LATER = re.compile(rb"\n\\\.\r?\n")
_ESCAPED_END = re.compile(rb"['\\]")
_DATABASE_WORDS = re.compile(
    r"(?:CREATE|DROP|ALTER) DATABASE\b|(?:COMMENT|SECURITY LABEL\b.*) ON DATABASE\b"
    r"|(?:GRANT|REVOKE)\b.*? ON DATABASE\b|ALTER (?:ROLE|USER) .*?IN DATABASE\b"
)
_CONNECT = re.compile(
    r"""\\(?:c|connect)\s+(?:-reuse-previous=on\s+"dbname='((?:[^'\\]|\\.)*)'"|"((?:[^"]|"")+)"|([^\s"'-]\S*))\s*"""
)
_RESTRICT = re.compile(rb"\\(?:un)?restrict [A-Za-z0-9]+\s*")


class _State(enum.Enum):
    NORMAL = "a statement"
    STANDARD = "a quoted text"
    ESCAPE = "a quoted text with escapes"
    NAME = "a quoted name"
    DOLLAR = "a dollar-quoted text"
    LINE = "a comment"
    COMMENT = "a comment between /* and */"
    COPY = "the rows of a COPY"


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedRows:
    """One COPY block: the statement that begins it, and how many rows follow."""

    statement: str
    rows: int


class SqlFilter:
    """Filters one file. After ``filtered`` is exhausted, ``notes`` and ``copied`` say what was in it."""

    def __init__(self, *, refuse_ambiguous: bool = False, own_database: str | None = None) -> None:
        """With ``refuse_ambiguous``, text that another server setting would read in another way is refused."""
        self.notes: list[str] = []
        self.copied: list[CopiedRows] = []
        self._refuse_ambiguous = refuse_ambiguous
        self._own = own_database
        self._state = _State.NORMAL
        self._line = 1
        self._depth = 0  # of brackets in a statement
        self._comment_depth = 0
        self._dollar = b""
        self._words: list[str] = []
        self._statement = bytearray()  # the current one, while it may still be left out
        self._held = True
        self._after_escape = False  # an escape text just ended; another quote after a line break continues it
        self._saw_break = False
        self._copy_rows = 0
        self._copy_statement = ""
        self._inside_line = False  # of COPY data: the line began in an earlier piece
        self._last_byte = 0  # of what just passed, inside a quoted text with escapes
        self._odd = False  # an odd number of backslashes just passed, inside a quoted text

    def filtered(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield what psql may run.

        Raise ``RefusedError`` naming the line of a command that is not allowed, ``DamageError`` when the text ends
        inside a quote, a comment or COPY data.
        """
        rest = b""
        for piece in pieces:
            text = rest + piece
            if len(text) <= _KEEP:
                rest = text
                continue
            out = bytearray()
            used = self._scan(text, len(text) - _KEEP, out)
            rest = text[used:]
            if out:
                yield bytes(out)
        out = bytearray()
        used = self._scan(rest + b"\n", len(rest) + 1, out, last=True)
        if self._state not in (_State.NORMAL, _State.LINE):
            raise DamageError(f"the SQL text ends in the middle of {self._state.value}")
        self._pass((rest + b"\n")[used:], out)
        if self._held and _DATABASE_WORDS.match(" ".join(self._words)):
            self._leave_out()  # psql runs a last statement that lacks its semicolon, too
        out += self._statement
        yield bytes(out)

    def _scan(self, text: bytes, limit: int, out: bytearray, *, last: bool = False) -> int:
        """Process ``text`` up to about ``limit``; append what may pass to ``out``; return how far it came."""
        position = 0
        while position < limit:
            before = position
            position = self._step(text, position, limit, out, last=last)
            if position == before:
                break
        return position

    def _step(self, text: bytes, position: int, limit: int, out: bytearray, *, last: bool) -> int:
        match self._state:
            case _State.NORMAL:
                return self._normal(text, position, limit, out, last=last)
            case _State.COPY:
                return self._copy(text, position, limit, out)
            case _State.STANDARD | _State.ESCAPE:
                return self._quoted(text, position, limit, out)
            case _State.NAME:
                return self._until(text, position, limit, b'"', out)
            case _State.DOLLAR:
                return self._until(text, position, limit, self._dollar, out)
            case _State.LINE:
                return self._until(text, position, limit, b"\n", out)
            case _State.COMMENT:
                return self._comment(text, position, limit, out)

    # Each of these consumes from ``position`` and returns the new one.

    def _normal(self, text: bytes, position: int, limit: int, out: bytearray, *, last: bool) -> int:
        for match in _TOKEN.finditer(text, position):
            kind, token, end = match.lastgroup, match[0], match.end()
            if end > limit and not last:
                return self._at_the_limit(match, position, limit, text, out)
            if kind == "newline":
                self._saw_break = True
            elif kind == "text":  # without a backslash: quoted the same in every setting
                self._saw_break = False
            elif kind in ("word", "other"):
                self._after_escape = False
                if kind == "word" and len(token) >= _LONGEST_TOKEN:
                    raise self._too_long(token)
                if self._depth == 0 and len(self._words) < _WORDS:
                    self._words.append(token.decode("latin-1").upper())
            elif token == b"\\":
                return self._command(text, position, match.start(), out)
            else:
                self._pass(text[position:end], out)
                position = end
                if token == b";" and self._depth == 0:
                    return self._finish(text, end, out)
                self._begin(token)
                if self._state is not _State.NORMAL:
                    return end
        self._pass(text[position:limit], out)
        return limit

    def _at_the_limit(self, match: re.Match[bytes], position: int, limit: int, text: bytes, out: bytearray) -> int:
        """A token that the limit cuts: it waits for the next piece, except a quoted text, which may be long."""
        start = match.start()
        if start < limit and match.lastgroup == "text":
            self._pass(text[position : start + 1], out)
            self._begin(b"'")
            return start + 1
        if match.lastgroup == "word" and len(match[0]) >= _LONGEST_TOKEN:
            raise self._too_long(match[0])
        stop = min(start, limit)
        if stop == position and match.lastgroup == "other" and start < limit:
            stop = limit  # a long run of digits or signs may be cut
        self._pass(text[position:stop], out)
        return stop

    def _begin(self, token: bytes) -> None:
        """Go into what a mark begins."""
        match token:
            case b"'":
                continued = self._after_escape and self._saw_break
                self._state = _State.ESCAPE if continued else _State.STANDARD
                self._last_byte = 0
            case b"E'" | b"e'":
                self._state, self._last_byte = _State.ESCAPE, 0
            case b'"':
                self._state = _State.NAME
                if self._depth == 0 and len(self._words) < _WORDS:
                    self._words.append('""')
            case b"--":
                self._state = _State.LINE
                return
            case b"/*":
                self._state, self._comment_depth = _State.COMMENT, 1
                return
            case b"(":
                self._depth += 1
            case b")":
                self._depth = max(0, self._depth - 1)
            case _ if token.startswith(b"$"):
                if len(token) >= _LONGEST_TOKEN:
                    raise self._too_long(token)
                self._state, self._dollar = _State.DOLLAR, token
        self._after_escape = False

    def _too_long(self, token: bytes) -> RefusedError:
        return RefusedError(f"line {self._line}: a name of {len(token)} bytes or more; PostgreSQL knows none")

    def _quoted(self, text: bytes, position: int, limit: int, out: bytearray) -> int:
        if self._state is _State.ESCAPE:
            return self._escaped(text, position, limit, out)
        quote = text.find(b"'", position, limit)
        stop = limit if quote < 0 else quote
        content = text[position:stop]
        trailing = len(content) - len(content.rstrip(b"\\"))
        self._odd = (trailing % 2 == 1) != (self._odd and trailing == len(content))
        if quote < 0:
            self._pass(content, out)
            return limit
        if self._odd and self._refuse_ambiguous:
            raise self._ambiguous()
        self._pass(text[position : quote + 1], out)
        # A doubled quote begins the next text at once, which comes to the same.
        self._state, self._odd = _State.NORMAL, False
        self._after_escape = False
        return quote + 1

    def _escaped(self, text: bytes, position: int, limit: int, out: bytearray) -> int:
        match = _ESCAPED_END.search(text, position, limit)
        if match is None:
            self._last_byte = text[limit - 1]
            self._pass(text[position:limit], out)
            return limit
        start = match.start()
        before = text[start - 1] if start > position else self._last_byte
        self._last_byte = 0
        if match[0] == b"\\":
            # In some client encodings a backslash can be the second half of a character.
            if self._refuse_ambiguous and before >= 0x80:
                raise self._ambiguous()
            self._pass(text[position : start + 2], out)
            return start + 2
        doubled = text[start + 1 : start + 2] == b"'"
        self._pass(text[position : start + 1 + doubled], out)
        if not doubled:
            self._state, self._after_escape, self._saw_break = _State.NORMAL, True, False
        return start + 1 + doubled

    def _until(self, text: bytes, position: int, limit: int, end: bytes, out: bytearray) -> int:
        found = text.find(end, position, limit + len(end) - 1)
        stop = limit if found < 0 else found + len(end)
        self._pass(text[position:stop], out)
        if found >= 0:
            self._saw_break = self._saw_break or self._state is _State.LINE
            self._state = _State.NORMAL
        return stop

    def _comment(self, text: bytes, position: int, limit: int, out: bytearray) -> int:
        opening, closing = text.find(b"/*", position, limit + 1), text.find(b"*/", position, limit + 1)
        if opening < 0 and closing < 0:
            self._pass(text[position:limit], out)
            return limit
        if closing < 0 or 0 <= opening < closing:
            self._comment_depth += 1
            stop = opening + 2
        else:
            self._comment_depth -= 1
            stop = closing + 2
            if self._comment_depth == 0:
                self._state = _State.NORMAL
        self._pass(text[position:stop], out)
        return stop

    def _copy(self, text: bytes, position: int, limit: int, out: bytearray) -> int:
        """Rows, until the end mark, which is a line of its own. A row may be longer than any piece."""
        pattern = _COPY_END_LATER if self._inside_line else _COPY_END
        found = pattern.search(memoryview(text)[position:])
        if found is not None:
            stop = position + found.end()
        else:
            line_end = text.rfind(b"\n", position, limit)
            stop = limit if line_end < 0 else line_end + 1
            self._inside_line = line_end < 0
        data = text[position:stop]
        lines = data.count(b"\n")
        self._copy_rows += lines
        self._line += lines
        out += data
        if found is not None:
            self.copied.append(CopiedRows(statement=self._copy_statement, rows=self._copy_rows - 1))
            self._state = _State.NORMAL
        return stop

    def _command(self, text: bytes, position: int, start: int, out: bytearray) -> int:
        """A backslash outside of quotes: take it out when it is harmless, else refuse."""
        end = text.find(b"\n", start)
        line = text[start : len(text) if end < 0 else end]
        self._pass(text[position:start], out)
        shown = line[:80].decode("utf-8", "replace").rstrip()
        if self._words:
            raise RefusedError(f"line {self._line}: a psql command inside a statement: {shown}", hint=_COMMAND_HINT)
        if _RESTRICT.fullmatch(line):
            return start + len(line)
        connect = _CONNECT.fullmatch(line.decode("utf-8", "surrogateescape").rstrip())
        if connect is None:
            raise RefusedError(f"line {self._line}: the file holds a psql command: {shown}", hint=_COMMAND_HINT)
        quoted, named, bare = connect.groups()
        name = (
            re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else named.replace('""', '"') if named else str(bare)
        )
        if name != self._own:
            raise RefusedError(
                f"line {self._line}: the file goes over to database {name!r}, out of the one that is being restored",
                hint="It holds several databases (pg_dumpall) or another one. Split it, one file for each database.",
            )
        self.notes.append(f"line {self._line}: {shown}: left out, everything goes into the fresh database")
        return start + len(line)

    def _finish(self, text: bytes, position: int, out: bytearray) -> int:
        """The end of a statement: decide whether it runs, and whether COPY data follow."""
        words = " ".join(self._words)
        copies = re.match(r"COPY .*\bFROM STDIN\b", words) is not None
        if self._held and _DATABASE_WORDS.match(words):
            self._leave_out()
        out += self._statement
        copy_statement = bytes(self._statement[-4096:]) if copies else b""
        self._statement.clear()
        self._words.clear()
        self._held = True
        if not copies:
            return position
        end = text.find(b"\n", position)
        if end < 0 or text[position:end].strip():
            raise RefusedError(f"line {self._line}: text follows a COPY statement on its line", hint=_COMMAND_HINT)
        out += text[position : end + 1]
        self._line += 1
        self._state, self._copy_rows, self._inside_line = _State.COPY, 0, False
        self._copy_statement = copy_statement.decode("utf-8", "surrogateescape").strip()
        return end + 1

    def _leave_out(self) -> None:
        said = " ".join(self._statement.decode("utf-8", "replace").split())
        # Comments before the statement belong to it here; only its own text is shown.
        begin = re.search(rf"\b{self._words[0]}\b", said, re.IGNORECASE)
        said = said[begin.start() if begin else 0 :]
        created = re.match(r'CREATE DATABASE ("(?:[^"]|"")+"|[\w$]+)', said, re.IGNORECASE)
        if created:
            name = created[1][1:-1].replace('""', '"') if created[1].startswith('"') else created[1]
            if self._own not in (None, name):
                raise RefusedError(
                    f"line {self._line}: the file creates a second database, {name!r} after {self._own!r}",
                    hint="Split it, one file for each database.",
                )
            self._own = name
        self.notes.append(f"line {self._line}: {said[:100]}: left out, the fresh database has it from the old one")
        self._statement[:] = b"\n" * self._statement.count(b"\n")

    def _pass(self, data: bytes, out: bytearray) -> None:
        self._line += data.count(b"\n")
        if not self._held:
            out += data
            return
        self._statement += data
        if len(self._statement) > _LONGEST_HELD:
            if _DATABASE_WORDS.match(" ".join(self._words)):
                raise RefusedError(f"line {self._line}: a statement about a database that does not end")
            out += self._statement
            self._statement.clear()
            self._held = False

    def _ambiguous(self) -> RefusedError:
        return RefusedError(
            f"line {self._line}: a quoted text that another server setting would end elsewhere",
            hint="It could hide a command. Use a psql with the fixes for CVE-2025-8714 and CVE-2026-18408 "
            "(18.6, 17.11, 16.15, 15.19, 14.24), or restore through the database's container.",
        )


_COMMAND_HINT = "psql commands could start programs or leave the database. Remove the line if you know what it is for."
