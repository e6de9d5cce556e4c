"""Whether an answer is one that the document names, of the shape that it says."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"


@cache
def _document() -> dict[str, Any]:
    return dict(json.loads(DOCUMENT.read_text()))


@cache
def _validator(where: str) -> Draft202012Validator:
    registry = Registry().with_resource("doc", Resource(contents=_document(), specification=DRAFT202012))
    return Draft202012Validator({"$ref": f"doc#{where}"}, registry=registry)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def refuse_undocumented(method: str, path: str, answer: Any) -> None:
    """An AssertionError unless ``answer`` (status, headers, body) is a documented one of that route."""
    where = f"/paths/{_escaped(path)}/{method.lower()}/responses"
    responses = _document()["paths"][path][method.lower()]["responses"]
    assert str(answer.status) in responses, f"{method} {path} does not document {answer.status}"
    found, where = responses[str(answer.status)], f"{where}/{answer.status}"
    if "$ref" in found:
        where = found["$ref"].removeprefix("#")
        found = _document()["components"]["responses"][where.rsplit("/", 1)[-1]]
    content = found.get("content", {})
    kind = answer.headers.get("Content-Type", "").partition(";")[0]
    if "application/json" in content and kind == "application/json" and not isinstance(answer.body, str):
        faults = _validator(f"{where}/content/application~1json/schema").iter_errors(answer.body)
        said = [f"{fault.json_path}: {fault.message[:200]}" for fault in faults]
        assert not said, f"{method} {path} {answer.status}: {said}"
    elif answer.body:
        assert kind in content or "*/*" in content, f"{method} {path}: {kind} is not documented"
