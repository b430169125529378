"""`gfs master promote|forget`: a shadow takes over, or is not expected any more (GFS §5.1.3)."""

from __future__ import annotations

import click

from gfs.cli.finding import cluster_option, reach
from gfs.cli.output import out
from gfs.cluster.asking import ask
from gfs.config import ClientConfig
from gfs.errors import UsageError
from gfs.messages import ForgetShadow, Ok, Promote, Promoted

PROMOTE_S = 60.0


@click.command("promote")
@cluster_option
@click.option("--lose", type=click.IntRange(min=0), default=0, help="Positions given up. [0]")
@click.option("--at", "address", metavar="HOST:PORT", help="Which shadow, if there are several.")
@click.pass_context
def promote(context: click.Context, lose: int, address: str | None) -> None:
    """Make a shadow the master. Refused if its log lacks what was committed.

    The old master, if it runs, is asked to step down first, and ends.
    """
    config = _at(reach(context.obj).config, address)
    config.read_from_shadow = True
    promoted = ask(config, Promote(lose), Promoted, PROMOTE_S)
    out(f"the shadow is the master now: epoch {promoted.epoch}, from position {promoted.position}")


@click.command("forget")
@cluster_option
@click.argument("shadow")
@click.pass_context
def forget(context: click.Context, shadow: str) -> None:
    """Expect SHADOW (its number in `gfs status`) no more: it will not come back."""
    try:
        number = int(shadow, 16)
    except ValueError:
        raise UsageError(f"{shadow} is no number of a shadow") from None
    ask(reach(context.obj).config, ForgetShadow(number), Ok)
    out(f"shadow {shadow} is forgotten")


def _at(config: ClientConfig, address: str | None) -> ClientConfig:
    if address is not None:
        config.master, config.master_unix = address, ""
    return config
