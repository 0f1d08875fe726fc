"""Where a share is mistyped, as far as its checksum can tell.

The checksum of SLIP-39 is three words of a Reed-Solomon code: any wrong word shifts it by an amount that only a wrong
word at that place can. So one wrong word, one too many, one missing and two exchanged are found. Nothing is corrected:
the standard warns of it, and who holds the paper reads better than who guesses.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Final

from shamir_mnemonic.rs1024 import create_checksum, verify_checksum

FEWEST_WORDS: Final = 20  #: of 128 bits
_CHECKSUM_WORDS: Final = 3
_BITS: Final = 10
#: Recoup makes only shares with the flag "extendable"; SLIP-39 puts another text into the checksum of those without.
_TEXT: Final = b"shamir_extendable"
_LONGEST: Final = 120  # beyond, which a passphrase of more than 140 bytes is, looking for the place takes too long


def checksum_is_right(indices: Sequence[int]) -> bool:
    """Whether no word is wrong; ``indices`` are those of the words in the list."""
    return bool(verify_checksum(indices, _TEXT))


def where_it_is_wrong(indices: Sequence[int]) -> str | None:
    """Given the words of a share whose checksum is wrong, return where. None: it cannot be told."""
    words = list(indices)
    if len(words) > _LONGEST:
        return None
    number = wrong_word(words)
    if number is not None:
        return f"word {number} is another one"
    for at in range(len(words) - 1):
        if checksum_is_right([*words[:at], words[at + 1], words[at], *words[at + 2 :]]):
            return f"words {at + 1} and {at + 2} have changed places"
    for at in range(len(words)):
        if checksum_is_right([*words[:at], *words[at + 1 :]]):
            return f"word {at + 1} is one too many"
    shifts = _shifts(len(words) + 1)
    for at in range(len(words) + 1):
        if _reaches(shifts[at], _syndrome([*words[:at], 0, *words[at:]])):
            return f"a word is missing after word {at}" if at else "a word is missing before word 1"
    return None


def wrong_word(indices: Sequence[int]) -> int | None:
    """Which word, counted from 1, is wrong, when it is exactly one. None otherwise."""
    if not FEWEST_WORDS <= len(indices) <= _LONGEST:
        return None
    syndrome = _syndrome(indices)
    shifts = _shifts(len(indices))
    return next((at + 1 for at in range(len(indices)) if _reaches(shifts[at], syndrome)), None)


def _syndrome(indices: Sequence[int]) -> int:
    """How far the checksum is from the right one, in 30 bits; 0 for none."""
    body, given = indices[:-_CHECKSUM_WORDS], indices[-_CHECKSUM_WORDS:]
    return _number(create_checksum(body, _TEXT)) ^ _number(given)


@functools.lru_cache(maxsize=4)
def _shifts(length: int) -> list[list[int]]:
    """For each place, what each of the ten bits of its word does to the syndrome. The code is linear: bits add up."""
    body = length - _CHECKSUM_WORDS
    nothing = _number(create_checksum([0] * body, _TEXT))
    found = []
    for at in range(body):
        units = ([1 << bit if one == at else 0 for one in range(body)] for bit in range(_BITS))
        found.append([_number(create_checksum(unit, _TEXT)) ^ nothing for unit in units])
    for at in range(_CHECKSUM_WORDS):
        low = _BITS * (_CHECKSUM_WORDS - 1 - at)
        found.append([1 << low + bit for bit in range(_BITS)])
    return found


def _reaches(shifts: Sequence[int], syndrome: int) -> bool:
    """Whether some of ``shifts`` add up to ``syndrome``: Gauss, over bits."""
    pivots: dict[int, int] = {}
    for shift in shifts:
        rest = _reduced(shift, pivots)
        pivots[rest.bit_length()] = rest
    return _reduced(syndrome, pivots) == 0


def _reduced(value: int, pivots: Mapping[int, int]) -> int:
    while value and value.bit_length() in pivots:
        value ^= pivots[value.bit_length()]
    return value


def _number(words: Sequence[int]) -> int:
    made = 0
    for word in words:
        made = made << _BITS | word
    return made
