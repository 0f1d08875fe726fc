"""Every way a command can end: exit code, words, JSON; run as users run it, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from recoup.kernel.errors import Exit

PLAN = """\
recoup: 1
system: shop
services: {files: {engine: files, paths: [uploads]}}
repositories: {local: {path: backups}}
key: {file: recoup.key}
"""


def recoup(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RECOUP_")}
    return subprocess.run(
        [sys.executable, "-m", "recoup.cli", *arguments],
        cwd=folder,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def with_command(body: str, *arguments: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    """Start the real ``main`` with one more command, ``act``, whose body is given."""
    program = f"""
import sys
import recoup.cli.app as app
from recoup.cli.options import add_command
from recoup.kernel.errors import *

class Added:
    @staticmethod
    def register(typer_app):
        def act(as_json: JsonOption = False) -> Exit:
            "Act."
{textwrap.indent(textwrap.dedent(body), " " * 12)}
        add_command(typer_app, "act", act, examples=("recoup act",))

from recoup.cli.options import JsonOption
app.COMMANDS["act"] = "added"
sys.modules["added"] = Added
from recoup.cli.main import main
sys.exit(main(["act", *sys.argv[1:]]))
"""
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def act(body: str, *arguments: str, folder: Path, **environment: str) -> tuple[int, str, str]:
    process = with_command(body, *arguments, folder=folder, **environment)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        ("RecoupError", 1),
        ("UsageError", 2),
        ("PlanError", 2),
        ("DamageError", 3),
        ("UncheckedError", 4),
        ("RefusedError", 5),
        ("BusyError", 6),
        ("NoRepositoryError", 10),
        ("WrongKeyError", 12),
        ("InterruptedRunError", 130),
    ],
)
def test_an_error_of_the_family_gives_its_exit_code_a_message_and_a_hint(
    tmp_path: Path, raised: str, code: int
) -> None:
    result = act(f"raise {raised}('the disk is gone', hint='Mount it.')", folder=tmp_path)
    assert result == (code, "", "recoup: the disk is gone\nhint: Mount it.\n")


def test_with_json_an_error_is_one_document_on_stdout(tmp_path: Path) -> None:
    code, out, err = act("raise BusyError('someone is at it', hint='Wait.')", "--json", folder=tmp_path)
    assert code == Exit.BUSY
    assert json.loads(out) == {
        "schema": "recoup.error/1",
        "error": {
            "kind": "BusyError",
            "message": "someone is at it",
            "hint": "Wait.",
            "exit_code": 6,
            "may_retry": False,
        },
    }
    assert "recoup: someone is at it" in err


def test_a_bug_is_called_a_bug_without_traceback_and_without_the_text_of_the_exception(tmp_path: Path) -> None:
    code, out, err = act("raise KeyError('hunter2')", folder=tmp_path)
    assert (code, out) == (Exit.FAILED, "")
    assert err.startswith("recoup: this is a bug in Recoup: KeyError in ")
    assert "hunter2" not in err
    assert "Traceback" not in err


def test_the_traceback_of_a_bug_is_shown_when_asked_for(tmp_path: Path) -> None:
    code, _, err = act("raise KeyError('x')", folder=tmp_path, RECOUP_DEBUG="1")
    assert code == Exit.FAILED
    assert "Traceback (most recent call last)" in err


def test_a_broken_pipe_that_is_not_ours_is_a_bug_and_not_silence(tmp_path: Path) -> None:
    code, _, err = act("raise BrokenPipeError(32, 'x')", folder=tmp_path)
    assert code == Exit.FAILED
    assert "this is a bug in Recoup: BrokenPipeError" in err


def test_a_command_ends_with_the_code_it_returns(tmp_path: Path) -> None:
    assert act("return Exit.BAD", folder=tmp_path) == (3, "", "")
    assert act("sys.exit(4)", folder=tmp_path) == (4, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unwinds_says_so_and_ends_with_130(tmp_path: Path, number: signal.Signals) -> None:
    body = """
    import time
    from pathlib import Path
    try:
        Path("begun").touch()
        time.sleep(280)
    finally:
        Path("cleaned").touch()
    """
    process = with_command(body, folder=tmp_path)
    deadline = time.monotonic() + 120
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline, "the command never began"
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == Exit.INTERRUPTED
    assert err == "recoup: interrupted\nhint: The same command resumes.\n"
    assert (tmp_path / "cleaned").exists()


def test_a_reader_that_leaves_early_ends_the_output_quietly(tmp_path: Path) -> None:
    body = """
    from recoup.cli.output import Output
    for number in range(100_000):
        Output().line(f"line {number}")
    """
    process = with_command(body, folder=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "line 0\n"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.wait(120)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["--help"], ["plan", "schema"], ["--version"]])
def test_output_that_cannot_be_written_is_a_failure_and_not_a_bug(tmp_path: Path, arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "recoup.cli", *arguments],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert result.returncode == Exit.FAILED
    assert result.stderr == "recoup: cannot write the output: No space left on device\n"


@pytest.mark.parametrize(
    "arguments", [["no-such"], ["plan", "chek"], ["plan", "check", "--no-such"], ["plan", "check", "extra"]]
)
def test_wrong_usage_ends_with_2_and_points_to_the_help(tmp_path: Path, arguments: list[str]) -> None:
    result = recoup(*arguments, folder=tmp_path)
    assert result.returncode == Exit.USAGE
    assert result.stdout == ""
    assert result.stderr.startswith("recoup: ")
    assert "hint: See `recoup" in result.stderr


def test_a_misspelt_command_is_answered_with_the_right_one(tmp_path: Path) -> None:
    result = recoup("plan", "chek", "--json", folder=tmp_path)
    assert result.returncode == Exit.USAGE
    assert "check" in json.loads(result.stdout)["error"]["message"]


@pytest.mark.parametrize("arguments", [[], ["plan"], ["key"]])
def test_a_command_that_is_missing_shows_what_there_is(tmp_path: Path, arguments: list[str]) -> None:
    result = recoup(*arguments, folder=tmp_path)
    assert result.returncode == Exit.USAGE
    assert result.stderr.startswith("Usage: recoup")


def test_the_version_is_printed(tmp_path: Path) -> None:
    result = recoup("--version", folder=tmp_path)
    assert result.returncode == Exit.OK
    assert result.stdout.startswith("recoup 0.")


def test_plan_faults_begin_their_lines_with_file_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "recoup.yaml").write_text(PLAN + "retention: {daily: 0}\nfoo: 1\n")
    result = recoup("plan", "check", folder=tmp_path)
    assert result.returncode == Exit.USAGE
    assert result.stderr.splitlines()[0] == "recoup.yaml:6:20: retention.daily: must be 1 or more, not 0"
    assert result.stderr.splitlines()[1].startswith("recoup.yaml:7:1: foo: unknown key")
    assert result.stderr.splitlines()[2].startswith("hint: Correct these 2 places")


def test_plan_faults_in_json_have_their_places_as_numbers(tmp_path: Path) -> None:
    (tmp_path / "recoup.yaml").write_text(PLAN + "retention: {daily: 0}\n")
    result = recoup("plan", "check", "--json", folder=tmp_path)
    error = json.loads(result.stdout)["error"]
    assert error["faults"] == [{"line": 6, "column": 20, "path": "retention.daily", "what": "must be 1 or more, not 0"}]


def test_the_plan_is_checked_and_shown(tmp_path: Path) -> None:
    (tmp_path / "recoup.yaml").write_text(PLAN)
    below = tmp_path / "below"
    below.mkdir()
    assert "is a plan of shop" in recoup("plan", "check", folder=below).stdout
    assert "after_backup: intact" in recoup("plan", "show", folder=tmp_path).stdout
    shown = json.loads(recoup("plan", "show", "--json", folder=tmp_path).stdout)
    assert shown["schema"] == "recoup.plan/1"
    assert shown["plan"]["system"] == "shop"


def test_the_schema_is_printed_and_written(tmp_path: Path) -> None:
    printed = recoup("plan", "schema", folder=tmp_path).stdout
    assert json.loads(printed)["title"] == "recoup.yaml"
    assert recoup("plan", "schema", "-o", "s.json", folder=tmp_path).returncode == Exit.OK
    assert (tmp_path / "s.json").read_text() == printed
    refused = recoup("plan", "schema", "-o", "none/s.json", folder=tmp_path)
    assert refused.returncode == Exit.FAILED
    assert "cannot write none/s.json: No such file or directory" in refused.stderr


def test_help_does_not_import_what_only_commands_need(tmp_path: Path) -> None:
    program = (
        "import sys; from recoup.cli.main import main; main(['--help']);"
        "heavy = {'pydantic', 'ruamel', 'boto3', 'psycopg', 'redis', 'rich', 'cryptography'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "Usage: recoup" in result.stdout


def test_completion_can_be_shown_for_a_shell(tmp_path: Path) -> None:
    result = recoup(folder=tmp_path, _RECOUP_COMPLETE="complete_bash", COMP_WORDS="recoup pl", COMP_CWORD="1")
    assert "plan" in result.stdout.split()
