"""The key in shares, of which any few together give it back and fewer tell nothing: SLIP-39, by its own library.

https://github.com/satoshilabs/slips/blob/master/slip-0039.md. Each share is words from a list of 1,024, with a checksum
that finds any three wrong words; the shares together carry a digest of the secret. A random key is shared as its 32
bytes, so that any program of the standard gives back the text of the key file; a passphrase as its text, filled with
zeros to an even number of bytes other than 32.

The words are secret and so are never in a message, not even a wrong one: a place is named, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from shamir_mnemonic import MnemonicError, combine_mnemonics, generate_mnemonics
from shamir_mnemonic import Share as _Slip39
from shamir_mnemonic.wordlist import WORD_INDEX_MAP, WORDLIST

from recoup.kernel.errors import UsageError, WrongKeyError
from recoup.kernel.secret import Secret
from recoup.repository.key_share_words import FEWEST_WORDS, checksum_is_right, where_it_is_wrong, wrong_word
from recoup.repository.seal import Key

MOST_SHARES: Final = 16  #: SLIP-39's own bound
WORDS_OF_A_RANDOM_KEY: Final = 33
_RANDOM_KEY_BYTES: Final = 32
_LETTERS: Final = 4  # no two words of the list begin with the same four
_BY_LETTERS: Final = {word[:_LETTERS]: word for word in WORDLIST}


class MistypedError(WrongKeyError):
    """A share is not as it was written. ``word``, from 1, is the one that is wrong, when it is one.

    ``located``: the message says where.
    """

    def __init__(self, message: str, *, located: bool = False, word: int | None = None) -> None:
        hint = "Compare it with what is on the paper. Four letters of each word are enough."
        super().__init__(message, hint=hint)
        self.located = located
        self.word = word


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One share. ``set`` is the same for all that were made together: the first two words of each."""

    number: int  #: from 1
    needed: int
    set: str
    words: Secret = field(repr=False)  #: with one space between them


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A share as somebody brought it. ``name`` is for people; ``key`` the fingerprint that it names, when it does."""

    name: str
    share: Share
    key: str | None = None


def split(key: Key, *, needed: int, count: int) -> tuple[Share, ...]:
    """Cut ``key`` into ``count`` shares, of which any ``needed`` give it back: proven before they are returned.

    Raise ``UsageError`` for numbers that make no sense.
    """
    if not 2 <= needed <= count <= MOST_SHARES:
        raise UsageError(
            f"{needed} of {count} shares cannot be made",
            hint=f"At least 2 must be needed, and no more than there are, which is {MOST_SHARES} at most.",
        )
    # The key is random, or stretched by openssl's rounds: SLIP-39's own passphrase and rounds would add nothing.
    made = generate_mnemonics(1, [(needed, count)], _packed(key), iteration_exponent=0)[0]
    shares = tuple(read_share(words.split()) for words in made)
    bring_together([Given(name=f"share {one.number}", share=one, key=key.id[:16]) for one in shares])
    return shares


def whole_word(typed: str) -> str | None:
    """The word of the list that is meant: written out, or its first four letters or more. None when there is none."""
    word = typed.strip().lower()
    if word in WORD_INDEX_MAP:
        return word
    meant = _BY_LETTERS.get(word[:_LETTERS])
    return meant if meant is not None and len(word) >= _LETTERS and meant.startswith(word) else None


def read_share(typed: Sequence[str], *, what: str = "the share") -> Share:
    """The share that these words are. Raise ``MistypedError`` that says near which word ``what`` is mistyped."""
    words = [whole_word(one) for one in typed]
    unknown = [number for number, word in enumerate(words, 1) if word is None]
    if unknown:
        which = ", ".join(str(one) for one in unknown[:5])
        raise MistypedError(f"{what} is mistyped: no word of the list is word {which}", located=True)
    if len(words) < FEWEST_WORDS:
        raise MistypedError(
            f"{what} has {len(words)} words, and a share has {FEWEST_WORDS} at least, that of a random key "
            f"{WORDS_OF_A_RANDOM_KEY}"
        )
    indices = [WORD_INDEX_MAP[word] for word in words if word is not None]
    if not checksum_is_right(indices):
        place = where_it_is_wrong(indices)
        found = f"{place}, says its checksum" if place else "its checksum is wrong, by more than one word"
        raise MistypedError(
            f"{what} is mistyped ({len(words)} words): {found}", located=place is not None, word=wrong_word(indices)
        )
    return _share(" ".join(WORDLIST[one] for one in indices), what)


def _share(words: str, what: str) -> Share:
    try:
        read = _Slip39.from_mnemonic(words)
    except MnemonicError:
        raise WrongKeyError(f"{what} is no share: its checksum is right and its form is not") from None
    if read.group_count != 1 or read.member_threshold == 1:
        raise WrongKeyError(
            f"{what} is a share that another program made, in groups or whole",
            hint="Bring such shares together with that program.",
        )
    first, second = words.split()[:2]
    return Share(number=read.index + 1, needed=read.member_threshold, set=f"{first}-{second}", words=Secret(words))


def bring_together(given: Sequence[Given], *, wanted: str | None = None) -> Key:
    """The key that these shares are of. ``wanted`` is the fingerprint that it must have.

    Shares beyond those that are needed are held against the others. Raise ``WrongKeyError`` when one is of another set
    or another key, when they are too few, when they do not fit together, or give another key than they name.
    """
    named = _one_key(given, wanted)
    different = _one_set(given)
    needed = different[0].share.needed if different else 2
    if len(different) < needed:
        have = ", ".join(f"share {one.share.number}" for one in different) or "none"
        raise WrongKeyError(
            f"{needed} different shares are needed, and there is {have}",
            hint="The page of the recovery kit says who has the others.",
        )
    # The first ones and each further one in the last one's place: when all these agree, every share lies on one curve,
    # and so any choice of them gives the same.
    first, others = different[: needed - 1], different[needed - 1 :]
    found = {_secret([*first, one]) for one in others}
    if len(found) != 1:
        raise WrongKeyError(
            "the shares do not give one key", hint="Leave one out after the other, to see which is another's."
        )
    key = Key.from_text(_unpacked(found.pop()))
    if key.id[:16] != named:
        raise WrongKeyError(
            f"the shares give key {key.id[:16]}, and not {named}, which was asked for or stands on them",
            hint="Is one of the papers, or the kit, about an older key?",
        )
    return key


def _one_key(given: Sequence[Given], wanted: str | None) -> str:
    """The fingerprint that the shares name, or that was asked for; all that say one say the same."""
    said = [("what is wanted", wanted.lower()[:16])] if wanted is not None else []
    said += [(one.name, one.key) for one in given if one.key is not None]
    if not said:
        raise UsageError(
            "words alone do not say which key they are of",
            hint="Add --key-id with the fingerprint that stands on the shares and in the recovery kit.",
        )
    first, asked = said[0]
    for name, key in said[1:]:
        if key != asked:
            raise WrongKeyError(
                f"{name} is of key {key}, and {first} is of key {asked}",
                hint="Bring shares of one key together. Its fingerprint is on each, and in the recovery kit.",
            )
    return asked


def _one_set(given: Sequence[Given]) -> list[Given]:
    """The shares without those given twice."""
    different: dict[int, Given] = {}
    for one in given:
        first = given[0]
        if (one.share.set, one.share.needed) != (first.share.set, first.share.needed):
            raise WrongKeyError(
                f"{one.name} is of the set {one.share.set}, and {first.name} of the set {first.share.set}: "
                "they were not made together",
                hint="The set is the first two words of a share. Bring shares of one set.",
            )
        twin = different.setdefault(one.share.number, one)
        if twin.share.words != one.share.words:
            raise WrongKeyError(
                f"{twin.name} and {one.name} both are share {one.share.number} of the set {one.share.set}, and differ",
                hint="One of them is from another key; leave one out after the other.",
            )
    return list(different.values())


def _secret(given: Sequence[Given]) -> bytes:
    try:
        secret: bytes = combine_mnemonics([one.share.words.reveal() for one in given])
    except MnemonicError:
        names = ", ".join(one.name for one in given)
        raise WrongKeyError(
            f"{names} do not fit together: the digest of the key is wrong",
            hint="Each is right in itself, so one is of another key. Try it with other shares.",
        ) from None
    return secret


def _packed(key: Key) -> bytes:
    if key.is_random:
        return bytes.fromhex(key.text.reveal())
    text = key.text.reveal().encode()  # without a NUL: a key has no control character
    return text.ljust(max(_RANDOM_KEY_BYTES + 2, len(text) + len(text) % 2), b"\0")


def _unpacked(secret: bytes) -> str:
    if len(secret) == _RANDOM_KEY_BYTES:
        return secret.hex()
    try:
        return secret.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        raise WrongKeyError(
            "what these shares give is no key of Recoup", hint="Were they made for something else?"
        ) from None
