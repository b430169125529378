"""What a master's process is before it leads: a shadow, a candidate, or nothing to wait for.

follow set, never led here          -> shadow, until it is promoted
nobody could have been promoted     -> leads at once
else (it led, or shadows are known) -> candidate: leads if its log is the newest;
                                       else it is a shadow, if it knows whom to follow
"""

from __future__ import annotations

import logging

from master.beginning import begin_anew
from master.core import start
from master.follower import BeginAnew
from master.opening import Opened
from master.promoting import Lead

log = logging.getLogger(__name__)


async def until_in_charge(opened: Opened, key: bytes) -> Lead:
    """Be a shadow, or ask whether another has been promoted; return when the epoch is begun.

    Raises:
      Superseded: another has been, and there is no word of whom to follow.
    """
    follows = bool(opened.config.follow) and not opened.led_epoch
    if not follows and not opened.could_be_superseded():
        opened.lead(start.next_epoch(opened.ledger.state))
        return Lead(0.0)
    from master.shadow import Shadow, Superseded  # with HTTP, which takes long to load

    while True:
        try:
            outcome = await Shadow(opened, key, candidate=not follows).run()
        except Superseded as error:
            if not opened.config.follow:
                raise
            log.warning("master.superseded %s", error)
            opened.follow()
            follows = True
        else:
            if isinstance(outcome, Lead):
                return outcome
            _begin_anew(opened, outcome)


def _begin_anew(opened: Opened, anew: BeginAnew) -> None:
    opened.ledger.close()
    aside = begin_anew(opened.directory, opened.disk, anew.checkpoint, anew.position)
    log.warning("shadow.anew position=%d old=%s", anew.position, aside)
    opened.ledger = opened.open_ledger()
