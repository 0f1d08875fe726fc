"""SQL text is read as psql reads it: no command gets through, and nothing else is touched."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.engines.postgres.sql_text import SqlFilter
from recoup.kernel.errors import DamageError, RefusedError

ORDINARY = rb"""--
-- PostgreSQL database dump
--

SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
/* a comment with ' and \! and /* a nested one */ ; */
CREATE FUNCTION public.f() RETURNS text LANGUAGE plpgsql AS $_$
BEGIN -- it's \! in here
  RETURN 'COPY x FROM stdin;' || $1 || E'\\' || $$ \connect y $$;
END $_$;
CREATE TABLE public."a;b ""\c" (a text DEFAULT 'it''s \', b text DEFAULT E'it\'s \\', c text DEFAULT e'\\\'');
COMMENT ON TABLE public.x IS 'two
lines; \! and "';
INSERT INTO t VALUES ('DROP DATABASE y;', $tag$ \d '$tag$, a$b, 1.5::numeric(3,1), -1, '--', '/*');
CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO u VALUES (1); DELETE FROM v WHERE a = 'x;');
COPY public.t (a, "b c") FROM stdin;
1	\N
2	\\.
\.x	it's "odd" $$ -- /* \! rm
\.

COPY public.empty FROM stdin;
\.


SELECT E'a'
  'still \' escaped', 'next', 2;
ALTER TABLE ONLY public.t ADD CONSTRAINT t_pkey PRIMARY KEY (a);
"""


def run(text: bytes, *, cut: int = 1 << 20, **options: object) -> tuple[bytes, SqlFilter]:
    sql = SqlFilter(**options)  # type: ignore[arg-type]
    pieces = [text[start : start + cut] for start in range(0, len(text), cut)]
    return b"".join(sql.filtered(pieces)), sql


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 64, 255, 256, 257, 300, 1000, 1 << 20])
def test_an_ordinary_dump_passes_byte_for_byte_however_it_is_cut(cut: int) -> None:
    text = ORDINARY * 3
    passed, sql = run(text, cut=cut)
    assert passed == text + b"\n"
    assert [block.rows for block in sql.copied] == [3, 0] * 3
    assert sql.copied[0].statement.endswith('COPY public.t (a, "b c") FROM stdin;')
    assert sql.notes == []


@pytest.mark.parametrize(
    "command",
    [
        rb"\! touch /tmp/x",
        rb"\o |sh",
        rb"\copy t from program 'sh'",
        rb"\i /etc/passwd",
        rb"\g |sh",
        rb"\gexec",
        rb"\setenv PATH x",
        rb"\connect other",
        rb"\c other",
        rb"\unrestrict x; \! sh",
        rb"\;",
        rb"\restrict a b",
        rb"\\ \! sh",
    ],
)
@pytest.mark.parametrize("before", [b"", ORDINARY, b"SELECT 1 ", b"SELECT 'a' ", b"  ", b"SELECT $$ ' $$;", b"/* ' */"])
def test_a_command_is_refused_wherever_it_hides(command: bytes, before: bytes) -> None:
    for cut in (1, 5, 300, 1 << 20):
        with pytest.raises(RefusedError, match=r"line \d+") as refused:
            run(before + command + b"\nSELECT 2;\n" * 100, cut=cut)
        assert refused.value.hint


def test_the_line_of_a_command_is_named() -> None:
    with pytest.raises(RefusedError, match=f"line {ORDINARY.count(10) + 3}: "):
        run(ORDINARY + b"SELECT 1;\n\n\\! date\n", cut=100)


def test_locks_of_pg_dump_are_taken_out_and_lines_keep_their_numbers() -> None:
    text = b"\\restrict abcXYZ09\nSELECT 1;\n\\unrestrict abcXYZ09\nSELECT 2;\n"
    assert run(text)[0] == b"\nSELECT 1;\n\nSELECT 2;\n\n"


def test_statements_about_the_database_itself_are_left_out_and_noted() -> None:
    text = rb"""DROP DATABASE IF EXISTS shop;
--
-- Name: shop
--
CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8';

ALTER DATABASE shop OWNER TO "od""d";
\connect shop
ALTER DATABASE shop SET work_mem TO '8MB';
GRANT CONNECT, CREATE ON DATABASE shop TO x;
COMMENT ON DATABASE shop IS 'x';
ALTER ROLE x IN DATABASE shop SET a.b TO 'c';
CREATE TABLE database (grant_on_database int);
GRANT SELECT ON TABLE database TO x;
"""
    for cut in (1, 50, 1 << 20):
        passed, sql = run(text, cut=cut)
        assert passed.count(b"\n") == text.count(b"\n") + 1
        assert (
            passed.split()
            == b"CREATE TABLE database (grant_on_database int); GRANT SELECT ON TABLE database TO x;".split()
        )
        assert len(sql.notes) == 8
        assert all(note.startswith("line ") for note in sql.notes)


@pytest.mark.parametrize(
    "text",
    [
        b"CREATE DATABASE a;\n\\connect a\nCREATE DATABASE b;\n",
        b"CREATE DATABASE a;\n\\connect template1\n",
        b"\\connect a\n",
        b'CREATE DATABASE "a b";\n\\connect -reuse-previous=on "dbname=\'a c\'"\n',
    ],
)
def test_a_file_that_would_leave_its_database_is_refused(text: bytes) -> None:
    with pytest.raises(RefusedError):
        run(text)


def test_an_odd_database_name_is_recognised_in_connect() -> None:
    text = b'CREATE DATABASE "a \'b""" TEMPLATE template0;\n\\connect -reuse-previous=on "dbname=\'a \\\'b""\'"\n'
    text = text.replace(b'b""\'"', b'b"\'"')
    _, sql = run(text)
    assert len(sql.notes) == 2


def test_a_last_statement_without_its_semicolon_is_left_out_too() -> None:
    passed, sql = run(b"SELECT 1;\nDROP DATABASE production")
    assert b"DROP" not in passed
    assert sql.notes


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"SELECT 'abc", "quoted text"),
        (b"SELECT E'abc\\'", "quoted text with escapes"),
        (b'SELECT "abc', "quoted name"),
        (b"SELECT $x$ abc $y$", "dollar-quoted"),
        (b"SELECT 1; /* abc /* */", "comment"),
        (b"COPY t FROM stdin;\n1\t2\n", "rows of a COPY"),
        (b"COPY t FROM stdin;\n1\t2\n\\.x", "rows of a COPY"),
    ],
)
def test_text_that_ends_inside_something_is_damaged(text: bytes, what: str) -> None:
    with pytest.raises(DamageError, match=what):
        run(text)


@pytest.mark.parametrize(
    "text",
    [
        # With standard_conforming_strings off, the first quote ends later and the command is outside of it.
        b"SELECT '\\' ' \\! touch x\n-- '\n;",
        # In SJIS the byte 0x83 takes the backslash as its second half.
        b"SELECT E'\x83\\' ' || E' \\! touch x\n';",
    ],
)
def test_text_that_another_setting_would_end_elsewhere_is_refused_when_asked(text: bytes) -> None:
    for cut in (1, 9, 1 << 20):
        with pytest.raises(RefusedError):
            run(text + b" " * 600, cut=cut, refuse_ambiguous=True)


def test_a_name_longer_than_any_is_refused() -> None:
    for token in (b"$" + b"a" * 300 + b"$", b"a" * 300, b"$" + b"a" * 250 + b"$ ' $" + b"a" * 250 + b"$"):
        with pytest.raises((RefusedError, DamageError)):
            run(b"SELECT " + token + b" ' \\! sh ' " * 40, cut=64)


def test_a_row_longer_than_every_piece_needs_no_memory_for_itself() -> None:
    sql = SqlFilter()
    row = b"x" * 1000

    def pieces() -> list[bytes]:
        return [b"COPY t FROM stdin;\n", *[row] * 5000, b"\n", *[row] * 10, b"\n\\.\n", b"SELECT 1;\n"]

    largest = 0
    total = 0
    for piece in sql.filtered(pieces()):
        largest, total = max(largest, len(piece)), total + len(piece)
    assert total == sum(map(len, pieces())) + 1
    assert largest < 5000
    assert sql.copied[0].rows == 2


FRAGMENTS = st.sampled_from(
    [
        b"'",
        b"''",
        b'"',
        b"\\",
        b"$$",
        b"$a$",
        b"--",
        b"/*",
        b"*/",
        b"\n",
        b";",
        b"(",
        b")",
        b"E'",
        b"a",
        b" ",
        b"\\.\n",
        b"COPY t FROM stdin;\n",
        b"CREATE DATABASE x",
        b"\\connect x\n",
        b"\xff",
        b"e",
        b"1",
        b"$",
        b"\\restrict a\n",
    ]
)


@given(st.lists(FRAGMENTS, max_size=40).map(b"".join), st.integers(1, 20))
@settings(max_examples=300, deadline=None)
def test_the_answer_never_depends_on_how_the_text_is_cut(text: bytes, cut: int) -> None:
    padded = text + b"\n" * 400

    def answer(size: int) -> object:
        try:
            passed, sql = run(padded, cut=size)
        except (RefusedError, DamageError) as refused:
            return (type(refused), refused.message)
        return (passed, sql.notes, sql.copied)

    assert answer(cut) == answer(1 << 20)
