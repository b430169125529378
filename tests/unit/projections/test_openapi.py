"""The table of what can be asked, the document of it, and what is answered are one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio

from gfs.bearer import authorization
from gfs.routes import Operation, Parameter, document
from projections.__main__ import app, controls_of, operations_of
from projections.analytics_view import AnalyticsView
from projections.projection import Projection
from projections.search_view import SearchView
from projections.stream_source import StreamSource
from projections.worker import View
from projections.writer import Writer
from tests.unit.projections.views import apply_split, config, history

KEY = b"k" * 32
CHANGES_STATE = ("/pause", "/resume", "/rebuild", "/verify")


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[View]]:
    settings = config(tmp_path_factory.mktemp("openapi"), stream="http://127.0.0.1:1")
    _, records = history(11, 200)
    kinds: list[type[Projection]] = [SearchView, AnalyticsView]
    found = [View(kind(settings), settings, StreamSource("http://x", "", None)) for kind in kinds]
    for view in found:
        view.store = view.projection.open_store(view.path, view.history_path)
        apply_split(view.projection, view.store, records, random.Random(1))
        view._writer = Writer(view.projection, settings, view.store)
        view.cursor = view.store.cursor
    yield found
    for view in found:
        assert view.store is not None
        view.store.close()


@pytest.fixture
async def client(views: list[View]) -> Any:
    for view in views:
        view._moved = trio.Event()
    settings = config(Path("/nowhere"), stream="http://127.0.0.1:1")
    transport = httpx.ASGITransport(app(views, settings, KEY))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://views", headers=authorization(KEY), timeout=30
    ) as found:
        yield found


async def described(client: httpx.AsyncClient) -> list[tuple[str, str, dict[str, Any]]]:
    """Path, method and description of each operation that the document has."""
    answer = await client.get("/openapi.json")
    assert answer.status_code == 200
    found = [
        (path, method, one)
        for path, methods in answer.json()["paths"].items()
        for method, one in methods.items()
    ]
    assert len(found) >= 60
    return found


def value_of(parameter: dict[str, Any]) -> str:
    """Something that the schema allows."""
    schema = parameter["schema"].get("items", parameter["schema"])
    if "example" in parameter:
        return str(parameter["example"])
    if "default" in schema:
        return str(schema["default"])
    if "enum" in schema:
        return str(schema["enum"][0])
    return str(schema["minimum"]) if schema["type"] == "integer" else "x"


def wrong_values(parameter: dict[str, Any]) -> list[str]:
    """What it does not allow."""
    schema = parameter["schema"].get("items", parameter["schema"])
    if "enum" in schema:
        return ["nonsense", ""]
    if schema["type"] == "integer":
        return ["x", "", "1.5", str(schema["maximum"] + 1), "-1", "9" * 40]
    return ["nonsense", "1-", "1-2-3"] if "pattern" in schema else []


async def test_what_is_documented_is_accepted_and_nothing_else(client: httpx.AsyncClient) -> None:
    for path, method, one in await described(client):
        if method == "post" or "{" in path:
            continue
        takes = one["parameters"]
        values = {each["name"]: value_of(each) for each in takes}
        for other in one.get("x-one-of", [])[1:]:
            del values[other]
        answer = await client.get(path, params=values)
        assert answer.status_code == 200, (path, values, answer.text)
        answer = await client.get(path, params=values | {"nonsense": "1"})
        assert answer.status_code == 400, path
        assert "unknown parameter 'nonsense'" in answer.json()["message"]
        for each in takes:
            for wrong in wrong_values(each):
                answer = await client.get(path, params=values | {each["name"]: wrong})
                assert answer.status_code == 400, (path, each["name"], wrong, answer.text)
                assert "\n" not in answer.json()["message"]
            if each["required"]:
                without = {name: value for name, value in values.items() if name != each["name"]}
                assert (await client.get(path, params=without)).status_code == 400
            if each["schema"]["type"] != "array" and each["name"] in values:
                twice = [(each["name"], values[each["name"]])] * 2
                answer = await client.get(path, params=[*values.items(), *twice])
                assert answer.status_code == 400, (path, each["name"])


async def test_bodies_take_what_their_schema_says_and_nothing_else(
    client: httpx.AsyncClient,
) -> None:
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    seen = set()
    for path, method, one in await described(client):
        if method != "post" or path.endswith(CHANGES_STATE):
            continue
        reference = one["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema = schemas[reference.rpartition("/")[2]]
        body = {"sql": "SELECT 1"} if "sql" in schema["properties"] else {}
        assert (await client.post(path, json=body)).status_code == 200, path
        wrongs: list[Any] = [body | {"nonsense": 1}, [], "x", 1, None]
        for wrong in wrongs:
            answer = await client.post(path, json=wrong)
            assert answer.status_code == 400, (path, wrong)
            assert "\n" not in answer.json()["message"]
        assert (await client.post(path, content=b"{")).status_code == 400
        assert (await client.post(path, json=body, params={"nonsense": 1})).status_code == 400
        seen.add(path)
    assert {"/find", "/sql", "/analytics/sql", "/search/find"} <= seen


async def test_the_document_has_every_operation_of_every_view(
    client: httpx.AsyncClient, views: list[View]
) -> None:
    there = {(path, method) for path, method, _ in await described(client)}
    settings = config(Path("/nowhere"), stream="http://127.0.0.1:1")
    for control in controls_of(views, settings, KEY):
        for one in operations_of(control):
            assert (f"/{control.name}{one.path}", one.method.lower()) in there
    assert {("/health", "get"), ("/metrics", "get"), ("/views", "get")} <= there


async def test_every_reference_in_the_document_leads_somewhere(client: httpx.AsyncClient) -> None:
    text = (await client.get("/openapi.json")).text
    found = msgspec.json.decode(text)
    schemas = found["components"]["schemas"]
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.partition('"')[0] in schemas
    assert found["openapi"].startswith("3.1")


async def test_methods_that_are_not_documented_are_refused(client: httpx.AsyncClient) -> None:
    for path in ("/du", "/status", "/views", "/analytics/histogram"):
        assert (await client.delete(path)).status_code == 405
        assert (await client.post(path)).status_code == 405
    for path in ("/pause", "/rebuild", "/search/resume"):
        assert (await client.get(path)).status_code == 405


async def _never(request: Any) -> Any:
    raise AssertionError


def test_a_parameter_refuses_what_its_kind_does_not_allow() -> None:
    operation = Operation(
        "/x",
        _never,
        "",
        (
            Parameter("n", "", "number", least=1, most=5),
            Parameter("many", "", many=True),
            Parameter("must", "", required=True),
        ),
    )
    operation.check([("must", "1"), ("n", "5"), ("many", "a"), ("many", "b")])
    for pairs, complaint in [
        ([("must", "1"), ("n", "0")], "n must be a number from 1 to 5, not '0'"),
        ([("must", "1"), ("n", "٣")], "n must be a number"),
        ([("must", "1"), ("must", "1")], "must is given twice"),
        ([("n", "1")], "must is missing"),
        ([("m", "1")], "unknown parameter 'm'; /x takes many, must, n"),
    ]:
        with pytest.raises(Exception, match=complaint):
            operation.check(pairs)
    found = document("t", "1", [operation])
    assert [one["name"] for one in found["paths"]["/x"]["get"]["parameters"]] == [
        "n",
        "many",
        "must",
    ]
