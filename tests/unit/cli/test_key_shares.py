"""``recoup key split`` and ``combine``, as people use them: files, words from a pipe, words at a terminal."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from shamir_mnemonic.wordlist import WORDLIST

from recoup.kernel.errors import Exit
from recoup.repository.seal import Key
from tests.unit.cli.test_main import recoup

KEY = "00c0ffee" * 8
ID = Key.from_text(KEY).id[:16]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "held.key").write_text(KEY + "\n")
    done = recoup("key", "split", "--key-file", "held.key", "-o", "shares", folder=tmp_path)
    assert done.returncode == Exit.OK, done.stderr
    assert f"any 2 of them give key {ID}" in done.stdout
    return tmp_path


def share(number: int) -> str:
    return f"shares/recoup-key-{ID}-share-{number}-of-3.txt"


def words(folder: Path, number: int) -> list[str]:
    table = re.findall(r"^ +\d+ [a-z].*$", (folder / share(number)).read_text(), re.MULTILINE)
    return [word for line in table for word in re.findall(r"[a-z]+", line)]


def typed(*arguments: str, folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "recoup.cli", "key", "combine", *arguments]
    return subprocess.run(argv, cwd=folder, input=text, capture_output=True, text=True, timeout=120)


def test_two_files_of_three_give_the_very_key_file_and_only_its_owner_can_read_any_of_them(folder: Path) -> None:
    for number in (1, 2, 3):
        assert stat.S_IMODE((folder / share(number)).stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "shares").stat().st_mode) == 0o700
    done = recoup("key", "combine", share(3), share(1), "-o", "again.key", folder=folder)
    assert done.returncode == Exit.OK, done.stderr
    assert (folder / "again.key").read_bytes() == (folder / "held.key").read_bytes()
    assert stat.S_IMODE((folder / "again.key").stat().st_mode) == 0o600
    assert KEY not in done.stdout + done.stderr


def test_words_from_a_pipe_give_the_key_however_they_are_set_out(folder: Path) -> None:
    one, two = words(folder, 1), words(folder, 2)
    assert len(one) == 33
    forms = {
        "bare": "\n".join([" ".join(one), " ".join(two)]),
        "numbered": "\n".join(f"{number}. {word}" for given in (two, one) for number, word in enumerate(given, 1)),
        "spaced": "\n\n" + "\n".join(one) + "\n\n" + "\n".join(word[:4] for word in two) + "\n\n",
    }
    for name, text in forms.items():
        done = typed("--key-id", ID, "-o", f"{name}.key", folder=folder, text=text)
        assert done.returncode == Exit.OK, (name, done.stderr)
        assert (folder / f"{name}.key").read_text() == KEY + "\n"
        assert not [line for line in (done.stdout + done.stderr).splitlines() if " ".join(one[3:5]) in line]


def test_a_wrong_word_an_end_too_early_and_a_key_that_nobody_named_write_nothing(folder: Path) -> None:
    one, two = words(folder, 1), words(folder, 2)
    wrong = [*one[:16], next(word for word in WORDLIST if word != one[16]), *one[17:]]
    done = typed("--key-id", ID, folder=folder, text="\n".join([" ".join(two), " ".join(wrong)]))
    assert done.returncode == Exit.WRONG_KEY
    assert "the share typed as number 2 is mistyped (33 words): word 17 is another one" in done.stderr
    done = typed("--key-id", ID, folder=folder, text=" ".join(one))
    assert done.returncode == Exit.WRONG_KEY
    assert "the share typed as number 2 is missing" in done.stderr
    done = typed("--key-id", ID, folder=folder, text=" ".join(one[:20]) + "\n\n" + " ".join(two))
    assert done.returncode == Exit.WRONG_KEY
    assert "number 1 is mistyped (20 words)" in done.stderr
    done = typed(folder=folder, text="\n".join([" ".join(one), " ".join(two)]))
    assert done.returncode == Exit.USAGE
    assert "--key-id" in done.stderr
    done = typed("--key-id", "0" * 16, folder=folder, text="\n".join([" ".join(one), " ".join(two)]))
    assert done.returncode == Exit.WRONG_KEY
    assert f"give key {ID}, and not 0000000000000000" in done.stderr
    assert not (folder / "recoup.key").exists()


def test_a_mistyped_file_is_named_and_so_is_one_of_another_key_and_the_note(folder: Path) -> None:
    (folder / "other.key").write_text("0badc0de" * 8 + "\n")
    other = json.loads(recoup("key", "split", "--key-file", "other.key", "-o", "b", "--json", folder=folder).stdout)
    done = recoup("key", "combine", share(1), other["files"][1], folder=folder)
    assert done.returncode == Exit.WRONG_KEY
    assert f"{other['files'][1]} is of key {other['id'][:16]}, and {share(1)} is of key {ID}" in done.stderr
    done = recoup("key", "combine", share(1), f"shares/recoup-key-{ID}-shares.txt", folder=folder)
    assert done.returncode == Exit.WRONG_KEY
    assert "no words in" in done.stderr
    done = recoup("key", "combine", share(1), "absent", folder=folder)
    assert (done.returncode, "cannot read the share absent" in done.stderr) == (Exit.WRONG_KEY, True)
    text, word = (folder / share(2)).read_text(), words(folder, 2)[8]
    (folder / share(2)).write_text(re.sub(rf"(\b9 ){word}", rf"\1{'acid' if word != 'acid' else 'acne'}", text))
    done = recoup("key", "combine", share(1), share(2), folder=folder)
    assert done.returncode == Exit.WRONG_KEY
    assert f"{share(2)} is mistyped (33 words): word 9 is another one" in done.stderr
    assert not (folder / "recoup.key").exists()


def test_a_file_that_is_there_is_kept_and_known_when_it_is_that_key(folder: Path) -> None:
    (folder / "recoup.key").write_text("another\n")
    done = typed("--key-id", ID, folder=folder, text="")  # before anybody types
    assert done.returncode == Exit.REFUSED
    assert "exists already" in done.stderr
    assert (folder / "recoup.key").read_text() == "another\n"
    done = recoup("key", "combine", share(1), share(2), "-o", "held.key", folder=folder)
    assert done.returncode == Exit.OK
    assert "is there already" in done.stdout


def test_a_rehearsal_says_whose_key_it_is_and_writes_nothing(folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    done = recoup("key", "combine", share(2), share(3), "--check", "--json", folder=folder)
    assert done.returncode == Exit.OK
    document = json.loads(done.stdout)
    assert (document["id"][:16], document["shares"], document["written"]) == (ID, [2, 3], False)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_second_split_overwrites_nothing_and_leaves_nothing_of_itself(folder: Path) -> None:
    before = {path.name: path.read_text() for path in (folder / "shares").iterdir()}
    done = recoup("key", "split", "--key-file", "held.key", "-o", "shares", folder=folder)
    assert done.returncode == Exit.REFUSED
    assert "two splits do not fit together" in done.stderr
    (folder / "shares" / f"recoup-key-{ID}-share-1-of-3.txt").unlink()
    assert recoup("key", "split", "--key-file", "held.key", "-o", "shares", folder=folder).returncode == Exit.REFUSED
    del before[f"recoup-key-{ID}-share-1-of-3.txt"]
    assert {path.name: path.read_text() for path in (folder / "shares").iterdir()} == before


def test_holders_are_named_on_their_own_share_and_on_the_note_only(folder: Path) -> None:
    asked = ["key", "split", "--key-file", "held.key", "--holder", "Ana", "--holder", "Ben", "--shares", "2"]
    done = recoup(*asked, "-o", "named", folder=folder)
    assert done.returncode == Exit.OK, done.stderr
    assert "the loss of one share is the loss of the key" in done.stderr
    ana, ben, note = sorted((folder / "named").iterdir())
    assert ("holder: Ana" in ana.read_text(), "Ben" in ana.read_text()) == (True, False)
    assert "share 2: Ben" in note.read_text()
    assert "holder: Ben" in ben.read_text()
    for wrong in (["--holder", "Cem"], ["--need", "9"]):
        done = recoup(*asked, *wrong, "-o", "wrong", folder=folder)
        assert done.returncode == Exit.USAGE
        assert "hint:" in done.stderr
    assert not (folder / "wrong").exists()


def test_at_a_terminal_what_is_wrong_is_asked_again_and_the_screen_is_wiped_after_each_share(folder: Path) -> None:
    one, two = words(folder, 1), words(folder, 2)
    wrong = [*one[:16], next(word for word in WORDLIST if word != one[16]), *one[17:]]
    lines = [
        "nonsense", *(" ".join(wrong[at : at + 5]) for at in range(0, 33, 5)), one[16],
        " ".join(one),  # the same again, instead of another one
        *(" ".join(two[at : at + 5]) for at in range(0, 33, 5)),
    ]  # fmt: skip
    # At least one terminal of its own; the answers wait in it until they are read.
    main, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "recoup.cli", "key", "combine", "--key-id", ID],
        cwd=folder, stdin=terminal, stdout=subprocess.PIPE, stderr=terminal, text=True,
    )  # fmt: skip
    os.close(terminal)
    os.write(main, ("\n".join(lines) + "\n").encode())
    shown = b""
    try:
        while more := os.read(main, 65536):
            shown += more
    except OSError:
        pass  # the terminal is closed: the process has ended
    out, _ = process.communicate(timeout=120)
    os.close(main)
    said = shown.decode()
    assert process.returncode == Exit.OK, said
    assert (folder / "recoup.key").read_text() == KEY + "\n"
    assert f"recoup.key: key {ID} from shares 1, 2" in out
    assert "no word of the list is word 1; type this line again" in said
    assert "word 17 is another one" in said
    assert "share 1 again; another one is needed" in said
    assert said.count("\x1b[2J\x1b[3J\x1b[H") == 3
