"""Shares of the key that are typed from paper, one after the other: at a terminal, or from a pipe.

What is typed is shown, since nobody types 33 words blindly at three in the morning; after each share the screen is
wiped, so that the next holder does not read it. Nothing goes through readline, which would keep it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from recoup.cli.asking import somebody_is_here
from recoup.cli.output import clean, write_error
from recoup.kernel.errors import WrongKeyError
from recoup.repository.key_share_text import words_in
from recoup.repository.key_shares import WORDS_OF_A_RANDOM_KEY, Given, MistypedError, Share, read_share, whole_word

if TYPE_CHECKING:
    from recoup.cli.output import Output

_WIPE = "\x1b[2J\x1b[3J\x1b[H"  # the screen, what scrolled off it, and back to its beginning
_LONGEST_LINE = 64 << 10
_MOST_WORDS = 1023  # what SLIP-39's checksum is made for


def typed_shares(output: Output, wanted: str | None) -> tuple[str | None, list[Given]]:
    """Ask for as many shares as the first one says are needed; and first for the fingerprint, when it is not known.

    At a terminal what is wrong is asked again. Raise ``WrongKeyError`` when the input ends before, or when it comes
    from a pipe and is wrong.
    """
    person = somebody_is_here()
    if wanted is None and person:
        wanted = (_line(person, "the fingerprint of the key, 16 characters on each share: ") or "").strip() or None
    given: list[Given] = []
    while not given or len({one.share.number for one in given}) < given[0].share.needed:
        what = f"the share typed as number {len(given) + 1}"
        share = _share(person, what)
        if person and sys.stderr.isatty():
            write_error(_WIPE)
        if person and any(one.share.number == share.number for one in given):
            output.note(f"that is share {share.number} again; another one is needed")
            continue
        given.append(Given(name=what, share=share))
        if person:
            output.note(f"share {share.number} of the set {share.set} is right; {share.needed} are needed")
    return wanted, given


def _share(person: bool, what: str) -> Share:
    words: list[str] = []
    ended = False
    while True:
        try:
            share = _whole(words, what, ended=ended)
        except MistypedError as wrong:
            if not person:
                raise
            words, ended = _mended(words, wrong), False
            continue
        if share is not None:
            return share
        line = _line(person, f"{what}, from word {len(words) + 1} on: ")
        if line is None and not words:
            raise WrongKeyError(
                f"{what} is missing: the input ended",
                hint="Type its words, or give files: recoup key combine FILE FILE",
            )
        new = words_in(line or "")
        if person and (odd := [at for at, word in enumerate(new, len(words) + 1) if whole_word(word) is None]):
            write_error(f"no word of the list is word {', '.join(map(str, odd))}; type this line again\n")
            continue
        words += new
        ended = line is None or (not new and bool(words)) or len(words) > _MOST_WORDS


def _whole(words: list[str], what: str, *, ended: bool) -> Share | None:
    """The share when its checksum is right; None when there may be more of it."""
    try:
        return read_share(words, what=what) if words else None
    except MistypedError as wrong:
        # The shares of a random key end here, and then a word is wrong; those of a passphrase may go on.
        if ended or (wrong.located and len(words) == WORDS_OF_A_RANDOM_KEY):
            raise
        return None


def _mended(words: list[str], wrong: MistypedError) -> list[str]:
    """The words after one was asked again, where exactly one is wrong; otherwise none: all are typed again."""
    write_error(clean(f"{wrong.message}\n", keep_newlines=True))
    if wrong.word is not None:
        again = words_in(_line(True, f"type word {wrong.word} again: ") or "")
        if len(again) == 1 and whole_word(again[0]) is not None:
            return [*words[: wrong.word - 1], again[0], *words[wrong.word :]]
    write_error("type this share again, from its first word\n")
    return []


def _line(person: bool, question: str) -> str | None:
    """A line of the input; None when there is no more."""
    if person:
        write_error(question)
    line = sys.stdin.readline(_LONGEST_LINE)
    return line or None
