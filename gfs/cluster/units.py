"""Units of systemd for the daemons, as texts; `gfs systemd` prints and installs them.

Each is a template where a host may have several: the instance is a name for a chunk server
or a view, and the escaped path for a mount. All read /etc/gfs/gfs.toml; what differs
between instances stands in an environment file of theirs. A daemon tells that it serves by
sd_notify(3), so what is ordered after it finds it answering.

Master and chunk servers are ordered before remote filesystems, so a host that goes down ends its
mounts, of fstab too, while those that they write to still answer.

A mount has none of the options that would give it a mount namespace of its own: what it
mounts must be seen by all.
"""

from __future__ import annotations

_HEAD = """\
[Unit]
Description={about}
Documentation=man:systemd.service(5)
Wants=network-online.target
After=network-online.target{after}
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
Environment=GFS_CONFIG=/etc/gfs/gfs.toml
{environment}\
ExecStart="{gfs}" {words}
{reload}\
Restart={restart}
RestartSec=2
TimeoutStartSec={start_s}
TimeoutStopSec={stop_s}
KillMode=mixed
LimitNOFILE=65536
OOMScoreAdjust={oom}
UMask=0077
"""

_LOCKED = """\
LockPersonality=yes
NoNewPrivileges=yes
RestrictRealtime=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
"""

# Data lie in /srv/gfs as docs/deploy.md has them; other places need a drop-in with
# ReadWritePaths=.
_CLOSED = (
    _LOCKED
    + """\
User=gfs
Group=gfs
CapabilityBoundingSet=
PrivateDevices=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
ReadWritePaths=-/srv/gfs
RemoveIPC=yes
RestrictNamespaces=yes
RestrictSUIDSGID=yes
SystemCallFilter=@system-service
"""
)

# It fails on what a mount that was killed has left there, which the next one takes over.
_MOUNT = _LOCKED + "ExecStartPre=-/bin/mkdir -m 755 -p %f\n"

_SERVES_MOUNTS = "\nWants=remote-fs-pre.target\nBefore=remote-fs-pre.target"

_INSTALL = "\n[Install]\nWantedBy={target}\n"


def units(gfs: str) -> dict[str, str]:
    """Name -> text of every unit; `gfs` is the path of the command."""
    plain = {
        "gfs": gfs.replace("%", "%%"),
        "after": "",
        "environment": "",
        "reload": "",
        "restart": "always",
        "start_s": "infinity",
    }
    of_instance = "EnvironmentFile=-/etc/gfs/{}-%i.env\n"
    daemon = _HEAD + _CLOSED + _INSTALL.format(target="multi-user.target")
    return {
        "gfs-master.service": daemon.format(
            **plain
            | {"reload": "ExecReload=/bin/kill -HUP $MAINPID\n", "after": _SERVES_MOUNTS},
            about="GFS master", words="master", stop_s=30, oom=-900,
        ),
        "gfs-chunkd@.service": daemon.format(
            **plain
            | {"environment": of_instance.format("chunkd"), "after": _SERVES_MOUNTS},
            about="GFS chunk server %i", words="chunkd", stop_s=30, oom=-500,
        ),
        "gfs-projections@.service": daemon.format(
            **plain | {"environment": of_instance.format("projections")},
            about="GFS view %i", words="projections --view %i", stop_s=60, oom=0,
        ),
        "gfs-mount@.service": (_HEAD + _MOUNT + _INSTALL.format(target="remote-fs.target")).format(
            **plain
            | {
                "environment": of_instance.format("mount"),
                "restart": "on-failure",  # who unmounts it means it
                "start_s": 90,
                "after": " remote-fs-pre.target\nBefore=remote-fs.target",
            },
            about="GFS mounted at %f", words="mount %f", stop_s=60, oom=-500,
        ),
    }  # fmt: skip
