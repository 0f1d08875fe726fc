"""The effective plan shows everything but secrets; its schema is the one that ships."""

from __future__ import annotations

import json
from pathlib import Path

from recoup.plan import schema
from recoup.plan.load import parse_plan
from recoup.plan.show import redacted, to_yaml

EXAMPLE = Path(__file__).with_name("example.yaml").read_text()

LEAKY = """\
recoup: 1
system: shop
services:
  db: {engine: postgres, url: "postgresql://u:${P}@h/d?sslmode=require"}
  old: {engine: redis, url: "redis://h/0?x=y"}
repositories:
  s3: {url: "s3://bucket/x", credentials: {access_key: "${A}", secret_key: "${S}"}}
key: {command: [vault, read, topsecret]}
channels: {team: ["slack://topsecret/x", "mailtos://${SMTP}"]}
drill:
  flows:
    - name: a user signs in
      steps:
        - post: http://u:topsecret@api/login
          headers: {Authorization: "Bearer topsecret", Accept: text/html}
          json: {email: a@b.c, password: topsecret, pin: {token: 1234567}}
          save: {token: accessToken}
        - {get: http://api/me, headers: {Authorization: "Bearer ${token}"}}
"""


def test_no_secret_is_in_the_shown_plan_and_references_are() -> None:
    text = to_yaml(redacted(parse_plan(LEAKY)))
    assert "topsecret" not in text
    assert "1234567" not in text
    for shown in ("${P}", "${A}", "${S}", "mailtos://${SMTP}", "Bearer ${token}", "text/html", "accessToken", "a@b.c"):
        assert shown in text


def test_the_shown_plan_of_the_example_has_its_defaults() -> None:
    data = redacted(parse_plan(EXAMPLE))
    assert data["services"]["postgres"]["dump_format"] == "custom"
    assert data["timezone"] == "UTC"
    assert data["secrets"]["redis-password"]["env"] == "REDIS_PASSWORD"


def test_the_schema_in_the_package_is_the_one_of_the_model() -> None:
    made = schema.to_text(schema.build())
    assert schema.shipped() == made, "run: python -m recoup.cli.reference"


def test_the_schema_describes_every_key_and_knows_the_keys_of_the_example() -> None:
    loaded = json.loads(schema.shipped())
    for name, definition in [("Plan", loaded), *loaded["$defs"].items()]:
        for key, described in definition.get("properties", {}).items():
            assert "description" in described, f"{name}.{key}"
    assert set(parse_plan(EXAMPLE).model_dump(by_alias=True)) <= set(loaded["properties"])
    assert set(loaded["$defs"]["RepositoryPlan"]["properties"]) >= {"path", "url", "copy", "lock"}
    assert loaded["additionalProperties"] is False
