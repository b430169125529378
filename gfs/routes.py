"""What a daemon's HTTP can be asked: one table, of which routes, checks and OpenAPI are made.

An `Operation` is a path, a method and the parameters it takes. Whatever the table does
not say is refused before the handler sees it: an unknown parameter, one given twice, a
number out of range, a word that is none of those known; a mistyped parameter is not
silence. As ``GET /openapi.json`` prints the same table, it cannot say anything else.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gfs.changes import parse_cursor
from gfs.errors import InvalidArgument

OPENAPI = "3.1.0"
TEXT_CHARACTERS_MAX = 65_536  # of one parameter
NUMBER_MAX = 1 << 62

Handler = Callable[[Request], Awaitable[Response]]
Kind = Literal["text", "number", "flag", "cursor"]


@dataclass(frozen=True)
class Parameter:
    """A parameter of the query.

    Attributes:
      kind: `flag` is 0 or 1, `number` an integer from `least` to `most`, `cursor` a place
        in the log, EPOCH-POSITION.
      choices: the words that a text may be; empty: any.
      example: something that the handler takes, where not every text is.
      many: it may be given several times.
      where: "query", or "path" for a part of the path.
    """

    name: str
    about: str
    kind: Kind = "text"
    least: int = 0
    most: int = NUMBER_MAX
    default: str | int | None = None
    choices: tuple[str, ...] = ()
    example: str | None = None
    many: bool = False
    required: bool = False
    where: Literal["query", "path"] = "query"

    def check(self, value: str) -> None:
        """Raises: InvalidArgument: `value` is not what this parameter takes."""
        if wrong := self._wrong(value):
            raise InvalidArgument(f"{self.name} {wrong}, not {value[:40]!r}")

    def _wrong(self, value: str) -> str:
        if len(value) > TEXT_CHARACTERS_MAX:
            return f"may have {TEXT_CHARACTERS_MAX} characters"
        if self.kind == "flag" and value not in ("0", "1"):
            return "is 0 or 1"
        if self.kind == "number" and not self._is_number(value):
            return f"must be a number from {self.least} to {self.most}"
        if self.kind == "cursor":
            parse_cursor(value)
        if self.choices and value not in self.choices:
            return f"is one of {', '.join(self.choices)}"
        return ""

    def _is_number(self, value: str) -> bool:
        plain = re.fullmatch(r"-?[0-9]{1,19}", value, re.ASCII) is not None
        return plain and self.least <= int(value) <= self.most

    def schema(self) -> dict[str, Any]:
        """As JSON Schema."""
        found: dict[str, Any] = {"type": "string"}
        if self.kind == "flag":
            found = {"type": "integer", "enum": [0, 1]}
        elif self.kind == "number":
            found = {"type": "integer", "minimum": self.least, "maximum": self.most}
        elif self.kind == "cursor":
            found["pattern"] = r"^[0-9]{1,19}-[0-9]{1,19}(\.[0-9]{1,9})?$"
        if self.choices:
            found["enum"] = list(self.choices)
        if self.default is not None:
            found["default"] = self.default
        return {"type": "array", "items": found} if self.many else found


@dataclass(frozen=True)
class Operation:
    """One thing that can be asked.

    Attributes:
      path: as Starlette writes it; a `{name}` in it needs a parameter with where="path".
      body: what the JSON of a POST is decoded to by the handler; None: no body.
      answers: media type of the answer.
      one_of: parameters of which exactly one must be given.
    """

    path: str
    handler: Handler
    about: str
    parameters: tuple[Parameter, ...] = ()
    method: Literal["GET", "POST", "DELETE"] = "GET"
    body: type[msgspec.Struct] | None = None
    answers: str = "application/json"
    one_of: tuple[str, ...] = ()

    def check(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Look at the parameters somebody gave.

        Raises: InvalidArgument, with one line that says which and why.
        """
        known = {one.name: one for one in self.parameters if one.where == "query"}
        seen: set[str] = set()
        for name, value in pairs:
            parameter = known.get(name)
            if parameter is None:
                takes = ", ".join(sorted(known)) or "none"
                raise InvalidArgument(f"unknown parameter {name[:40]!r}; {self.path} takes {takes}")
            if name in seen and not parameter.many:
                raise InvalidArgument(f"{name} is given twice")
            parameter.check(value)
            seen.add(name)
        for parameter in known.values():
            if parameter.required and parameter.name not in seen:
                raise InvalidArgument(f"{parameter.name} is missing")
        if self.one_of and len(seen & set(self.one_of)) != 1:
            raise InvalidArgument(f"give either {' or '.join(self.one_of)}")

    def route(self) -> Route:
        """The handler, behind the check."""
        return Route(self.path, partial(_checked, self), methods=[self.method])


async def _checked(operation: Operation, request: Request) -> Response:
    operation.check(request.query_params.multi_items())
    for one in operation.parameters:
        if one.where == "path":
            one.check(request.path_params[one.name])
    return await operation.handler(request)


def document(title: str, version: str, operations: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI document of a table."""
    bodies = {one.body for one in operations if one.body is not None}
    _, schemas = msgspec.json.schema_components(
        sorted(bodies, key=lambda one: one.__name__),
        ref_template="#/components/schemas/{name}",
    )
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _described(one)
    return {
        "openapi": OPENAPI,
        "info": {"title": title, "version": version},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "message": {"type": "string"}},
    "required": ["error", "message"],
}


def _described(operation: Operation) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    found: dict[str, Any] = {
        "summary": operation.about,
        **({"x-one-of": list(operation.one_of)} if operation.one_of else {}),
        "parameters": [_parameter(one) for one in operation.parameters],
        "responses": {
            "200": {"description": "the answer", "content": {operation.answers: {}}},
            "default": {"description": "an error, in one line", "content": error},
        },
    }
    if operation.body is not None:
        schema = {"$ref": f"#/components/schemas/{operation.body.__name__}"}
        content = {"application/json": {"schema": schema}}
        found["requestBody"] = {"required": True, "content": content}
    return found


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.about,
        "required": parameter.required or parameter.where == "path",
        "schema": parameter.schema(),
        **({} if parameter.example is None else {"example": parameter.example}),
    }
