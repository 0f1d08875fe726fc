"""The JSON Schema of a plan, for editors: completion, descriptions and red lines while one types."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from recoup.plan.model import Plan

FILE_NAME = "recoup.schema.json"
#: What the schema calls itself. It is fetched from nowhere: ``recoup plan schema`` writes it.
IDENTITY = "urn:recoup:plan:1"
#: The first line of a plan for editors that speak YAML's language server, once the schema lies beside the plan.
EDITOR_LINE = f"# yaml-language-server: $schema={FILE_NAME}"


def build() -> dict[str, Any]:
    """The schema, made from the model."""
    made = Plan.model_json_schema(by_alias=True, mode="validation")
    made = _without_titles(made)
    # x-… keys are free, as in Compose files: anchors are kept there
    made["patternProperties"] = {"^x-": {}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": IDENTITY,
        "title": "recoup.yaml",
        **made,
    }


def to_text(schema: dict[str, Any]) -> str:
    """The schema as the text of the file that ships."""
    return json.dumps(schema, indent=1, ensure_ascii=True) + "\n"


def shipped() -> str:
    """The text of the schema file in the package."""
    return resources.files("recoup.plan").joinpath(FILE_NAME).read_text()


def _without_titles(value: Any) -> Any:
    """pydantic's titles repeat the names of the keys; editors then show them twice."""
    if isinstance(value, list):
        return [_without_titles(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    return {
        name: (
            {key: _without_titles(entry) for key, entry in content.items()}
            if name == "properties"
            else _without_titles(content)
        )
        for name, content in value.items()
        if name != "title" or not isinstance(content, str)
    }
