"""Reading a plan: the example keeps its meaning, and every wrong file is answered with places and words."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from recoup.kernel.errors import Exit, PlanError
from recoup.objectives.objective import Objective
from recoup.plan.load import PlanFaultsError, find, load, parse_plan
from recoup.plan.services import ComposeService, FilesService, PostgresService, RedisService
from recoup.plan.show import as_data, to_yaml

EXAMPLE = Path(__file__).with_name("example.yaml")

SMALLEST = """\
recoup: 1
system: shop
services:
  files: {engine: files, paths: [uploads]}
repositories:
  local: {path: backups}
key: {file: recoup.key}
"""


def faults(text: str) -> list[str]:
    with pytest.raises(PlanFaultsError) as caught:
        parse_plan(text)
    assert caught.value.exit_code == Exit.USAGE
    assert caught.value.hint
    return caught.value.message.split("\n")


def smallest_with(extra: str) -> str:
    return SMALLEST + textwrap.dedent(extra)


def test_the_example_loads_with_the_meaning_of_every_part() -> None:
    plan = load(EXAMPLE).plan
    assert plan.plan.next_review == date(2026, 12, 7)
    assert plan.plan.version == "1.0"
    assert list(plan.services) == ["postgres", "redis", "configuration", "logs", "api", "frontend", "admin"]
    postgres, redis, configuration, logs, api = list(plan.services.values())[:5]
    assert isinstance(postgres, PostgresService)
    assert {kind: str(when) for kind, when in postgres.schedules().items()} == {
        "base": "daily 02:00",
        "dump": "daily 02:30",
    }
    assert postgres.checks[0].at_least == 1
    assert postgres.checks[1].equals is True
    assert isinstance(redis, RedisService)
    assert redis.stream == "continuous"
    assert isinstance(configuration, FilesService)
    assert configuration.schedules()["files"].every == timedelta(hours=1)
    assert isinstance(logs, FilesService)
    assert logs.daily == "03:00"
    assert logs.keep == timedelta(days=90)
    assert isinstance(api, ComposeService)
    assert api.after == ("postgres", "redis")
    assert list(plan.repositories) == ["local", "offsite"]
    assert plan.repositories["offsite"].lock == timedelta(days=30)
    assert plan.repositories["local"].takes("stream")
    assert not plan.repositories["offsite"].takes("stream")
    assert plan.key.env == "BACKUP_ENCRYPTION_KEY"
    assert plan.drill is not None
    assert plan.drill.flows[1].steps[0].json_body == {"email": "drill@example.org", "password": "${DRILL_PASSWORD}"}
    assert plan.secrets["jwt-access"].generate == 64
    assert plan.communication.critical is not None
    assert plan.communication.critical.within == timedelta(0)


def test_a_service_has_its_tiers_objective_unless_it_has_its_own() -> None:
    plan = load(EXAMPLE).plan
    assert plan.objective("postgres") == Objective(rto=timedelta(hours=4), rpo=timedelta(hours=24))
    assert plan.objective("configuration") == Objective(rto=timedelta(hours=4), rpo=timedelta(hours=1))
    assert parse_plan(SMALLEST).objective("files") == Objective()


def test_the_example_written_back_is_the_same_plan() -> None:
    plan = load(EXAMPLE).plan
    assert parse_plan(to_yaml(as_data(plan))) == plan


def test_the_smallest_plan_gets_the_documented_defaults() -> None:
    plan = parse_plan(SMALLEST)
    assert plan.retention.daily == 30
    assert plan.retention.wal == timedelta(days=7)
    assert plan.verify.after_backup == "intact"
    assert plan.timezone == "UTC"


# In the cases below « stands right before the place that must be named.


def check(text: str, expected: str) -> None:
    """Require a fault at the mark that begins with ``expected``."""
    before, mark, after = text.partition("«")
    assert mark
    place = f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
    lines = faults(before + after)
    assert any(line.startswith(f"recoup.yaml:{place}: {expected}") for line in lines), (place, lines)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("«sytem: x", 'sytem: unknown key (did you mean "system"?)'),
        ("timezone: «Mars/Base", "timezone: not a known time zone: 'Mars/Base'"),
        ("retention: {daily: «0}", "retention.daily: must be 1 or more, not 0"),
        ("retention: {weekly: «-3}", "retention.weekly: must be 1 or more, not -3"),
        ("retention: {wal: «0m}", "retention.wal: must be longer than zero"),
        ("retention: {daily: «often}", "retention.daily: a whole number is needed, not 'often'"),
        ("retention: {daily: «true}", "retention.daily: a whole number is needed, not true"),
        ("retention: {daily: «1.5}", "retention.daily: a whole number is needed, not 1.5"),
        ("retention: {daily: «1000000}", "retention.daily: must be 100000 or less, not 1000000"),
        ("tiers: {gold: {rto: «4x, rpo: 1h}}", "tiers.gold.rto: not a duration: '4x' (write 15m, 24h, 7d or 2 weeks)"),
        ("tiers: {«gold: {rto: 4h}}", "tiers.gold.rpo: missing (example: rpo: 24h)"),
        ("tiers: {gold: {rto: «4, rpo: 1h}}", "tiers.gold.rto: not a duration: '4' (write 15m, 24h"),
        ("tiers: {gold: {rto: «900000w, rpo: 1h}}", "tiers.gold.rto: too long: '900000w'"),
        ("plan: {next_review: «soon}", "plan.next_review: not a date: 'soon' (write it as in 2026-12-07)"),
        ("plan: {updated: «2026-02-30}", "plan.updated: not a date of the calendar: 2026-02-30"),
        ("«plan:\n", "plan: a mapping is needed, not nothing"),
        ("«system: true", "system: the key stands twice; the first is in line 2"),
        ("verify: {daily: «boot}", "verify.daily: 'boot' is not one of: stored, intact, boots, sound, same, works"),
        ("compose: {file: a, files: «[b]}", "compose.files: file and files exclude each other"),
        ("compose: {file: a, profiles: [«'${P}']}", "compose.profiles.0: a reference has no meaning here"),
        ("drill: {situations: [«flood]}", "drill.situations.0: 'flood' is not one of: database-corruption"),
        ("drill: {schedule: «mondays}", "drill.schedule: not a schedule: 'mondays' (write daily 02:00,"),
        (
            "team: {lead: {name: x, deputy: «led}}",
            "team.lead.deputy: there is no role 'led' in the team (did you mean \"lead\"?)",
        ),
        ("channels: {team: [«nobody]}", "channels.team.0: not a channel (write an Apprise address"),
        ("communication: {report: {to: [«users]}}", "communication.report.to.0: there is no channel 'users'"),
        ("secrets: {a: {generate: 64, manual: «x}}", "secrets.a.manual: generate and manual exclude each other"),
        ("secrets: {a: {generate: «2}}", "secrets.a.generate: must be 16 or more, not 2"),
        ("secrets: {a: «{env: X}}", "secrets.a: env and in belong together"),
        (
            "secrets: {a: {recoup_key: true, restart: [«x]}}",
            "secrets.a.restart.0: there is no service 'x' (known: files)",
        ),
        ("«recoup: 1", "recoup: the key stands twice; the first is in line 1"),
        (
            "drill: {flows: [{name: x, steps: [{get: http://a, post: «http://a}]}]}",
            "drill.flows.0.steps.0.post: get and post exclude each other",
        ),
        (
            "drill: {flows: [{name: x, steps: [«{save: {a: b}}]}]}",
            "drill.flows.0.steps.0: one of these is needed: get, post, put, patch, delete, sql, command",
        ),
        ("drill: {flows: [{name: x, steps: «[]}]}", "drill.flows.0.steps: at least one entry is needed"),
        (
            "drill: {flows: [{name: x, steps: [{get: http://a, expect: {status: «20}}]}]}",
            "drill.flows.0.steps.0.expect.status: must be 100 or more, not 20",
        ),
        (
            "drill: {flows: [{name: x, steps: [«{sql: select 1}]}]}",
            "drill.flows.0.steps.0: service says which PostgreSQL the sql is for; there is not exactly one",
        ),
        (
            "drill: {flows: [{name: x, steps: [{sql: select 1, service: «files}]}]}",
            "drill.flows.0.steps.0.service: sql is for a PostgreSQL service",
        ),
        (
            "drill: {flows: [{name: x, steps: [{command: [ls], service: «file}]}]}",
            "drill.flows.0.steps.0.service: there is no service 'file'",
        ),
        (
            "drill: {flows: [{name: x, steps: [«{command: [ls]}]}]}",
            "drill.flows.0.steps.0: service says where the command runs",
        ),
        (
            "drill: {flows: [{name: x, steps: [{command: ls, service: files, expect: {status: «200}}]}]}",
            "drill.flows.0.steps.0.expect.status: status is not for command",
        ),
        (
            "drill: {flows: [{name: x, steps: [{command: ls, service: files, headers: «{a: b}}]}]}",
            "drill.flows.0.steps.0.headers: headers is for requests, not for command",
        ),
    ],
)
def test_a_wrong_key_of_the_plan_is_named_with_its_place(extra: str, expected: str) -> None:
    check(f"{SMALLEST}{extra}\n", expected)


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("{engine: «redi}", "services.s.engine: unknown engine 'redi' (did you mean \"redis\"?)"),
        ("«{paths: [x]}", "services.s: needs an engine: postgres, redis, files, compose"),
        ("«files", "services.s: a mapping is needed, not 'files'"),
        ("«{engine: files}", "services.s: nothing to protect: paths or git is needed (example: paths: [uploads])"),
        ("{engine: files, paths: «x}", "services.s.paths: a list is needed, not 'x' (write [x])"),
        ("{engine: files, paths: [x], tier: «gold}", "services.s.tier: there is no tier 'gold' (tiers: is empty)"),
        ("{engine: files, paths: [x], daily: «25:00}", "services.s.daily: not a time of day: '25:00' (write it as in"),
        ('{engine: files, paths: [x], daily: «"03:00", every: 1h}', "services.s.daily: every and daily exclude each"),
        ("{engine: files, paths: [x], every: «-1h}", "services.s.every: not a duration: '-1h' (write 15m,"),
        ("{engine: files, paths: [x], after: [«t]}", "services.s.after.0: there is no service 't' (known: s)"),
        ("{engine: files, paths: [x], after: [«s]}", "services.s.after.0: a service cannot come after itself"),
        (
            "{engine: files, paths: [x], health: «a}",
            "services.s.health: not a web address (write http://127.0.0.1:3000",
        ),
        (
            "{engine: files, paths: ['«${']}".replace("'«", "«'"),
            "services.s.paths.0: not a reference: write ${NAME} or",
        ),
        ("«{engine: compose}", "services.s: engine compose needs the plan's compose: section"),
        ("«{engine: redis}", "services.s: where is it? compose: SERVICE or url: redis://… is needed"),
        ("{engine: redis, compose: «r}", "services.s.compose: the plan has no compose: section"),
        ("{engine: redis, url: «'http://h'}", "services.s.url: not an address of this engine (it begins with redis://"),
        ("{engine: redis, url: «'redis://u:a/b@h'}", "services.s.url: not an address of a server (write redis://"),
        (
            "{engine: redis, url: «'redis://:s3@h'}",
            "services.s.url: a password may not stand in a plan; write a reference",
        ),
        ("{engine: redis, url: «'redis://h?password=s3'}", "services.s.url: a password may not stand in a plan"),
        ("{engine: redis, url: 'redis://h', password: «x}", "services.s.password: password is a part of the url"),
        ("{engine: redis, url: 'redis://h', password: «x}", "services.s.password: a secret may not stand in a plan"),
        ("{engine: redis, url: 'redis://h', stream: «1h}", "services.s.stream: '1h' is not one of: continuous"),
        (
            "{engine: redis, url: 'redis://h', rdb: «daily}",
            "services.s.rdb: not a schedule: 'daily' (write daily 02:00,",
        ),
        (
            "{engine: redis, url: 'redis://h', «base: x}",
            "services.s.base: unknown key (known: after, checks, compose, ",
        ),
        ("{engine: postgres, url: 'postgresql://h', «bas: x}", 'services.s.bas: unknown key (did you mean "base"?)'),
        (
            "{engine: postgres, url: «'postgresql://h', compose: x}",
            "services.s.url: url and compose exclude each other",
        ),
        (
            "{engine: postgres, url: 'postgresql://h', dump: «'15 2 * * * *'}",
            "services.s.dump: cron with six fields is not",
        ),
        (
            "{engine: postgres, url: 'postgresql://h', dump: «'99 2 * * *'}",
            "services.s.dump: not a cron expression: '99 2 * * *' (bad minute)",
        ),
        (
            "{engine: postgres, url: 'postgresql://h', checks: [«{sql: x}]}",
            "services.s.checks.0: nothing is expected: one of at_least, at_most, equals is needed",
        ),
        (
            "{engine: postgres, url: 'postgresql://h', checks: [{sql: x, equals: «[1]}]}",
            "services.s.checks.0.equals: true or false or a number or a text is needed, not a list",
        ),
        (
            "{engine: postgres, url: 'postgresql://h', checks: [{sql: x, at_least: «.inf}]}",
            "services.s.checks.0.at_least: cannot read '.inf' as !float",
        ),
        (
            "{engine: postgres, url: 'postgresql://h', checks: [«{sql: x, equals: null}]}",
            "services.s.checks.0: nothing is",
        ),
        (
            "{engine: postgres, url: 'postgresql://h', fingerprint: «'no'}",
            "services.s.fingerprint: true or false is needed, not 'no'",
        ),
        (
            "{engine: postgres, url: 'postgresql://h', dump_format: «tar}",
            "services.s.dump_format: 'tar' is not one of: custom, plain",
        ),
    ],
)
def test_a_wrong_service_is_named_with_its_place(service: str, expected: str) -> None:
    check(SMALLEST.replace("  files: {engine: files, paths: [uploads]}", f"  s: {service}"), expected)


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ("«{}", "repositories.local: one of these is needed: path, url"),
        ("{path: a, url: «'s3://bk'}", "repositories.local.url: path and url exclude each other"),
        ("{url: «'bk'}", "repositories.local.url: not an address of a repository (write s3://bucket/folder"),
        (
            "{path: a, copy: [«bse]}",
            "repositories.local.copy.0: 'bse' is not one of: base, incremental, dump, rdb, wal, stream, files",
        ),
        ("{path: a, lock: «30d}", "repositories.local.lock: lock is for repositories with a url"),
        ("{url: 's3://bk', lock: «0d}", "repositories.local.lock: must be longer than zero"),
        (
            "{url: 's3://bk', credentials: {access_key: '${A}', secret_key: «abc}}",
            "repositories.local.credentials.secret_key: a secret may not stand in a plan; write a reference such as",
        ),
    ],
)
def test_a_wrong_repository_is_named_with_its_place(repository: str, expected: str) -> None:
    check(SMALLEST.replace("{path: backups}", repository), expected)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("«{}", "key: one of these is needed: env, file, command, credential"),
        ("{env: A, file: «b}", "key.file: env and file exclude each other"),
        ("{env: «$A}", "key.env: not a variable's name"),
        ("«abc", "key: a mapping is needed, not 'abc'"),
        ("{command: «[]}", "key.command: at least one entry is needed"),
        ("{command: «echo 'open}", "key.command: cannot be split into a program and its arguments: no closing"),
        ("{command: «' '}", "key.command: names no program"),
        ("{command: «12}", "key.command: a text or a list is needed, not 12"),
    ],
)
def test_a_wrong_key_source_is_named_with_its_place(key: str, expected: str) -> None:
    check(SMALLEST.replace("{file: recoup.key}", key), expected)


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "-dash", "späti", "a b", "x" * 64])
def test_a_name_that_is_no_safe_part_of_an_object_key_is_refused(name: str) -> None:
    text = SMALLEST.replace("  local: {path", f'  "{name}": {{path')
    assert faults(text)[0].startswith(f"recoup.yaml:6:3: repositories.{name}: ")


def test_all_faults_are_reported_at_once_in_the_order_of_the_file() -> None:
    text = "recoup: 1\nsytem: x\nservices: {a: {engine: files}}\nrepositories: {}\nkey: {}\nretention: {daily: 0}\n"
    lines = faults(text)
    assert [line.split(":")[1] for line in lines] == ["1", "2", "3", "4", "5", "6"]


def test_a_circle_of_services_is_shown_once_as_a_circle() -> None:
    text = """\
recoup: 1
system: shop
compose: {file: compose.yaml}
services:
  a: {engine: compose, after: [b]}
  b: {engine: compose, after: [c]}
  c: {engine: compose, after: [a]}
repositories: {local: {path: backups}}
key: {file: recoup.key}
"""
    assert faults(text) == ["recoup.yaml:7:32: services.c.after.0: the order goes in a circle: a → b → c → a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("«", "the file holds no plan"),
        ("«# only a comment\n", "the file holds no plan"),
        ("«~\n", "the file holds no plan"),
        ("«- a\n- b\n", "a plan is a mapping that begins with recoup: 1"),
        ("«just words\n", "a plan is a mapping that begins with recoup: 1"),
        ("a: [1,\nb: 2\n«", "not valid YAML: expected ',' or ']'"),
        ("a: 1\n«\tb: 2\n", "not valid YAML: a tab is used for indentation; YAML wants spaces"),
        ("a: 1\n«---\nb: 2\n", "not valid YAML: a second document begins here (---); a plan is one document"),
        ("a: 'open\n«", "not valid YAML: "),
        ("a: «*nothing\n", "not valid YAML: "),
        ("a: b«\x07c\n", "not valid YAML: the character U+0007 may not stand in a YAML file"),
        ("a: «&x [*x]\n", "a.0: an alias refers to the value it is part of"),
        ("? «[a]\n: b\n", "a key must be a word, not a list or a mapping"),
        ("recoup: «2\n", "recoup: this Recoup knows version 1 of the plan, not 2"),
        ('recoup: «"1"\n', "recoup: this Recoup knows version 1 of the plan, not '1'"),
        ("«system: x\n", "recoup: missing (example: recoup: 1)"),
        ("a: «!!int x\n", "a: cannot read 'x' as !int"),
    ],
)
def test_a_text_that_is_no_plan_is_refused_with_a_place(text: str, expected: str) -> None:
    check(text, expected)


def test_aliases_that_multiply_are_stopped() -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 12))
    assert "more than 50000 values once aliases are followed" in faults("l0: &l0 [x]\n" + levels)[0]


@pytest.mark.parametrize("text", ["[" * 5000, "a: " + "{b: " * 300 + "}" * 300, "- " * 3000 + "x"])
def test_a_deep_nest_is_refused_and_does_not_exhaust_the_stack(text: str) -> None:
    assert faults(text)


def test_anchors_and_merged_mappings_work_as_in_compose_files() -> None:
    plan = parse_plan(
        SMALLEST.replace("  files: {", "  files: {<<: *usual, ").replace(
            "services:", "x-usual: &usual {every: 2h, exclude: [a]}\nservices:"
        )
    )
    files = plan.services["files"]
    assert isinstance(files, FilesService)
    assert files.every == timedelta(hours=2)
    assert files.exclude == ("a",)


def test_a_number_where_a_text_is_wanted_keeps_the_way_it_was_written() -> None:
    plan = parse_plan(SMALLEST + "plan: {version: 1.10}\nteam: {lead: {name: 007, phone: 0049301}}\n")
    assert plan.plan.version == "1.10"
    assert plan.team["lead"].name == "007"
    assert plan.team["lead"].phone == "0049301"


def test_yaml_1_2_is_read_so_that_times_and_no_stay_texts() -> None:
    plan = parse_plan(
        SMALLEST.replace("paths: [uploads]", "paths: [no, on, 12:30, ~/x], daily: 03:30").replace("shop", "no")
    )
    files = plan.services["files"]
    assert isinstance(files, FilesService)
    assert [path.text for path in files.paths] == ["no", "on", "12:30", "~/x"]
    assert files.daily == "03:30"
    assert plan.system == "no"


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "recoup.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + SMALLEST.encode())
    assert load(file).plan.system == "shop"


def test_a_file_with_windows_line_ends_is_read(tmp_path: Path) -> None:
    file = tmp_path / "recoup.yaml"
    file.write_bytes(SMALLEST.replace("\n", "\r\n").encode())
    assert load(file).plan.system == "shop"


def test_bytes_that_are_not_utf_8_are_named_with_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recoup.yaml").write_bytes(b"recoup: 1\nsystem: caf\xe9\n")
    with pytest.raises(PlanError) as caught:
        load(Path("recoup.yaml"))
    assert caught.value.message == "recoup.yaml:2:12: not UTF-8 (byte 0xe9); save the file as UTF-8 text"


def test_a_missing_file_a_folder_and_a_huge_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"there is no plan .*recoup\.yaml"):
        load(tmp_path / "recoup.yaml")
    with pytest.raises(PlanError, match="is a folder, not a plan"):
        load(tmp_path)
    (tmp_path / "huge").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(PlanError, match="larger than 1 MiB"):
        load(tmp_path / "huge")


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, as_anybody: None) -> None:
    file = tmp_path / "recoup.yaml"
    file.write_text(SMALLEST)
    file.chmod(0)
    with pytest.raises(PlanError, match=r"cannot read the plan .*Permission denied"):
        load(file)


@pytest.fixture
def as_anybody(tmp_path: Path) -> Iterator[None]:
    """Root may read everything: for the length of a test, its file rights are those of an ordinary user."""
    if os.geteuid() != 0:
        yield
        return
    os.chown(tmp_path, 65534, 65534)
    closed = [(folder, folder.stat().st_mode) for folder in (tmp_path, *tmp_path.parents)]
    closed = [(folder, mode) for folder, mode in closed if mode & 0o011 != 0o011]
    for folder, mode in closed:
        folder.chmod(mode | 0o011)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for folder, mode in closed:
            folder.chmod(mode)


def test_a_file_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PlanError, match=r"cannot read the plan .*Not a directory"):
        load(tmp_path / "file" / "recoup.yaml")


def test_the_plan_is_found_here_above_or_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    with pytest.raises(PlanError, match=r"there is no recoup\.yaml in .* or in a folder above it"):
        find(environment={})
    (tmp_path / "recoup.yaml").write_text(SMALLEST)
    assert find(environment={}) == tmp_path / "recoup.yaml"
    (below / "recoup.yaml").write_text(SMALLEST)
    assert find(environment={}) == below / "recoup.yaml"
    assert find(environment={"RECOUP_FILE": "/x/y.yaml"}) == Path("/x/y.yaml")
    assert find(Path("z.yaml"), environment={"RECOUP_FILE": "/x/y.yaml"}) == Path("z.yaml")


def test_a_fault_found_outside_the_plan_is_reported_at_its_place_in_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recoup.yaml").write_text(SMALLEST)
    fault = load(Path("recoup.yaml")).fault(("services", "files", "paths", 0), "there is no such folder")
    assert fault.message == "recoup.yaml:4:34: services.files.paths.0: there is no such folder"
