"""Redis URLs."""

from __future__ import annotations

from pathlib import Path

import pytest

from recoup.engines.redis.address import parse_address
from recoup.kernel.errors import UsageError
from recoup.kernel.secret import Secret


def test_a_full_url_is_read_and_shown_without_its_password() -> None:
    address = parse_address(Secret("redis://user:p%40ss%2F@db.example.org:6380/4"))
    assert (address.host, address.port, address.user, address.database) == ("db.example.org", 6380, "user", 4)
    assert address.password == Secret("p@ss/")
    assert str(address) == "redis://db.example.org:6380"
    assert "p@ss" not in repr(address)


def test_the_short_forms() -> None:
    assert parse_address("redis://localhost").port == 6379
    assert parse_address("redis://:pw@[::1]:7000").host == "::1"
    assert str(parse_address("redis://[::1]")) == "redis://[::1]:6379"
    unix = parse_address("unix://:pw@/run/redis/redis.sock?db=3")
    assert (unix.socket, unix.database, unix.password) == (Path("/run/redis/redis.sock"), 3, Secret("pw"))


def test_tls_options_are_read() -> None:
    tls = parse_address("rediss://h?ssl_ca_certs=/ca.pem&ssl_cert_reqs=none&ssl_check_hostname=false").tls
    assert tls is not None
    assert (tls.ca_file, tls.verify, tls.check_name) == (Path("/ca.pem"), False, False)
    plain = parse_address("rediss://h").tls
    assert plain is not None
    assert plain.verify


@pytest.mark.parametrize(
    "url", ["http://hunter2@h", "redis://:hunter2@", "redis://:hunter2@h:port", "redis://:hunter2@h/x", "unix://", ""]
)
def test_a_wrong_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(url)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"
    assert caught.value.hint is not None
