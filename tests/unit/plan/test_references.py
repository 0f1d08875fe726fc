"""References: kept as text, looked up late, never shown."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.kernel.errors import Exit, UsageError, WrongKeyError
from recoup.plan.dotenv import parse_env
from recoup.plan.load import load
from recoup.plan.model import Key
from recoup.plan.resolver import Resolver
from recoup.plan.template import Template, redact, take_password, url_password


def resolver(folder: Path, *env_files: str, **environment: str) -> Resolver:
    return Resolver(folder=folder, env_files=[Template(name) for name in env_files], environment=environment)


def key(**source: object) -> Key:
    return Key.model_validate(source)


def test_the_environment_wins_over_env_files_and_later_files_over_earlier_ones(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("A=a\nB=a\nC=a\n")
    (tmp_path / "b.env").write_text("B=b\nC=b\n")
    found = resolver(tmp_path, "a.env", "b.env", C="environment")
    assert [found.text(Template(f"${{{name}}}")) for name in "ABC"] == ["a", "b", "environment"]


def test_a_default_is_used_when_the_variable_is_missing_or_empty(tmp_path: Path) -> None:
    found = resolver(tmp_path, EMPTY="")
    assert found.text(Template("${NONE:-x}/${EMPTY:-y}/${EMPTY-z}/$$HOME/$HOME")) == "x/y//$HOME/$HOME"


def test_a_variable_without_value_is_named_with_where_to_set_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\n")
    with pytest.raises(UsageError, match="the variable NONE has no value") as caught:
        resolver(tmp_path, ".env").resolve(Template("redis://:${NONE}@h"))
    assert caught.value.hint == "Set it in the environment or in .env."


def test_a_password_in_a_url_is_encoded_so_that_any_character_may_be_in_it(tmp_path: Path) -> None:
    found = resolver(tmp_path, P="p@ss/w:rd#?", H="host")
    assert found.text(Template("redis://:${P}@${H}:6379/0")) == "redis://:p%40ss%2Fw%3Ard%23%3F@host:6379/0"
    assert found.text(Template("${P}")) == "p@ss/w:rd#?"


def test_an_env_file_that_is_missing_or_wrong_is_a_usage_error_without_its_values(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the env file .*none"):
        resolver(tmp_path, "none").resolve(Template("${A}"))
    (tmp_path / "bad").write_text("A=1\nsecret words\n")
    with pytest.raises(UsageError, match="line 2: not of the form NAME=value") as caught:
        resolver(tmp_path, "bad").resolve(Template("${A}"))
    assert "secret" not in caught.value.message
    (tmp_path / "bytes").write_bytes(b"A=\xff\n")
    with pytest.raises(UsageError, match="is not UTF-8"):
        resolver(tmp_path, "bytes").resolve(Template("${A}"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1", {"A": "1"}),
        ("export A=1\nB: 2\n", {"A": "1", "B": "2"}),
        ("# comment\n\n  A = 1  # remark\n", {"A": "1"}),
        ("A=a#b\n", {"A": "a#b"}),
        ("A=\nB=''\n", {"A": "", "B": ""}),
        ("A='$B ${C} \\n # x' # remark\n", {"A": "$B ${C} \\n # x"}),
        ('A="a\\n\\"b\\" \\$c # d"\n', {"A": 'a\n"b" $c # d'}),
        ("B=x\nA=${B}-$B-${NONE:-d}-${OUT}\n", {"B": "x", "A": "x-x-d-outside"}),
        ('A="two\nlines"\nB=1\n', {"A": "two\nlines", "B": "1"}),
        ("OUT\nMISSING\n", {"OUT": "outside"}),
        ("A=pa$$word\n", {"A": "pa$word"}),
        ("A=postgres://u:p@h/d?x=1\r\nB=2\r\n", {"A": "postgres://u:p@h/d?x=1", "B": "2"}),
    ],
)
def test_env_files_are_read_as_compose_reads_them(text: str, expected: dict[str, str]) -> None:
    assert parse_env(text, {"OUT": "outside"}) == expected


@pytest.mark.parametrize("text", ["A='open\n", 'A="open\n', "A='x' y\n", "=x\n", "1A=x\n", "A=${\n"])
def test_a_wrong_line_of_an_env_file_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"^line 1: "):
        parse_env(text, {})


@given(st.text(st.sampled_from("AB=:'\"\\#$ {}\n-"), max_size=30))
def test_any_env_file_gives_values_or_a_value_error(text: str) -> None:
    try:
        assert all(isinstance(value, str) for value in parse_env(text, {}).values())
    except ValueError as error:
        assert str(error).startswith("line ")  # noqa: PT017 - both endings are right, and this one has a form


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u:s3:c@r@h/x", "postgresql://u:***@h/x"),
        ("postgresql://u:${P}@h/x", "postgresql://u:${P}@h/x"),
        ("postgresql://u:${P:-s3}@h/x", "postgresql://u:***@h/x"),
        ("postgresql://u@h/x?password=s3&a=b", "postgresql://u@h/x?password=***&a=b"),
        ("http://h:80/x@y", "http://h:80/x@y"),
    ],
)
def test_a_password_in_a_url_is_never_shown(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert str(Template(text)) == shown
    assert "s3" not in repr(Template(text))


def test_a_password_is_taken_out_of_a_url() -> None:
    assert take_password("redis://:s3@h", "${R}") == ("redis://:${R}@h", "s3")
    assert take_password("redis://:${X}@h", "${R}") == ("redis://:${X}@h", None)
    assert url_password("redis://h") is None


@given(st.text(max_size=30))
def test_any_text_is_a_template_or_a_value_error(text: str) -> None:
    try:
        template = Template.parse(text)
    except ValueError:
        return
    template.expand(lambda _name: "value")
    template.expand_url(lambda _name: "value")


def test_the_key_comes_from_each_of_its_four_sources(tmp_path: Path) -> None:
    (tmp_path / "recoup.key").write_text("abc\nsecond line\n")
    found = resolver(tmp_path, K="from the environment", CREDENTIALS_DIRECTORY=str(tmp_path))
    assert found.key(key(file="recoup.key")).reveal() == "abc"
    assert found.key(key(env="K")).reveal() == "from the environment"
    assert found.key(key(credential="recoup.key")).reveal() == "abc"
    program = f"{sys.executable} -c \"print('from a command')\""
    assert found.key(key(command=program)).reveal() == "from a command"
    assert found.key(key(command=[sys.executable, "-c", "print('a b')"])).reveal() == "a b"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"env": "NONE"}, r"the variable NONE \(the plan's key\) has no value"),
        ({"file": "none.key"}, r"cannot read the key file .*none\.key: No such file"),
        ({"file": "empty.key"}, "holds no key"),
        ({"file": "binary.key"}, "is not text"),
        ({"file": "windows.key"}, "ends its line the Windows way"),
        ({"file": "long.key"}, "is not a key"),
        ({"credential": "x"}, "CREDENTIALS_DIRECTORY is not set"),
        ({"command": "false"}, "the key's command false ended with status 1"),
        ({"command": "no-such-program-here"}, "program not found"),
        ({"command": "true"}, "holds no key"),
    ],
)
def test_a_key_that_cannot_be_had_ends_with_12_and_a_hint(tmp_path: Path, source: dict[str, str], said: str) -> None:
    (tmp_path / "empty.key").write_text("\n")
    (tmp_path / "binary.key").write_bytes(b"\xff\xfe\n")
    (tmp_path / "windows.key").write_bytes(b"abc\r\n")
    (tmp_path / "long.key").write_text("x" * 2000)
    with pytest.raises(WrongKeyError, match=said) as caught:
        Resolver(folder=tmp_path, environment={"PATH": "/usr/bin:/bin"}).key(key(**source))
    assert caught.value.exit_code == Exit.WRONG_KEY
    assert caught.value.hint


def test_what_a_failing_key_command_wrote_is_not_repeated(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "import sys; print('topsecret'); sys.exit(3)"]
    with pytest.raises(WrongKeyError, match="ended with status 3") as caught:
        resolver(tmp_path).key(key(command=program))
    assert "topsecret" not in caught.value.message


def test_paths_are_taken_from_the_plans_folder(tmp_path: Path) -> None:
    found = resolver(tmp_path, D="sub")
    assert found.path(Template("${D}/x")) == tmp_path / "sub" / "x"
    assert found.path(Template("/abs")) == Path("/abs")
    assert found.path(Template("~/x")) == Path.home() / "x"


def test_a_loaded_plan_looks_up_its_references_in_the_env_files_of_its_compose_section(tmp_path: Path) -> None:
    (tmp_path / ".env.production").write_text("BACKUP_ENCRYPTION_KEY=k\n")
    (tmp_path / "recoup.yaml").write_text(Path(__file__).with_name("example.yaml").read_text())
    loaded = load(tmp_path / "recoup.yaml")
    assert loaded.resolver({}).key(loaded.plan.key).reveal() == "k"
