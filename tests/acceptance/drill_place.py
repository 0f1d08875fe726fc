"""A production on a pretend machine, with copies in a folder and a bucket, and somebody there who holds drills."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recoup.demo.s3_server import S3Server
from tests.acceptance.admin import CLIENT_SEES_ORDERS
from tests.acceptance.workplace import RECOUP, s3_environment
from tests.cable import Cable, listen_on
from tests.testhost.fixtures import Stack
from tests.testhost.machine import Machine

#: Calls out in every way it knows, five times a second, when it is told to; counts what it tried and what came back.
_CALLER = r"""
use strict; use IO::Socket::INET; use IO::Select;
sub note { my ($name, $count) = @_; open(my $f, '>', "/count/$name") or die $!; print $f $count; close $f }
my ($tried, $reached) = (0, 0);
note('tried', 0); note('reached', 0);
while (1) {
  select(undef, undef, undef, 0.2);
  next if $ENV{CALL_OUT} ne 'yes';
  for my $where (
    ['tcp', '203.0.113.7', 443], ['udp', '203.0.113.7', 53], ['tcp', '172.17.0.1', 3000],
    ['tcp', 'mail.example.org', 25]
  ) {
    my ($kind, $host, $port) = @$where;
    $tried++;
    my $socket = IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port, Proto => $kind, Timeout => 1);
    next unless $socket;
    print $socket "data of the restored database\n";
    $reached++ if $kind eq 'tcp' || defined($socket->peername) && IO::Select->new($socket)->can_read(0.2);
  }
  note('tried', $tried); note('reached', $reached);
}
"""

_DRILL = f"""
drill:
  situations: [server-loss]
  secrets: {{CALL_OUT: "yes"}}
  flows:{CLIENT_SEES_ORDERS}"""
_DRILL += """\
    - name: what calls out reaches nobody
      within: 2m
      steps:
        - {command: [perl, -pe, "1", /count/tried], service: caller, expect: {at_least: 4}}
        - {command: [perl, -pe, "1", /count/reached], service: caller, expect: {equals: 0}}
        - sql: >-
            select count(*) from pg_settings
            where (name, setting) in (('archive_mode', 'off'), ('max_logical_replication_workers', '0'))
          expect: {equals: 2}
        - sql: select count(*) from pg_subscription where subenabled
          expect: {equals: 1}
        - sql: select count(*) from pg_stat_subscription where pid is not null
          expect: {equals: 0}
        - sql: select case when far_answers() then 1 else 0 end
          expect: {equals: 0}
"""


#: In the copy that drills bring back: everything in a database that calls somebody by itself, or when it is asked.
_CALLS = (
    "create extension postgres_fdw",
    "create server far foreign data wrapper postgres_fdw options (host '203.0.113.7', connect_timeout '2')",
    "create user mapping for public server far options (user 'x', password 'x')",
    "create foreign table far (i int) server far",
    """create function far_answers() returns boolean language plpgsql as
       $$ begin perform * from far; return true; exception when others then return false; end $$""",
    "create subscription calls connection 'host=203.0.113.7 user=x' publication p with (connect=false, slot_name='s')",
    "alter subscription calls enable",
    "alter system set archive_mode = 'on'",
    "alter system set archive_command = 'curl http://203.0.113.7/%f'",
)
#: Production itself must be silent while packets are counted.
_QUIET = (
    "alter subscription calls disable",
    "alter subscription calls set (slot_name = none)",
    "drop subscription calls",
    "alter system reset archive_mode",
    "alter system reset archive_command",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillPlace:
    """Somebody who is logged in on the machine of production."""

    stack: Stack
    machine: Machine
    folder: Path
    environment: dict[str, str]
    backups: Path  #: the repository "local"

    def recoup(self, *arguments: str, expect: int | None = 0, folder: Path | None = None) -> str:
        """Run ``recoup`` on the machine; what it printed. ``expect`` None takes any exit code."""
        done = self.machine.run(
            [RECOUP, *arguments],
            folder=folder or self.folder,
            environment=self.environment,
            check=False,
            timeout=400,
        )
        said = done.stdout.decode() + done.stderr.decode()
        if expect is not None:
            assert done.returncode == expect, f"recoup {' '.join(arguments)} ended with {done.returncode}:\n{said}"
        return done.stdout.decode() if "--json" in arguments else said

    def drill(self, *arguments: str, expect: int = 0) -> dict[str, Any]:
        """Hold a drill; its document."""
        document: dict[str, Any] = json.loads(self.recoup("drill", "--json", *arguments, expect=expect))
        return document

    def kill_at(self, words: str, *arguments: str) -> list[str]:
        """Begin a drill and ``kill -9`` it when it comes to the step whose line holds ``words``; what it had said."""
        process = subprocess.Popen(
            self.machine.inside([RECOUP, "drill", *arguments], self.folder),
            env=self.machine.environment_inside(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line.decode().strip())
            if words in lines[-1]:
                break
        else:
            raise AssertionError(f"it never came to {words!r}:\n" + "\n".join(lines))
        os.killpg(process.pid, signal.SIGKILL)  # not what it has started: that has groups of its own
        process.wait(120)
        process.stderr.close()
        return lines

    def production(self) -> tuple[str, ...]:
        """What must not change: containers with their start, the next transaction, the volumes and networks."""
        project = ("--filter", "label=com.docker.compose.project=marketplace")
        ids = self.machine.docker("ps", "--quiet", "--no-trunc", *project).split()
        started = self.machine.docker(
            "inspect", "--format", "{{.Id}} {{.State.StartedAt}} {{.State.Pid}}", *sorted(ids)
        )
        snapshot = "select pg_snapshot_xmax(pg_current_snapshot()), system_identifier from pg_control_system()"
        return (
            started,
            self.stack.sql(snapshot),
            self.machine.docker("volume", "ls", "--quiet", *project),
            self.machine.docker("network", "ls", "--quiet", *project),
        )

    def left_of_drills(self) -> str:
        """Everything in the engine that a drill has made."""
        label = ("--filter", "label=recoup.sandbox")
        found = [self.machine.docker("ps", "--all", "--quiet", *label)]
        found += [self.machine.docker(kind, "ls", "--quiet", *label) for kind in ("volume", "network")]
        found.append(self.machine.docker("ps", "--all", "--quiet", "--filter", "label=recoup.one-off.project"))
        return "".join(found)


@contextlib.contextmanager
def drill_place(stack: Stack, s3: S3Server, folder: Path) -> Iterator[DrillPlace]:
    """Production with an application that can call out, protected once, and a plan with a drill."""
    text = stack.file.read_text()
    caller = {"image": "api:1", "environment": {"CALL_OUT": "${CALL_OUT:-no}"}, "tmpfs": ["/count:mode=1777"]}
    caller |= {"command": ["perl", "-e", _CALLER.replace("$", "$$")], "labels": {"traefik.enable": "true"}}
    stack.file.write_text(text.replace("  mailhog:", f"  caller: {json.dumps(caller)}\n\n  mailhog:"))
    stack.compose("up", "--detach", "--wait", "--wait-timeout", "240")
    # What the server does by itself takes transaction ids, and the test counts them.
    stack.sql("alter system set autovacuum = off")
    stack.sql("select pg_reload_conf()")
    word = next(line.partition("=")[2] for line in stack.env_file.read_text().splitlines() if "REDIS_PASSWORD" in line)
    redis_cli = ("exec", "-T", "-e", f"REDISCLI_AUTH={word}", "redis", "redis-cli", "--no-auth-warning")
    stack.compose(*redis_cli, "set", "basket:7", "three apples")
    environment = {
        "RECOUP_STATE": str(folder / "state"),
        **s3_environment(s3),
    }
    place = DrillPlace(
        stack=stack,
        machine=stack.machine,
        folder=stack.folder,
        environment=environment,
        backups=folder / "backups",
    )
    with Cable(s3.port, listener=listen_on(stack.machine, s3.port)):
        place.recoup(
            *("init", "--compose", "docker-compose.prod.yml", "--env-file", ".env.production"),
            *("--repository", str(folder / "backups"), "--repository", f"s3://{s3.new_bucket()}/marketplace"),
        )
        plan = stack.folder / "recoup.yaml"
        checks = "    checks: [{name: there are orders, sql: select count(*) from orders, at_least: 1}]\n"
        text = plan.read_text().replace("    base: daily", f"    heartbeat: true\n{checks}    base: daily")
        keys = '    checks: [{redis: "GET basket:7", equals: three apples}]\n'
        text = text.replace("    engine: redis\n", f"    engine: redis\n    heartbeat: true\n{keys}")
        assert (text.count("heartbeat: true"), text.count("checks: ")) == (2, 2), text
        plan.write_text(text + _DRILL)
        place.recoup("check", "--prepare", "--yes")
        for statement in _CALLS:
            stack.sql(statement)
        place.recoup("backup", "postgres", "--kind", "base")
        for statement in _QUIET:
            stack.sql(statement)
        for service in ("redis", "configuration"):
            place.recoup("backup", service)
        yield place


@contextlib.contextmanager
def sinkhole(machine: Machine) -> Iterator[Sinkhole]:
    """Everything that leaves the machine goes into a hole that counts."""
    setup = (
        "ip link add sink0 type veth peer name sink1",
        "sysctl -qw net.ipv6.conf.sink1.disable_ipv6=1",
        "ip link set sink1 up",
        "sysctl -qw net.ipv6.conf.sink0.disable_ipv6=1",
        "ip addr add 203.0.113.1/24 dev sink0",
        "ip link set sink0 arp off up",
        "ip route add default dev sink0",
    )
    for line in setup:
        machine.run(line.split())
    try:
        yield Sinkhole(machine=machine)
    finally:
        machine.run(["ip", "link", "del", "sink0"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sinkhole:
    """Where packets end that leave the machine."""

    machine: Machine

    @property
    def packets(self) -> int:
        """How many came so far."""
        said = self.machine.run(["cat", "/sys/class/net/sink0/statistics/tx_packets"], check=False)
        if said.returncode == 0 and said.stdout.strip():
            return int(said.stdout)
        line = self.machine.run(["ip", "-s", "-j", "link", "show", "sink0"]).stdout
        return int(json.loads(line)[0]["stats64"]["tx"]["packets"])


@contextlib.contextmanager
def watched_network(machine: Machine, project: str) -> Iterator[WatchedNetwork]:
    """Counts packets that come into a project's network from anywhere but itself."""
    network = json.loads(machine.docker("network", "inspect", f"{project}_default"))[0]
    subnet, bridge = network["IPAM"]["Config"][0]["Subnet"], f"br-{network['Id'][:12]}"
    rules = [["FORWARD", "!", "-i", bridge, "-d", subnet, "-m", "comment", "--comment", "watched"]]
    rules += [["OUTPUT", "-d", subnet, "-m", "comment", "--comment", "watched"]]
    for chain, *rule in rules:
        machine.run(["iptables", "-I", chain, "1", *rule])
    try:
        yield WatchedNetwork(machine=machine)
    finally:
        for chain, *rule in rules:
            machine.run(["iptables", "-D", chain, *rule])


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedNetwork:
    """A network at whose border packets are counted."""

    machine: Machine

    @property
    def packets(self) -> int:
        """How many came in so far."""
        said = self.machine.run(["iptables", "-L", "-v", "-n", "-x"]).stdout.decode()
        return sum(int(line.split()[0]) for line in said.splitlines() if "watched" in line)
