"""The documents that the program makes of itself are valid, whole, and as they are checked in."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate

from handlers.registry import Catalogue
from models.calls.call import Reason, State
from models.calls.rules import MOVES
from models.errors import CODES
from server.asyncapi import asyncapi
from server.calls_doc import calls_page, walk
from server.cli_docs import BEGIN, END, documents, errors_page, stale, with_table
from server.openapi import openapi
from server.wiring import catalogue

ROOT = Path(__file__).parents[2]
METHODS = {"get", "put", "post", "patch", "delete"}
# Of the npm package @asyncapi/specs, where it is installed beside the JavaScript client.
ASYNCAPI_SCHEMA = ROOT / "tests/js/node_modules/@asyncapi/specs/schemas/3.0.0.json"


@pytest.fixture(scope="module")
def rest() -> dict[str, Any]:
    return openapi(catalogue)


@pytest.fixture(scope="module")
def events() -> dict[str, Any]:
    return asyncapi(catalogue)


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for inner in node.values():
            yield from references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from references(inner)


def found(document: dict[str, Any], reference: str) -> Any:
    node: Any = document
    for part in reference.removeprefix("#/").split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


# ------------------------------------------------------------------------------------------------- as checked in


def test_what_is_checked_in_is_what_the_program_writes() -> None:
    assert list(stale(ROOT)) == [], "run make docs"


def test_the_documents_are_the_same_each_time_they_are_made() -> None:
    assert documents(ROOT) == documents(ROOT)


def test_a_stale_document_is_named(tmp_path: Path) -> None:
    for name, text in documents(ROOT).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert stale(tmp_path) == {}
    (tmp_path / "docs/errors.md").write_text("old")
    (tmp_path / "docs/openapi.json").unlink()
    assert sorted(stale(tmp_path)) == ["docs/errors.md", "docs/openapi.json"]


def test_the_table_goes_between_the_markers_and_the_rest_of_the_readme_stays() -> None:
    before = f"head\n{BEGIN}old\n{END}tail\n"
    after = with_table(before, "new\n")
    assert after == f"head\n{BEGIN}\nnew\n\n{END}tail\n"
    assert with_table(after, "new\n") == after
    with pytest.raises(ValueError, match="markers"):
        with_table("no markers", "new\n")


# ------------------------------------------------------------------------------------------------------- OpenAPI


def test_openapi_is_valid(rest: dict[str, Any]) -> None:
    validate(rest)


def test_every_route_is_documented_under_each_of_its_names(rest: dict[str, Any]) -> None:
    there = operations(rest)
    for route in catalogue.routes:
        for path in (route.path, *route.also):
            assert f"{route.method} {path}" in there
    assert {"GET /health", "GET /health/live", "GET /metrics"} <= set(there)


def test_operation_ids_are_unique_so_that_a_client_can_be_generated(rest: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operation in operations(rest).values()]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z][A-Za-z0-9]*", one) for one in ids)


def test_every_operation_says_what_it_answers_and_how_it_refuses(rest: dict[str, Any]) -> None:
    for route in catalogue.routes:
        operation = operations(rest)[f"{route.method} {route.path}"]
        statuses = set(operation["responses"])
        answers_nothing = route.gives is None and not route.blob
        assert str(204 if answers_nothing and route.status == 200 else route.status) in statuses
        assert {str(CODES[code].status) for code in route.refuses} <= statuses
        assert {"400", "500", "503"} <= statuses
        assert ("401" in statuses) or route.public
        assert (operation.get("security") == []) == route.public


def test_a_secret_is_never_in_an_address(rest: dict[str, Any]) -> None:
    for name, operation in operations(rest).items():
        for parameter in operation.get("parameters", []):
            assert not re.search("password|token|secret", str(parameter.get("name", "")), re.I), name


def test_a_route_that_is_answered_once_takes_an_idempotency_key(rest: dict[str, Any]) -> None:
    """Also one that keeps its first answers itself, and so cannot do without an ``opId``."""
    key = {"$ref": "#/components/parameters/IdempotencyKey"}
    for route in catalogue.routes:
        operation = operations(rest)[f"{route.method} {route.path}"]
        op_id = route.takes().fields.get("op_id")
        once = route.once or (op_id is not None and op_id.required)
        assert (key in operation.get("parameters", [])) == once


def test_a_route_with_an_entity_tag_says_so_and_how_to_ask_with_it(rest: dict[str, Any]) -> None:
    header = {"$ref": "#/components/parameters/IfNoneMatch"}
    tagged = 0
    for route in catalogue.routes:
        operation = operations(rest)[f"{route.method} {route.path}"]
        has = route.etag or route.blob
        tagged += has
        assert ("304" in operation["responses"]) == has
        assert (header in operation.get("parameters", [])) == has
        if has:
            assert "ETag" in operation["responses"]["200"]["headers"]
            assert "ETag" in operation["responses"]["304"]["headers"]
    assert tagged > 5


def test_every_code_in_openapi_is_shown_with_its_sentence(rest: dict[str, Any]) -> None:
    for code, example in rest["components"]["examples"].items():
        assert example["value"]["error"]["message"] == CODES[code].sentence


def test_the_examples_fit_the_schemas(rest: dict[str, Any]) -> None:
    for name, schema in rest["components"]["schemas"].items():
        for example in schema.get("examples", []):
            whole = {**schema, "components": rest["components"]}
            jsonschema.validate(example, whole, cls=jsonschema.Draft202012Validator)
            assert example, name


# ------------------------------------------------------------------------------------------------------ AsyncAPI


def test_asyncapi_is_valid(events: dict[str, Any]) -> None:
    if not ASYNCAPI_SCHEMA.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("needs the npm package @asyncapi/specs: npm ci in tests/js")
        pytest.skip("needs the npm package @asyncapi/specs: npm ci in tests/js")
    schema = json.loads(ASYNCAPI_SCHEMA.read_text())
    jsonschema.validators.validator_for(schema)(schema).validate(events)


def test_asyncapi_has_the_parts_that_version_3_asks_for(events: dict[str, Any]) -> None:
    assert events["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(events["info"])
    for channel in events["channels"].values():
        assert set(channel["messages"]) == set(events["components"]["messages"])
    for key, operation in events["operations"].items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", key)
        assert operation["action"] in ("send", "receive")
        own = operation["messages"] + operation.get("reply", {}).get("messages", [])
        assert all(one["$ref"].startswith("#/channels/signaling/messages/") for one in own)
    for key, message in events["components"]["messages"].items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", key)
        assert {"name", "title", "payload"} <= set(message)


@pytest.mark.parametrize("made", [openapi, asyncapi], ids=["openapi", "asyncapi"])
def test_every_reference_leads_somewhere(made: Any) -> None:
    document = made(catalogue)
    assert all(found(document, reference) for reference in references(document))


def test_every_event_is_received_with_its_ack_and_every_notice_sent(events: dict[str, Any]) -> None:
    for name, event in catalogue.events.items():
        operation = events["operations"][f"receive.{name}"]
        assert operation["action"] == "receive", "the document speaks from the server's side"
        assert found(events, found(events, operation["messages"][0]["$ref"])["$ref"])["name"] == name
        acks = [found(events, found(events, one["$ref"])["$ref"]) for one in operation["reply"]["messages"]]
        assert [ack["payload"]["properties"]["ok"]["const"] for ack in acks] == [True, False]
        assert operation.get("x-refuses", []) == list(event.refuses)
        if name.isupper():
            assert operation["x-lower-case-alias"] == [name.lower()]
    for name in catalogue.notices:
        assert events["operations"][f"send.{name}"]["action"] == "send"


def test_the_examples_of_events_fit_their_payloads(events: dict[str, Any]) -> None:
    for message in events["components"]["messages"].values():
        for example in message.get("examples", []):
            whole = {**message["payload"], "components": events["components"]}
            jsonschema.validate(example["payload"], whole, cls=jsonschema.Draft7Validator)


def test_an_empty_catalogue_makes_valid_documents_too() -> None:
    validate(openapi(Catalogue()))
    assert asyncapi(Catalogue())["operations"] == {}


# --------------------------------------------------------------------------------------------- the pages in words


def test_the_page_of_codes_has_every_code() -> None:
    page = errors_page()
    for code, meaning in CODES.items():
        assert f"| `{code}` | {meaning.status} | {meaning.sentence} |" in page


def test_the_walk_of_the_machine_meets_every_cell_that_changes_a_state_and_every_reason() -> None:
    seen, edges = walk()
    causes = {
        cause.split(": ")[1] for (_, end), them in edges.items() if end is State.ENDED for cause in them
    }
    assert causes == {reason.value for reason in Reason}
    assert {start for start, _ in edges} == set(State) - {State.ENDED}
    for state, command in seen:
        assert command in MOVES[state]


def test_the_page_of_calls_names_every_command_and_every_reason() -> None:
    page = calls_page()
    commands = {command for row in MOVES.values() for command in row}
    assert all(f"| `{command.__name__}` |" in page for command in commands)
    assert all(f"| `{reason.value}` |" in page for reason in Reason)


# ---------------------------------------------------------------------------------------------------- prose


PROSE = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_into_the_repository_leads_to_a_file(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_code_event_and_route_in_prose_exists(path: Path) -> None:
    text = path.read_text()
    for name in re.findall(r'(?:send|on)\("([A-Z_]{4,})"|event === "([A-Z_]{4,})"', text):
        assert "".join(name) in {*catalogue.events, *catalogue.notices}
    routes = {f"{r.method} {re.sub('{.*?}', '{}', p)}" for r in catalogue.routes for p in (r.path, *r.also)}
    for method, route in re.findall(r'(?:`|")(GET|POST|PUT|PATCH|DELETE)(?: |", ")(/api/[^`"? ]*)', text):
        assert f"{method} {re.sub('{.*?}', '{}', route)}" in routes


def test_every_decision_is_listed_once_and_numbered_without_a_hole() -> None:
    pages = sorted(path.name for path in (ROOT / "docs/adr").glob("[0-9]*.md"))
    assert [int(name[:4]) for name in pages] == list(range(1, len(pages) + 1))
    listed = re.findall(r"\((\d{4}-[a-z0-9-]+\.md)\)", (ROOT / "docs/adr/README.md").read_text())
    assert listed == pages
