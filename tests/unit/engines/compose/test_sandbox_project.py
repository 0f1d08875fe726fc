"""The project of a sandbox: the services are there, and nothing by which they could touch production or get out."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.engines.compose.sandbox_project import Isolated, SandboxWish, isolate, place_of
from recoup.kernel.secret import Secret

FILES = PurePosixPath("/sandbox/files")
_WISH = SandboxWish(
    id="cafe", owner="me", files=FILES, services=("db", "api"), images={"db": "sha256:1", "api": "sha256:2"}
)


def _isolated(api: dict[str, Any] | None = None, **more: Any) -> Isolated:
    source = {"name": "shop", "services": {"db": {"image": "postgres:15"}, "api": api or {}}, **more}
    return isolate(source, _WISH)


def _api(api: dict[str, Any], **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = _isolated(api, **more).document["services"]["api"]
    return made


def test_the_project_its_images_and_its_labels_are_the_sandboxs() -> None:
    document = _isolated({"image": "shop/api:7", "restart": "always", "build": {"context": "/srv/shop"}}).document
    assert document["name"] == "recoup-drill-cafe"
    api = document["services"]["api"]
    assert (api["image"], api["pull_policy"], api["restart"]) == ("sha256:2", "never", "no")
    assert api["labels"] == {"recoup.sandbox": "cafe", "recoup.sandbox.owner": "me"}
    assert "build" not in api
    assert (api["mem_limit"], api["cpus"], api["pids_limit"]) == (4 << 30, 2.0, 4096)


def test_every_network_is_internal_and_without_this_machine() -> None:
    networks = {
        "default": {"name": "shop_default"},
        "back": {"name": "x", "ipam": {"config": [{"subnet": "10.1.0.0/16"}]}},
    }
    made = _isolated(
        {"networks": {"default": None, "back": {"ipv4_address": "10.1.0.9", "aliases": ["web"]}}}, networks=networks
    )
    for network in made.document["networks"].values():
        assert network["internal"] is True
        assert network["driver_opts"] == {"com.docker.network.bridge.inhibit_ipv4": "true"}
        assert set(network) == {"internal", "driver", "driver_opts", "labels"}
    assert made.document["services"]["api"]["networks"] == {"default": None, "back": {"aliases": ["web"]}}
    assert any("fixed address" in one for one in made.not_tested)


@pytest.mark.parametrize("mode", ["host", "bridge", "container:4711", "service:elsewhere"])
def test_no_network_but_the_sandboxs_own(mode: str) -> None:
    made = _isolated({"network_mode": mode})
    assert "network_mode" not in made.document["services"]["api"]
    assert made.document["services"]["api"]["networks"] == {"default": None}
    assert any("the network" in one for one in made.not_tested)


def test_the_network_of_another_service_of_the_sandbox_is_fine() -> None:
    assert _api({"network_mode": "service:db"})["network_mode"] == "service:db"
    assert _api({"network_mode": "none"})["network_mode"] == "none"


def test_volumes_are_new_ones_wherever_they_were_kept() -> None:
    volumes = {
        "data": {"name": "shop_data"},
        "shared": {"name": "nfs", "driver_opts": {"type": "nfs", "device": ":/exports/shop"}},
        "theirs": {"name": "theirs", "external": True},
    }
    mounts = [{"type": "volume", "source": key, "target": f"/{key}"} for key in volumes]
    made = _isolated({"volumes": [*mounts, {"type": "volume", "target": "/anonymous"}]}, volumes=volumes)
    assert all(set(one) == {"labels"} for one in made.document["volumes"].values())
    assert sorted(made.document["volumes"]) == ["data", "shared", "theirs", "unnamed-1"]
    assert len([one for one in made.not_tested if "it is a new one" in one]) == 2


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("/sandbox/files/logs", "/sandbox/files/logs"),
        ("/etc/letsencrypt", "/sandbox/files/_outside/etc/letsencrypt"),
        ("/srv/shop/uploads", "/sandbox/files/_outside/srv/shop/uploads"),
        ("/sandbox/files/../../etc", None),
        ("/var/run/docker.sock", None),
        ("/run/docker.sock", None),
        ("/home/me/.docker/docker.sock", None),
        ("/proc", None),
        ("/dev/sda", None),
        ("/", None),
        ("relative", None),
    ],
)
def test_a_path_of_the_host_is_in_the_sandbox_or_nowhere(source: str, place: str | None) -> None:
    assert place_of(FILES, source) == place


def test_a_sandbox_below_a_place_of_the_host_keeps_its_own_files() -> None:
    assert place_of(PurePosixPath("/dev/shm/s/files"), "/dev/shm/s/files/logs") == "/dev/shm/s/files/logs"


def test_the_engines_socket_is_left_out_and_said() -> None:
    made = _isolated(
        {"volumes": [{"type": "bind", "source": "/var/run/docker.sock", "target": "/var/run/docker.sock"}]}
    )
    assert "volumes" not in made.document["services"]["api"]
    assert any("the host's own" in one for one in made.not_tested)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("privileged", True),
        ("cap_add", ["NET_ADMIN"]),
        ("devices", ["/dev/fuse:/dev/fuse"]),
        ("pid", "host"),
        ("ipc", "host"),
        ("userns_mode", "host"),
        ("security_opt", ["apparmor:unconfined"]),
        ("extra_hosts", {"payments": "203.0.113.9"}),
        ("links", ["db"]),
        ("external_links", ["other"]),
        ("volumes_from", ["container:other"]),
        ("use_api_socket", True),
        ("gpus", "all"),
        ("runtime", "sysbox"),
        ("cgroup_parent", "/shop"),
        ("sysctls", {"net.core.somaxconn": 1024}),
        ("a_key_of_next_year", {"anything": 1}),
    ],
)
def test_what_is_not_on_the_list_is_left_out_and_said(key: str, value: object) -> None:
    made = _isolated({key: value})
    assert key not in made.document["services"]["api"]
    assert any(one.startswith(f"api: {key}") for one in made.not_tested)


def test_labels_ports_and_names_do_not_draw_traffic_of_production() -> None:
    made = _api(
        {
            "labels": {"traefik.enable": "true"},
            "ports": [{"target": 3000, "published": "3000"}],
            "container_name": "shop-api",
            "logging": {"driver": "syslog", "options": {"syslog-address": "tcp://192.0.2.1"}},
        }
    )
    assert "traefik.enable" not in made["labels"]
    assert not {"ports", "container_name"} & set(made)
    assert made["logging"]["driver"] == "json-file"


def test_drill_secrets_replace_productions_and_dollars_stay_dollars() -> None:
    wish = SandboxWish(
        id="cafe", owner="me", files=FILES, services=("api",), images={}, secrets={"STRIPE": Secret("sk_test_$1")}
    )
    source = {"name": "shop", "services": {"api": {"environment": {"STRIPE": "sk_live", "PORT": "1"}}}}
    made = isolate(source, wish)
    assert made.document["services"]["api"]["environment"] == {"STRIPE": "sk_test_$$1", "PORT": "1"}
    assert "sk_" not in repr(made)
    assert any("STRIPE" in one for one in made.not_tested)


def test_configs_and_secrets_come_from_the_file_sets_or_not_at_all() -> None:
    made = _isolated(
        {"secrets": [{"source": "mine"}, {"source": "theirs"}, {"source": "outer"}]},
        secrets={
            "mine": {"file": "/sandbox/files/mine.txt"},
            "theirs": {"external": True, "name": "theirs"},
            "outer": {"file": "/etc/shop/secret"},
            "unused": {"file": "/etc/unused"},
        },
    )
    assert made.document["secrets"] == {
        "mine": {"file": "/sandbox/files/mine.txt"},
        "outer": {"file": "/sandbox/files/_outside/etc/shop/secret"},
    }
    assert [one["source"] for one in made.document["services"]["api"]["secrets"]] == ["mine", "outer"]
    assert any("theirs" in one for one in made.not_tested)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (None, ["postgres", "-c", "archive_mode=off"]),
        (["postgres", "-c", "archive_mode=on"], ["postgres", "-c", "archive_mode=on", "-c", "archive_mode=off"]),
        (["-c", "fsync=on"], ["-c", "fsync=on", "-c", "archive_mode=off"]),
        (["/usr/lib/postgresql/15/bin/postgres"], ["/usr/lib/postgresql/15/bin/postgres", "-c", "archive_mode=off"]),
    ],
)
def test_more_arguments_come_last(command: list[str] | None, expected: list[str]) -> None:
    arguments = {"db": ("postgres", "-c", "archive_mode=off")}
    wish = SandboxWish(id="cafe", owner="me", files=FILES, services=("db",), images={}, arguments=arguments)
    made = isolate({"name": "shop", "services": {"db": {"command": command}}}, wish)
    assert made.document["services"]["db"]["command"] == expected
    assert made.without_arguments == ()


def test_a_script_cannot_be_given_arguments_and_that_is_said() -> None:
    wish = SandboxWish(
        id="c", owner="me", files=FILES, services=("db",), images={}, arguments={"db": ("postgres", "-c")}
    )
    made = isolate({"name": "shop", "services": {"db": {"command": ["sh", "-c", "exec postgres"]}}}, wish)
    assert made.without_arguments == ("db",)


def test_what_does_not_take_part_is_not_waited_for() -> None:
    api = {"depends_on": {"db": {"condition": "service_healthy"}, "mailhog": {"condition": "service_started"}}}
    assert _api(api)["depends_on"] == {"db": {"condition": "service_healthy", "required": True}}


# -- whatever production's file says, nothing that production has a hand on survives

_MARK = "PRODUCTION"
_marked = st.text(alphabet="abcdefgh0123456789", min_size=1, max_size=6).map(lambda text: f"{_MARK}{text}")
_paths = _marked.map(lambda name: f"/srv/{name}")
_json = st.recursive(
    st.one_of(st.booleans(), st.integers(), _marked),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(_marked, inner, max_size=2)),
    max_leaves=4,
)
_hostile = st.fixed_dictionaries(
    {},
    optional={
        "container_name": _marked,
        "ports": st.lists(st.fixed_dictionaries({"target": st.just(1), "published": _marked}), max_size=2),
        "network_mode": st.one_of(st.just("host"), _marked.map(lambda name: f"container:{name}")),
        "networks": st.dictionaries(st.sampled_from(["default", "back"]), st.none(), max_size=2),
        "volumes": st.lists(
            st.one_of(
                st.fixed_dictionaries({"type": st.just("volume"), "source": st.just("data"), "target": st.just("/d")}),
                st.fixed_dictionaries(
                    {"type": st.sampled_from(["cluster", "npipe"]), "source": _marked, "target": st.just("/t")}
                ),
            ),
            max_size=3,
        ),
        "labels": st.dictionaries(_marked, _marked, max_size=2),
        "logging": st.fixed_dictionaries({"driver": _marked}),
        "deploy": _json,
        "extra_hosts": _json,
        "dns": st.lists(_marked, max_size=2),
        "privileged": st.booleans(),
        "pid": st.just("host"),
        "build": _json,
        "env_file": _json,
        "annotations": _json,
        "x-anything": _json,
        "post_start": _json,
        "provider": _json,
    },
)


@given(
    api=_hostile,
    unknown=st.dictionaries(st.sampled_from(["newkey", "other_key", "models"]), _json, max_size=2),
    network=st.fixed_dictionaries({"name": _marked}, optional={"external": st.booleans(), "driver_opts": _json}),
    volume=st.fixed_dictionaries({"name": _marked}, optional={"external": st.booleans(), "driver_opts": _json}),
    name=_marked,
)
def test_nothing_of_production_survives(
    api: dict[str, Any], unknown: dict[str, Any], network: dict[str, Any], volume: dict[str, Any], name: str
) -> None:
    source = {
        "name": name,
        "services": {"db": {}, "api": {**unknown, **api}, _MARK: {"image": "x"}},
        "networks": {"default": network, "back": network},
        "volumes": {"data": volume},
        "x-more": {_MARK: 1},
    }
    made = isolate(source, _WISH)
    assert _MARK not in json.dumps(made.document)
    service = made.document["services"]["api"]
    assert not {"privileged", "ports", "container_name", "pid", "extra_hosts", "build", "deploy"} & set(service)
    assert all(one["internal"] is True for one in made.document.get("networks", {}).values())
    assert service["restart"] == "no"
    assert service["dns"] == ["192.0.2.1"]


@given(source=st.one_of(_paths, st.text(alphabet="/.a_", max_size=12)))
def test_a_bind_mount_is_below_the_sandboxs_files_or_left_out(source: str) -> None:
    made = _isolated({"volumes": [{"type": "bind", "source": source, "target": "/inside"}]})
    mounts = made.document["services"]["api"].get("volumes", [])
    assert all(
        PurePosixPath(one["source"]).is_relative_to(FILES) and ".." not in one["source"].split("/") for one in mounts
    )
    assert len(mounts) + len(made.not_tested) >= 1
