"""How a client reaches its master: by Unix socket where there is one, else by TCP."""

from __future__ import annotations

from gfs.client.settings import ClientSettings
from gfs.connection import Connection
from gfs.errors import GfsError, Unreachable
from gfs.handshake import dial

SILENCE_LIMIT_S = 5.0  # there is one master: giving it up early gains nothing


async def dial_master(settings: ClientSettings) -> Connection:
    """A connection whose handshake is done.

    Raises:
      Unreachable: nobody answers. GfsError: we are refused.
    """
    ways = [settings.master_unix] if settings.master_unix else []
    if (settings.master and settings.key is not None) or not ways:
        ways.append("")
    error: GfsError = Unreachable("no address of a master is known")
    for unix in ways:
        try:
            return await dial(
                settings.master,
                unix=unix,
                key=settings.key,
                cluster=settings.cluster,
                role="client",
                silence_limit_s=SILENCE_LIMIT_S,
            )
        except Unreachable as failed:
            error = failed
    raise error
