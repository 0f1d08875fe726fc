"""The packed encodings inside RDB values: LZF, listpack, ziplist, intset, zipmap. Each is decoded whole, with limits.

Sources: Redis, src/lzf_d.c, src/listpack.c, src/ziplist.c, src/intset.c, src/zipmap.c. Numbers become the decimal text
that a client would read, so that two encodings of one value decode to equal elements. Every function raises
``DamageError`` for bytes that do not follow the format, and nothing else.
"""

from __future__ import annotations

import struct

from recoup.kernel.errors import DamageError

_LZF_BEST = 264  #: the longest run that one back reference (three bytes) can stand for


def lzf_decompress(data: bytes, length: int) -> bytes:
    """Given LZF-compressed data and the stated plain length, return the plain bytes."""
    if length > len(data) * _LZF_BEST:
        raise DamageError(f"a compressed string of {len(data)} bytes claims to hold {length}")
    plain = bytearray()
    position, end = 0, len(data)
    try:
        while position < end:
            control = data[position]
            position += 1
            if control < 32:
                stop = position + control + 1
                if stop > end:
                    raise DamageError("a compressed string ends inside a literal")
                plain += data[position:stop]
                position = stop
                continue
            run = control >> 5
            if run == 7:
                run += data[position]
                position += 1
            start = len(plain) - ((control & 31) << 8) - data[position] - 1
            position += 1
            run += 2
            if start < 0:
                raise DamageError("a compressed string refers to bytes before its begin")
            distance = len(plain) - start
            if distance >= run:
                plain += plain[start : start + run]
            else:  # overlapping: the last bytes repeat
                plain += (plain[start:] * (run // distance + 1))[:run]
            if len(plain) > length:
                break
    except IndexError as short:
        raise DamageError("a compressed string ends inside a back reference") from short
    if len(plain) != length:
        raise DamageError(f"a compressed string holds {len(plain)} bytes instead of {length}")
    return bytes(plain)


def _integer(data: bytes, position: int, size: int) -> bytes:
    raw = data[position : position + size]
    if len(raw) != size:
        raise DamageError("a packed value ends inside a number")
    return b"%d" % int.from_bytes(raw, "little", signed=True)


def listpack(data: bytes) -> list[bytes]:
    """The elements of a listpack."""
    if len(data) < 7 or int.from_bytes(data[:4], "little") != len(data) or data[-1] != 0xFF:
        raise DamageError("a listpack's length or end mark is wrong")
    stated = int.from_bytes(data[4:6], "little")
    elements: list[bytes] = []
    position, end = 6, len(data) - 1
    while position < end:
        first = data[position]
        if first < 0x80:  # 7-bit number
            elements.append(b"%d" % first)
            size = 1
        elif first < 0xC0:  # text of up to 63 bytes
            size = 1 + (first & 0x3F)
            elements.append(data[position + 1 : position + size])
        elif first < 0xE0:  # 13-bit number
            if position + 1 >= end:
                raise DamageError("a listpack ends inside a number")
            number = (first & 0x1F) << 8 | data[position + 1]
            elements.append(b"%d" % (number - (1 << 13) if number >= 1 << 12 else number))
            size = 2
        elif first < 0xF0:  # text of up to 4095 bytes
            size = 2 + ((first & 0x0F) << 8 | data[position + 1])
            elements.append(data[position + 2 : position + size])
        elif first == 0xF0:  # longer text
            size = 5 + int.from_bytes(data[position + 1 : position + 5], "little")
            elements.append(data[position + 5 : position + size])
        elif first <= 0xF4:
            size = 1 + (2, 3, 4, 8)[first - 0xF1]
            elements.append(_integer(data, position + 1, size - 1))
        else:
            raise DamageError(f"a listpack holds an element of the unknown kind {first:#x}")
        position += size + _back_length(size)
    if position != end:
        raise DamageError("a listpack's last element passes its end")
    if stated != 0xFFFF and stated != len(elements):
        raise DamageError(f"a listpack holds {len(elements)} elements instead of {stated}")
    return elements


def _back_length(size: int) -> int:
    """How many bytes the backward length after an element of ``size`` bytes takes (listpack.c, lpEncodeBacklen)."""
    if size <= 127:
        return 1
    if size < 16383:
        return 2
    if size < 2097151:
        return 3
    return 4 if size < 268435455 else 5


def ziplist(data: bytes) -> list[bytes]:
    """The elements of a ziplist, the older form of a listpack."""
    if len(data) < 11 or int.from_bytes(data[:4], "little") != len(data) or data[-1] != 0xFF:
        raise DamageError("a ziplist's length or end mark is wrong")
    stated = int.from_bytes(data[8:10], "little")
    elements: list[bytes] = []
    position, end = 10, len(data) - 1
    try:
        while position < end:
            position += 5 if data[position] == 0xFE else 1
            element, position = _ziplist_element(data, position)
            elements.append(element)
    except IndexError as short:
        raise DamageError("a ziplist ends inside an element") from short
    if position != end:
        raise DamageError("a ziplist's last element passes its end")
    if stated != 0xFFFF and stated != len(elements):
        raise DamageError(f"a ziplist holds {len(elements)} elements instead of {stated}")
    return elements


def _ziplist_element(data: bytes, position: int) -> tuple[bytes, int]:
    first = data[position]
    position += 1
    if first < 0xC0:
        if first < 0x40:
            size = first
        elif first < 0x80:
            size = (first & 0x3F) << 8 | data[position]
            position += 1
        else:
            size = int.from_bytes(data[position : position + 4], "big")
            position += 4
        return data[position : position + size], position + size
    size = {0xC0: 2, 0xD0: 4, 0xE0: 8, 0xF0: 3, 0xFE: 1}.get(first, 0)
    if size:
        return _integer(data, position, size), position + size
    if 0xF1 <= first <= 0xFD:
        return b"%d" % ((first & 0x0F) - 1), position
    raise DamageError(f"a ziplist holds an element of the unknown kind {first:#x}")


def intset(data: bytes) -> list[bytes]:
    """The members of an intset."""
    if len(data) < 8:
        raise DamageError("an intset is shorter than its header")
    width, count = struct.unpack_from("<II", data)
    kind = {2: "h", 4: "i", 8: "q"}.get(width)
    if kind is None or len(data) != 8 + width * count:
        raise DamageError("an intset's width or length is wrong")
    return [b"%d" % number for number in struct.unpack_from(f"<{count}{kind}", data, 8)]


def zipmap(data: bytes) -> list[bytes]:
    """The fields and values of a zipmap (hashes of Redis 2.4 and older), alternating."""
    elements: list[bytes] = []
    position = 1
    try:
        while data[position] != 0xFF:
            size = data[position]
            position += 1
            if size == 0xFE:
                size = int.from_bytes(data[position : position + 4], "little")
                position += 4
            free = 0
            if len(elements) % 2:
                free = data[position]
                position += 1
            if position + size + free >= len(data):
                raise DamageError("a zipmap's element passes its end")
            elements.append(data[position : position + size])
            position += size + free
    except IndexError as short:
        raise DamageError("a zipmap ends without its end mark") from short
    if position != len(data) - 1 or len(elements) % 2:
        raise DamageError("a zipmap's end is wrong")
    return elements
