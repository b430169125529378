"""The questions people ask of views, each with many arguments: over HTTP, and inside.

Inside is the same handler called in this process, without a socket or an HTTP server: what
the query itself costs. The view is opened here for it, while no process has it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec
import trio

from bench.views.stage import VIEWS, Stage
from bench.views.timing import Times, timed, timed_async
from bench.views.tree import RARE_EVERY, WORDS, directory_paths, rare_name
from gfs import changes
from gfs.bearer import authorization
from gfs.config import ProjectionsConfig
from gfs.handshake import load_key
from projections.__main__ import app, views_of

COUNT = 100  # arguments of each question
OPEN_S = 120.0
_AGES = ("mtime", "atime", "created")
Question = tuple[str, Mapping[str, str]]  # path and parameters


@dataclass(frozen=True)
class Arguments:
    """What is asked for: in the words of all that are compared."""

    rare: list[str]
    parts: list[str]  # of names
    directories: list[str]  # below the top, without a leading slash

    @classmethod
    def of(cls, files: int, seed: int = 5) -> Arguments:
        """A hundred of each, the same for everybody."""
        rng = random.Random(seed)
        rare = [rare_name(rng.randrange(-(-files // RARE_EVERY))).decode() for _ in range(COUNT)]
        parts = [f"{rng.choice(WORDS)[1:]}-{rng.choice(WORDS)}-" for _ in range(COUNT)]
        parts = [f"{part}{rng.randrange(10)}" for part in parts]
        paths = directory_paths(files)
        return cls(rare, parts, [paths[0], *rng.choices(paths, k=COUNT - 1)])


def questions(arguments: Arguments) -> dict[str, dict[str, list[Question]]]:
    """By view and name of the figure."""
    below = ["/" + path for path in arguments.directories]
    return {
        "search": {
            "substring": [("/search", {"q": part}) for part in arguments.parts],
            "find_rare": [
                ("/find", {"path": "/", "word": f"-name {name}"}) for name in arguments.rare
            ],
            "du": [("/du", {"path": path}) for path in below],
            "top_20": [("/top", {"n": "20", "path": "/"})] * COUNT,
        },
        "analytics": {
            "top_20": [("/report/largest", {"n": "20"})] * COUNT,
            "histogram": [
                *[("/report/sizes", {})] * (COUNT // 4),
                *[("/report/ages", {"of": of}) for of in _AGES * (COUNT // 4)],
            ],
            "owners": [("/sums", {"by": "owner"})] * (COUNT // 4),
        },
    }


def _address(question: Question) -> str:
    """With the parameters; `word` is repeated, a word each."""
    path, given = question
    pairs = [
        (name, part)
        for name, value in given.items()
        for part in (value.split() if name == "word" else [value])
    ]
    return f"{path}?{urlencode(pairs)}"


def over_http(stage: Stage, arguments: Arguments) -> dict[str, dict[str, Times]]:
    """As the services answer, one question at a time."""
    running = {view: stage.start_view(view) for view in VIEWS}
    found: dict[str, dict[str, Times]] = {}
    for view, asked in questions(arguments).items():
        running[view].wait_at(1)
        client = running[view].client

        def ask(question: Question, client: httpx.Client = client) -> None:
            client.get(_address(question)).raise_for_status()

        found[view] = {}
        for name, some in asked.items():
            timed(some[:5], ask)
            found[view][name] = timed(some, ask)
    for one in running.values():
        one.stop()
    return found


async def inside(stage: Stage, arguments: Arguments) -> dict[str, dict[str, Times]]:
    """The handlers alone."""
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return {view: await _inside(stage, view, asked) for view, asked in questions(arguments).items()}


async def _inside(
    stage: Stage, name: str, asked: Mapping[str, Sequence[Question]]
) -> dict[str, Times]:
    facts, layout = stage.facts, stage.layout
    key = load_key(Path(layout.key))
    places = layout.to_stream(facts)
    data = str(layout.data(f"projections-{name}"))
    config = msgspec.convert({"view": name, "data_dir": data, **places}, ProjectionsConfig)
    views = views_of(config, key)
    transport: Any = httpx.ASGITransport(app(views, config, key))
    found: dict[str, Times] = {}
    async with trio.open_nursery() as nursery:
        views[0].lock()
        nursery.start_soon(views[0].run)
        await views[0].wait_for(changes.START, OPEN_S)
        headers = authorization(key)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://view", headers=headers, timeout=120
        ) as client:

            async def ask(question: Question) -> None:
                (await client.get(_address(question))).raise_for_status()

            for figure, some in asked.items():
                await timed_async(some[:5], ask)
                found[figure] = await timed_async(some, ask)
        nursery.cancel_scope.cancel()
    return found
