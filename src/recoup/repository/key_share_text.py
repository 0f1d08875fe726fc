"""A share of the key as text: what its holder prints and keeps, and what is read from it again.

Lines of ``name: value`` say what it is of, numbered words are the share, everything else is for people. The note beside
the shares has the same lines and no words: it may be known.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from recoup.kernel.errors import DamageError, UsageError, WrongKeyError
from recoup.repository.key_shares import WORDS_OF_A_RANDOM_KEY, Given, Share, read_share
from recoup.repository.shared_key import SharedKey

LARGEST_BYTES: Final = 64 << 10  #: of a text that is read
_WORDS_IN_A_LINE: Final = 5
_WIDTH: Final = 78  # of a page in a fixed font
_LONGEST_HOLDER: Final = 60
_LINE = re.compile(r"(key|set|share|needed|holder): +(\S.*?)\s*", re.IGNORECASE)
_HOLDER_LINE = re.compile(r"share (\d+): +(\S.*?)\s*")
_NUMBERED = re.compile(r"\s*(?:\d{1,4}[.):]?\s+[A-Za-z]+\s*)+")
_OF = re.compile(r"(\d+) of (\d+)")
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A text that was read: what it is of, and the share when it holds one."""

    of: SharedKey
    given: Given | None


def check_holder(name: str) -> str:
    """``name``, when it can stand in a line. Raise ``UsageError``."""
    if not name.strip() or not name.isprintable() or len(name) > _LONGEST_HOLDER:
        raise UsageError(
            "the name of a holder is not one line of text",
            hint=f"A name, or a place such as 'safe in the office', of {_LONGEST_HOLDER} characters at most.",
        )
    return name.strip()


def share_name(of: SharedKey, number: int) -> str:
    """What the file of a share is called."""
    return f"recoup-key-{of.key}-share-{number}-of-{of.count}.txt"


def note_name(of: SharedKey) -> str:
    """What the note beside the shares is called."""
    return f"recoup-key-{of.key}-shares.txt"


def share_text(of: SharedKey, share: Share) -> str:
    """The text for the holder of ``share``. It is secret."""
    holder = [f"holder: {of.holders[share.number - 1]}"] if of.holders else []
    others = of.count - of.needed
    loss = (
        f"It may be lost as long as {of.needed} others are left; say so then, and new ones are made."
        if others
        else "All of them are needed: if this one is lost, so is the key."
    )
    lines = [
        f"Share {share.number} of {of.count} of the Recoup key {of.key}",
        "",
        f"key: {of.key}",
        f"set: {of.set}",
        f"share: {share.number} of {of.count}",
        f"needed: {of.needed}",
        *holder,
        "",
        *_table(share.words.reveal().split()),
        "",
        *_wrapped(
            f"What this is. The key that opens the backups was split into {of.count} shares; any {of.needed} of them "
            "give it back. This one alone opens nothing and tells nothing about the key. Keep it on paper, where no "
            f"other share is and only you get at it. {loss}"
        ),
        "",
        *_wrapped(
            f"On the worst day. The holders of {of.needed} shares come together at a machine with Recoup (the page of "
            "the recovery kit says how it is installed, and what comes after it), and type:"
        ),
        "",
        f"    {of.command}",
        "",
        *_wrapped(
            "It asks for the words above, one share after the other; four letters of each are enough. It takes files "
            "as well, when they are at hand: recoup key combine FILE FILE --output recoup.key"
        ),
        "",
        *_wrapped(
            "Without Recoup. The words are a share of SLIP-39, without a passphrase. Any program of that standard "
            "gives the key back in hexadecimal characters; for example: pipx install 'shamir-mnemonic[cli]', then: "
            "shamir recover"
        ),
    ]
    return "\n".join([*lines, ""])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def note_text(of: SharedKey) -> str:
    """The text for ``recoup kit --shares``: which shares there are. Nothing in it is secret."""
    lines = [
        f"The shares of the Recoup key {of.key}",
        "",
        f"key: {of.key}",
        f"set: {of.set}",
        f"needed: {of.needed} of {of.count}",
        *(f"share {number}: {holder}" for number, holder in enumerate(of.holders, 1)),
        "",
        "No share is in this file, and no secret. For the recovery kit: recoup kit --shares THIS-FILE --output FOLDER.",
        "",
    ]
    return "\n".join(lines)


def read_text(text: str, what: str) -> Read:
    """What ``share_text`` or ``note_text`` wrote, also when somebody typed it from paper.

    Raise ``WrongKeyError`` when the share in it is mistyped, or is another one than its lines say; ``DamageError`` when
    it is neither.
    """
    lines = text.splitlines()
    fields = {m[1].lower(): m[2] for line in lines if (m := _LINE.fullmatch(line.strip()))}
    holders = {int(m[1]): m[2] for line in lines if (m := _HOLDER_LINE.fullmatch(line.strip()))}
    counted = _OF.fullmatch(fields.get("share", "")) or _OF.fullmatch(fields.get("needed", ""))
    needed = re.match(r"\d+", fields.get("needed", ""))
    key = fields.get("key", "").lower()
    if counted is None or needed is None or not _FINGERPRINT.fullmatch(key) or "set" not in fields:
        raise DamageError(
            f"{what} is no share of a key: it has not the lines key, set, share and needed",
            hint="Give the file as `recoup key split` wrote it, or type the words of the share without a file.",
        )
    of = SharedKey(
        key=key,
        set=fields["set"].lower(),
        needed=int(needed[0]),
        count=int(counted[2]),
        holders=tuple(holders[number] for number in sorted(holders)) if len(holders) == int(counted[2]) else (),
    )
    words = list(_numbered(lines, what))
    if not words:
        return Read(of=of, given=None)
    share = read_share(words, what=what)
    if (share.set, share.needed, share.number) != (of.set, of.needed, int(counted[1])):
        raise WrongKeyError(
            f"the words of {what} are share {share.number} of the set {share.set}, of which {share.needed} are needed, "
            "and its lines say something else",
            hint="Words and lines were not written together. Take the file as `recoup key split` wrote it.",
        )
    return Read(of=of, given=Given(name=what, share=share, key=key))


def words_in(line: str) -> list[str]:
    """The words in a line that somebody typed, without the numbers before them."""
    return [word for one in line.split() if (word := re.sub(r"^\d+[.):]?", "", one))]


def _table(words: list[str]) -> Iterator[str]:
    width = max(len(word) for word in words)
    for start in range(0, len(words), _WORDS_IN_A_LINE):
        row = enumerate(words[start : start + _WORDS_IN_A_LINE], start + 1)
        yield "  ".join(f"{number:4} {word:{width}}" for number, word in row).rstrip()


def _numbered(lines: list[str], what: str) -> Iterator[str]:
    expected = 1
    for line in lines:
        if not _NUMBERED.fullmatch(line):
            continue
        for number, word in re.findall(r"(\d+)[.):]?\s+([A-Za-z]+)", line):
            if int(number) != expected:
                raise WrongKeyError(
                    f"{what}: word {expected} is not where it should be, before or instead of word {number}",
                    hint=f"Each word has its number; the share of a random key has {WORDS_OF_A_RANDOM_KEY}.",
                )
            expected += 1
            yield word
