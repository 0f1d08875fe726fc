"""What is covered in a sandbox, and what is put back so that programs run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recoup.engines.sandbox_walls import Walls, covered, kept_programs
from recoup.kernel.process import Command


def test_the_folder_of_a_socket_is_covered_and_what_programs_need_is_not(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert covered([str(tmp_path), str(tmp_path / "link"), "/", "/usr/lib", "/etc", "/lib64"]) == [str(tmp_path)]


def test_a_socket_beside_what_programs_need_is_covered_alone() -> None:
    assert covered(["/etc/passwd", "/usr"]) == ["/etc/passwd"]


def test_a_program_in_a_covered_folder_is_kept_with_all_that_lies_around_it(tmp_path: Path) -> None:
    program = tmp_path / "unpacked" / "postgres" / "bin" / "postgres"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    (tmp_path / "text").touch(mode=0o644)
    argv = [str(program), str(tmp_path / "text"), "--option", "/no/such/program", "/usr/bin/env"]
    assert kept_programs(argv, [str(tmp_path), "/run"]) == [str(tmp_path / "unpacked")]


@pytest.mark.parametrize("unshare", [(), ("--net",), ("--user", "--map-root-user", "--net", "--mount")])
def test_a_secret_of_ours_is_neither_passed_on_nor_named(unshare: tuple[str, ...], tmp_path: Path) -> None:
    command = Command(argv=["program", "argument"], environment={"GIVEN": "planted"}, user=(1, 2))
    made = Walls(unshare=unshare).around(command, tmp_path / "sandbox")
    assert made.argv[-2:] == ["program", "argument"]
    assert "planted" not in str(made)
    assert made.user is None, "the small program inside changes the user, when it needs no rights any more"
    order = json.loads(made.argv[-3])
    assert "GIVEN" in order["variables"]
    assert "HOME" not in order["variables"]
    assert (order["hide"] is None) is ("--mount" not in unshare)
