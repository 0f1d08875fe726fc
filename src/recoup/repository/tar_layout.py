"""Reading the headers of a tar stream as it passes by: where members begin, without holding their data.

Sources: POSIX.1-2008 pax (ustar and extended headers), and the GNU tar manual's "Basic Tar Format" (long names and
links, numbers in base 256). Where programs disagree on what a header means, the stream is refused: a copy that two
programs would unpack differently is not a copy.
"""

from __future__ import annotations

from typing import Final

from recoup.engines.engine import Member
from recoup.kernel.errors import EngineError

BLOCK: Final = 512
#: Extended headers and names longer than this are refused; they would have to be held in memory.
EXTENDED_LIMIT_BYTES: Final = 1 << 20
NAME_LIMIT_BYTES: Final = 32 << 10

_ENDLESS: Final = 1 << 62
_SIZE_LIMIT: Final = 1 << 60
_KINDS: Final = {b"0": "file", b"\0": "file", b"7": "file", b"1": "hardlink", b"2": "symlink", b"5": "directory"}
_WITHOUT_DATA: Final = b"123456"
_EXTENDED: Final = b"xgLK"
_CHECKSUM_BLANK: Final = 8 * 0x20


class TarScanner:
    """Follows a tar stream. The owner of the bytes passes over ``passing`` of them, then shows the next ``needed``.

    ``see`` looks at those and says what follows; both attributes are then new. Memory is bounded.
    """

    def __init__(self) -> None:
        self.passing = 0  #: bytes from here that are of no interest
        self.needed = BLOCK  #: bytes after these that ``see`` wants in one piece; 0 when the archive has ended
        self._at = 0  # where the piece that ``see`` wants next begins
        self._extended = b""  # the type of the extended header whose body comes next
        self._extended_bytes = 0
        self._global: dict[str, bytes] = {}
        self._local: dict[str, bytes] = {}
        self._has_extended = False

    def see(self, piece: bytes) -> Member | None:
        """Given the wanted bytes, return the member whose data follow now, if they are the header of one.

        Raise ``EngineError`` naming the offset when the stream is not a well-formed tar.
        """
        if len(piece) != self.needed:
            raise ValueError(f"{len(piece)} bytes shown, {self.needed} wanted")
        start = self._at
        self._at += len(piece)
        if self._extended:
            self._take_extended(piece, start)
            self.passing, self.needed = 0, BLOCK
            return None
        if not any(piece):
            if self._has_extended:
                raise _malformed(start, "an extended header without a member after it")
            # Every program stops at the zero blocks; what may follow them is kept as it is.
            self.passing, self.needed = _ENDLESS, 0
            return None
        return self._take_header(piece, start)

    def check_end(self, offset: int) -> None:
        """Given the length of the stream, raise ``EngineError`` unless it may end there.

        The zero blocks at the end may be missing: PostgreSQL before version 15 leaves them out.
        """
        if self.needed == 0 or (offset == self._at and not self._extended and not self._has_extended):
            return
        raise _malformed(offset, "the stream ends in the middle of a member")

    def _take_header(self, header: bytes, start: int) -> Member | None:
        claimed = _octal(header[148:156], start, "checksum")
        if claimed != sum(header) - sum(header[148:156]) + _CHECKSUM_BLANK and claimed != _signed_sum(header):
            raise _malformed(start, "a header's checksum does not match")
        kind = header[156:157]
        size = _number(header[124:136], start, "size")
        if kind in _EXTENDED:
            if size > EXTENDED_LIMIT_BYTES:
                raise _malformed(start, f"an extended header of {size} bytes; at most {EXTENDED_LIMIT_BYTES} are read")
            self._extended, self._extended_bytes = kind, size
            self._has_extended = self._has_extended or kind != b"g"
            self.passing, self.needed = 0, _padded(size)
            if size == 0:
                self._extended = b""
                self.needed = BLOCK
            return None
        member = self._member(header, kind, size, start)
        data_bytes = member.size_bytes if kind not in _WITHOUT_DATA else 0
        self._local, self._has_extended = {}, False
        self.passing, self.needed = _padded(data_bytes), BLOCK
        self._at += self.passing
        return member

    def _member(self, header: bytes, kind: bytes, size: int, start: int) -> Member:
        # An empty value takes an earlier one back, and what the plain header says counts again.
        extended = {name: value for name, value in {**self._global, **self._local}.items() if value}
        if kind == b"S" or any(name.startswith("GNU.sparse.") for name in extended):
            raise _malformed(start, "a sparse member, which cannot be read at any place", hint=_SPARSE_HINT)
        if kind == b"M":
            raise _malformed(start, "the continuation of another volume")
        path = extended.get("path", _ustar_path(header)).rstrip(b"\0")
        link = extended.get("linkpath", _text(header[157:257]))
        if not path or max(len(path), len(link)) > NAME_LIMIT_BYTES:
            raise _malformed(start, f"a name of {len(path)} bytes, to a target of {len(link)}")
        size = _decimal(extended["size"], start, "size") if "size" in extended else size
        if size > _SIZE_LIMIT:
            raise _malformed(start, f"a member of {size} bytes")
        if size and kind in _WITHOUT_DATA:
            if kind != b"1":
                raise _malformed(start, f"a member of type {kind.decode('ascii')} with {size} bytes of data")
            size = 0  # a hard link repeats its target's size, and no data follow
        meaning = _KINDS.get(kind, "other")
        if kind == b"\0" and path.endswith(b"/"):
            meaning = "directory"  # the first tars had no type for it
        if meaning == "directory":
            path = path.rstrip(b"/") or b"/"
        return Member(
            path=path.decode("utf-8", "surrogateescape"),
            kind=meaning,
            size_bytes=size,
            mode=_number(header[100:108], start, "mode") & 0o7777,
            uid=_field(extended, "uid", header[108:116], start),
            gid=_field(extended, "gid", header[116:124], start),
            mtime=_time(extended, header[136:148], start),
            offset=self._at,
            link=link.decode("utf-8", "surrogateescape") if kind in b"12" else "",
        )

    def _take_extended(self, piece: bytes, start: int) -> None:
        kind, self._extended = self._extended, b""
        body = piece[: self._extended_bytes]
        if kind in b"LK":
            self._local["path" if kind == b"L" else "linkpath"] = _text(body)
            return
        records = _pax_records(body, start)
        (self._local if kind == b"x" else self._global).update(records)


_SPARSE_HINT = "Write the archive without -S (--sparse)."


def _malformed(offset: int, what: str, *, hint: str | None = None) -> EngineError:
    return EngineError(f"malformed tar stream at byte {offset}: {what}", hint=hint)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _signed_sum(header: bytes) -> int:
    """Some old programs added signed bytes."""
    rest = header[:148] + header[156:]
    return sum(byte - 256 if byte > 127 else byte for byte in rest) + _CHECKSUM_BLANK


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _ustar_path(header: bytes) -> bytes:
    name = _text(header[:100])
    # GNU's own format has "ustar  " there and keeps other things in the prefix.
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _octal(field: bytes, start: int, what: str) -> int:
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise _malformed(start, f"a header's {what} is not a number")
    return int(digits, 8)


def _number(field: bytes, start: int, what: str) -> int:
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    if field[0] == 0xFF:
        raise _malformed(start, f"a header's {what} is negative")
    return _octal(field, start, what)


def _decimal(value: bytes, start: int, what: str) -> int:
    if not value or len(value) > 20 or value.strip(b"0123456789"):
        raise _malformed(start, f"an extended header's {what} is not a number")
    return int(value)


def _field(extended: dict[str, bytes], name: str, field: bytes, start: int) -> int:
    return _decimal(extended[name], start, name) if name in extended else _number(field, start, name)


def _time(extended: dict[str, bytes], field: bytes, start: int) -> float:
    text = extended.get("mtime")
    if text is None:
        if field[0] == 0xFF:  # before 1970, in base 256
            return float(int.from_bytes(field, "big", signed=True))
        return float(_number(field, start, "mtime"))
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    if not whole or len(text) > 40 or (whole + fraction).strip(b"0123456789"):
        raise _malformed(start, "an extended header's mtime is not a number")
    return float(text)


def _pax_records(body: bytes, start: int) -> dict[str, bytes]:
    records: dict[str, bytes] = {}
    at = 0
    while at < len(body):
        space = body.find(b" ", at, at + 9)
        digits = body[at:space] if space > 0 else b""
        if not digits or digits.strip(b"0123456789"):
            raise _malformed(start + at, "an extended record has no length")
        end = at + int(digits)
        equals = body.find(b"=", space + 1, end)
        if end > len(body) or end <= space or body[end - 1 : end] != b"\n" or equals < 0:
            raise _malformed(start + at, "an extended record's length is wrong")
        name = body[space + 1 : equals].decode("utf-8", "replace")
        records[name] = body[equals + 1 : end - 1]
        at = end
    return records
