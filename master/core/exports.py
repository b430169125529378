"""Which clients may have what of the filesystem: the rules of the master's configuration.

As NFS's exports, by where a client comes from: the first rule that fits says what its
sessions may do at most, and what a client asks for can only take away from that. With
rules, who fits none is refused; without any, nobody is restricted. A client on the
master's own Unix socket that fits no rule is not restricted, so that nobody locks
himself out.

The name of a mount is the client's own claim: a rule by name orders, and protects nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from gfs.errors import NotPermitted, PermissionDenied, UsageError
from gfs.messages import (
    Access,
    CheckFilesystem,
    Drain,
    DrainDirectory,
    ForgetShadow,
    Promote,
)

# What operators ask without a session; it concerns the whole cluster.
OPERATORS = {CheckFilesystem, Drain, DrainDirectory, ForgetShadow, Promote}
UNIX = "unix"  # the master's own Unix socket
ANYBODY = "*"

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Export:
    """One rule.

    Args:
      clients: addresses, networks (``10.1.0.0/16``), ``unix``, ``*``.
      mounts: patterns of the names of mounts; a command has the name "".
      access: what a session may do; None: nothing, it is refused.

    Raises:
      UsageError: one of `clients` is none of these.
    """

    clients: Sequence[str] = (ANYBODY,)
    mounts: Sequence[str] = (ANYBODY,)
    access: Access | None = field(default_factory=Access)
    _networks: tuple[_Network, ...] = field(init=False)

    def __post_init__(self) -> None:
        plain = (UNIX, ANYBODY)
        networks = tuple(_network(text) for text in self.clients if text not in plain)
        object.__setattr__(self, "_networks", networks)

    def fits(self, host: str, mount: str) -> bool:
        """Is this rule about a mount of this name on this host? `host` "": a Unix socket."""
        if not any(fnmatchcase(mount, pattern) for pattern in self.mounts):
            return False
        if ANYBODY in self.clients or (not host and UNIX in self.clients):
            return True
        if not host:
            return False
        address = _address(host)
        return any(address in network for network in self._networks)


class Exports:
    """The rules in their order. `on_change`: what is to be done when there are others."""

    def __init__(self, rules: Sequence[Export] = ()) -> None:
        self.rules = tuple(rules)
        self.on_change: Callable[[], None] = _nobody_is_there

    def replace(self, rules: Sequence[Export]) -> None:
        """Other rules from now on; sessions that are open have to be judged anew."""
        self.rules = tuple(rules)
        self.on_change()

    def access_of(self, host: str, mount: str) -> Access:
        """What a session of this mount ("" = a command) on this host ("" = here) may do.

        Raises:
          PermissionDenied: nothing.
        """
        for rule in self.rules:
            if rule.fits(host, mount):
                if rule.access is None:
                    raise PermissionDenied(f"nothing is exported to {host or UNIX}")
                return rule.access
        if self.rules and host:
            raise PermissionDenied(f"nothing is exported to {host}")
        return Access()

    def require_operator(self, host: str) -> None:
        """Commands from there may ask what is in `OPERATORS`.

        Raises:
          PermissionDenied, NotPermitted: its files are restricted, and so is this.
        """
        if self.access_of(host, "") != Access():
            raise NotPermitted(f"exports restrict what {host or UNIX} may do")


def _nobody_is_there() -> None:
    """No session is open yet."""


def _network(text: str) -> _Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no address or network of clients: {error}") from None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
