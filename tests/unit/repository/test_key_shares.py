"""Shares of the key: as many as are needed give it back, fewer nothing; what is mistyped is named, never printed."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shamir_mnemonic import combine_mnemonics, generate_mnemonics
from shamir_mnemonic.wordlist import WORDLIST

from recoup.kernel.errors import DamageError, UsageError, WrongKeyError
from recoup.repository.key_share_text import note_text, read_text, share_text
from recoup.repository.key_share_words import where_it_is_wrong
from recoup.repository.key_shares import (
    Given,
    MistypedError,
    Share,
    bring_together,
    read_share,
    split,
    whole_word,
)
from recoup.repository.seal import Key
from recoup.repository.shared_key import SharedKey

KEY = Key.from_text("00c0ffee" * 8)
OTHER = Key.from_text("0badc0de" * 8)
SHARES = split(KEY, needed=2, count=3)
OF = SharedKey(key=KEY.id[:16], set=SHARES[0].set, needed=2, count=3, holders=("Ana", "Ben", "safe: in the office"))
WORDS = SHARES[1].words.reveal().split()

numbers = st.integers(2, 5).flatmap(lambda count: st.tuples(st.integers(2, count), st.just(count)))


@pytest.fixture(scope="module", autouse=True)
def few_rounds() -> Iterator[None]:
    """A passphrase is not stretched here: it would cost half a second each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recoup.repository.seal.PASSPHRASE_ITERATIONS", 1)
        yield


def brought(shares: tuple[Share, ...], key: str | None = KEY.id[:16]) -> list[Given]:
    return [Given(name=f"paper {one.number}", share=one, key=key) for one in shares]


@given(st.binary(min_size=32, max_size=32), numbers)
@settings(max_examples=10, deadline=None)
def test_any_choice_of_as_many_as_are_needed_gives_the_key_back_and_any_fewer_do_not(
    secret: bytes, sizes: tuple[int, int]
) -> None:
    needed, count = sizes
    key = Key.from_text(secret.hex())
    shares = split(key, needed=needed, count=count)
    for few in range(1, count + 1):
        for chosen in itertools.combinations(shares, few):
            if few >= needed:
                assert bring_together(brought(chosen, key.id[:16])).text == key.text
            else:
                with pytest.raises(WrongKeyError, match=f"{needed} different shares are needed"):
                    bring_together(brought(chosen, key.id[:16]))


passphrases = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=120)


@given(passphrases)
@settings(max_examples=40, deadline=None)
def test_a_passphrase_of_any_length_comes_back_as_it_was(text: str) -> None:
    key = Key.from_text(text)
    shares = split(key, needed=2, count=2)
    assert bring_together(brought(shares, key.id[:16])).text.reveal() == text


@pytest.mark.parametrize("text", ["x" * 32, "A" * 64, "x" * 1000, "é"])
def test_a_passphrase_is_never_taken_for_a_random_key(text: str) -> None:
    key = Key.from_text(text)
    assert bring_together(brought(split(key, needed=2, count=2), key.id[:16])).text.reveal() == text


@given(st.integers(0, len(WORDS) - 1), st.sampled_from(WORDLIST))
@settings(max_examples=60, deadline=None)
def test_any_one_wrong_word_is_named_by_its_place_and_by_nothing_else(at: int, word: str) -> None:
    if word == WORDS[at]:
        return
    with pytest.raises(MistypedError) as raised:
        read_share([*WORDS[:at], word, *WORDS[at + 1 :]], what="the second paper")
    assert "the second paper is mistyped" in raised.value.message
    assert f"word {at + 1} is another one" in raised.value.message
    assert raised.value.word == at + 1
    assert re.fullmatch(
        r"the second paper is mistyped \(33 words\): word \d+ is another one, says its checksum", str(raised.value)
    ), "the words are secret, the wrong one too"


@given(st.integers(0, len(WORDS) - 1), st.integers(0, 1023))
@settings(max_examples=30, deadline=None)
def test_a_word_too_few_or_too_many_and_two_exchanged_are_found_where_they_are(at: int, other: int) -> None:
    indices = [WORDLIST.index(one) for one in WORDS]
    missing = where_it_is_wrong([*indices[:at], *indices[at + 1 :]])
    assert missing is not None
    assert "is missing" in missing
    further = where_it_is_wrong([*indices[:at], other, *indices[at:]])
    assert further is not None
    assert "one too many" in further
    if at and indices[at - 1] != indices[at]:
        indices[at - 1 : at + 1] = reversed(indices[at - 1 : at + 1])
        assert where_it_is_wrong(indices) == f"words {at} and {at + 1} have changed places"


def test_several_wrong_words_are_noticed_and_no_place_is_made_up() -> None:
    chance = random.Random(5)
    for _ in range(10):
        words = list(WORDS)
        for at in chance.sample(range(len(words)), 3):
            words[at] = chance.choice([one for one in WORDLIST if one != words[at]])
        with pytest.raises(MistypedError, match="by more than one word"):
            read_share(words)


def test_four_letters_of_a_word_are_enough_and_fewer_or_others_are_not() -> None:
    assert read_share([f" {one[:4].upper()}" for one in WORDS]) == SHARES[1]
    assert whole_word("acad") == whole_word("academic") == "academic"
    assert whole_word("aca") is whole_word("academy") is whole_word("") is None
    with pytest.raises(MistypedError, match="no word of the list is word 3") as raised:
        read_share([*WORDS[:2], "academy", *WORDS[3:]])
    assert "academy" not in raised.value.message
    with pytest.raises(MistypedError, match="has 12 words"):
        read_share(WORDS[:12])


def test_shares_of_another_key_another_set_and_two_that_differ_are_refused_by_name() -> None:
    stranger = Given(name="ben.txt", share=split(OTHER, needed=2, count=3)[0], key=OTHER.id[:16])
    ours = brought(SHARES)
    with pytest.raises(WrongKeyError) as raised:
        bring_together([ours[0], stranger])
    assert raised.value.message == f"ben.txt is of key {OTHER.id[:16]}, and paper 1 is of key {KEY.id[:16]}"
    again = brought(split(KEY, needed=2, count=3))[1]
    with pytest.raises(WrongKeyError, match=f"paper 2 is of the set {again.share.set}, and paper 1 of the set"):
        bring_together([ours[0], again])
    twin = Given(name="twin", share=Share(number=1, needed=2, set=OF.set, words=SHARES[1].words), key=None)
    with pytest.raises(WrongKeyError, match=r"paper 1 and twin both are share 1 .* and differ"):
        bring_together([ours[0], twin])
    with pytest.raises(WrongKeyError, match=f"give key {KEY.id[:16]}, and not {OTHER.id[:16]}"):
        bring_together(brought(SHARES, None), wanted=OTHER.id)
    with pytest.raises(UsageError, match="do not say which key"):
        bring_together(brought(SHARES, None))


def test_the_same_share_twice_counts_once() -> None:
    one, two, _ = brought(SHARES)
    with pytest.raises(WrongKeyError, match="2 different shares are needed, and there is share 1"):
        bring_together([one, one])
    assert bring_together([one, one, two]).text == KEY.text


def test_a_share_that_fits_its_checksum_and_not_the_others_is_found_by_the_digest() -> None:
    """Another secret under the same name: what chance, or somebody who means harm, would have to make."""
    from dataclasses import replace

    from shamir_mnemonic import Share as Slip39

    ours = Slip39.from_mnemonic(SHARES[0].words.reveal())
    theirs = Slip39.from_mnemonic(split(OTHER, needed=2, count=3)[1].words.reveal())
    forged = read_share(replace(theirs, identifier=ours.identifier).words())
    with pytest.raises(WrongKeyError, match="paper 1, paper 2 do not fit together: the digest of the key is wrong"):
        bring_together(brought((SHARES[0], forged)))
    with pytest.raises(WrongKeyError, match="do not fit together"):
        bring_together(brought((SHARES[0], SHARES[2], forged)))


def test_any_program_of_the_standard_gives_the_key_and_what_it_made_otherwise_is_not_taken() -> None:
    assert combine_mnemonics([one.words.reveal() for one in SHARES[:2]]).hex() == KEY.text.reveal()
    grouped = generate_mnemonics(2, [(2, 3), (2, 3)], b"s" * 32, iteration_exponent=0)[0][0]
    with pytest.raises(WrongKeyError, match="another program made"):
        read_share(grouped.split())


@pytest.mark.parametrize(("needed", "count"), [(1, 1), (1, 3), (3, 2), (2, 17), (0, 0), (-1, 3)])
def test_numbers_that_make_no_sense_are_refused(needed: int, count: int) -> None:
    with pytest.raises(UsageError, match="cannot be made") as raised:
        split(KEY, needed=needed, count=count)
    assert raised.value.hint


def test_the_text_for_a_holder_comes_back_also_typed_from_paper_with_other_spaces_and_line_ends() -> None:
    for share in SHARES:
        text = share_text(OF, share)
        assert all(len(line) <= 80 for line in text.splitlines()), "it is printed"
        for form in (text, text.replace("\n", "\r\n"), text.replace("  ", "   "), text.upper().replace(" OF ", " of ")):
            read = read_text(form, "the paper")
            assert read.given is not None
            assert (read.given.share, read.given.key) == (share, KEY.id[:16])
    assert "holder: safe: in the office" in share_text(OF, SHARES[2])


def test_the_note_names_the_holders_and_holds_no_word_of_a_share() -> None:
    note = note_text(OF)
    read = read_text(note, "the note")
    assert (read.of, read.given) == (OF, None)
    assert not any(" ".join(one.words.reveal().split()[3:5]) in note for one in SHARES)


def test_neither_a_share_nor_what_was_given_shows_its_words_in_a_message() -> None:
    assert not any(" ".join(one.words.reveal().split()[3:5]) in repr(SHARES) + repr(brought(SHARES)) for one in SHARES)


def test_a_text_whose_words_and_lines_are_not_of_one_share_is_refused() -> None:
    wrong = share_text(OF, SHARES[0]).replace("share: 1 of 3", "share: 2 of 3")
    with pytest.raises(WrongKeyError, match="its lines say something else"):
        read_text(wrong, "ana.txt")
    with pytest.raises(WrongKeyError, match=r"ana.txt: word 7 is not where it should be"):
        read_text(share_text(OF, SHARES[0]).replace("   7 ", "   8 "), "ana.txt")
    for nothing in ("", "key: x\n", "share: 1 of 3", "\0" * 100, "a poem"):
        with pytest.raises(DamageError, match="is no share of a key") as raised:
            read_text(nothing, "odd.txt")
        assert raised.value.hint
