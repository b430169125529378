"""How a client reaches the master in charge, wherever it is now."""

from __future__ import annotations

from gfs.client.settings import ClientSettings
from gfs.connection import Connection
from gfs.masters import Caller, dial_leader, places

SILENCE_LIMIT_S = 5.0  # giving a master up early gains nothing
SHORT_SILENCE_S = 2.0  # unless there is another


async def dial_master(settings: ClientSettings, epoch: int = 0) -> Connection:
    """A connection whose handshake is done; `epoch` of the last master heard.

    Raises:
      Unreachable: nobody answers. GfsError: we are refused.
    """
    known = places(settings.master, settings.master_unix)
    silence_s = SILENCE_LIMIT_S if len(known) == 1 else SHORT_SILENCE_S
    caller = Caller(settings.key, settings.cluster, "client", silence_s)
    return await dial_leader(known, caller, epoch=epoch, shadow=settings.shadow)
