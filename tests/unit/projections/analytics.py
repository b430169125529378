"""An analytics view filled from records, and a client of its HTTP, without any process."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from gfs.bearer import authorization
from gfs.records import Record
from projections.__main__ import app
from projections.analytics_view import AnalyticsView
from projections.stream_source import StreamSource
from projections.worker import View
from projections.writer import Writer
from tests.unit.projections.views import apply_split, config

KEY = b"k" * 32


def analytics_view(directory: Path, records: list[Record], **settings: Any) -> View:
    """A view of these records, open; close `store` when done."""
    values = config(directory, wait_s=0.2, **settings)
    view = View(AnalyticsView(values), values, StreamSource("http://x", "", None))
    view.store = view.projection.open_store(view.path, view.history_path)
    apply_split(view.projection, view.store, records, random.Random(1))
    view._writer = Writer(view.projection, values, view.store)
    view.cursor = view.store.cursor
    view.rebuilding = False
    return view


class Asker:
    """Asks the view; refusals must say why in one line."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def answer(self, path: str, /, *, status: int = 200, **query: Any) -> dict[str, Any]:
        """The JSON answer, whole."""
        answer = await self.client.get(path, params=query)
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        if status == 200:
            assert {"position", "epoch", "lag_ms", "rebuilding", "cursor"} <= found.keys()
        else:
            assert found["message"]
            assert "\n" not in found["message"]
        return found

    async def rows(self, path: str, /, **query: Any) -> list[dict[str, Any]]:
        """Rows by column."""
        found = await self.answer(path, **query)
        return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]


@asynccontextmanager
async def asking(view: View) -> AsyncIterator[Asker]:
    """A client of the view."""
    view._moved = trio.Event()
    settings = config(view.path.parent, wait_s=0.2)
    transport = httpx.ASGITransport(app([view], settings, KEY))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://views", headers=authorization(KEY)
    ) as client:
        yield Asker(client)
