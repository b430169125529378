"""What the programs say to each other in frames: one struct a request or reply.

Four conversations share the frame format:

* client (mount, command line) <-> master: namespace, leases, layouts, and the
  master's own requests back to the client (`Invalidate`, `Recall`);
* client -> chunk server and chunk server -> next in chain: `Join`, `Append`,
  `RecordAppend`, `Sync`, reads;
* chunk server <-> master: registration, reports, heartbeats, and the master's
  orders back (`Fence`, `Condense`, ...);
* shadow master <-> master, and whoever promotes a shadow: `FollowLog`, `Promise`, ...

Structs travel as MessagePack arrays tagged with their name. A field added at
the end with a default keeps old peers working; anything else raises
`REVISION`. Byte strings are names as the kernel gives them, any bytes but
``/`` and NUL.
"""

from gfs.messages.base import *  # noqa: F403
from gfs.messages.chain import *  # noqa: F403
from gfs.messages.locks import *  # noqa: F403
from gfs.messages.metadata import *  # noqa: F403
from gfs.messages.mutations import *  # noqa: F403
from gfs.messages.servers import *  # noqa: F403
from gfs.messages.shadows import *  # noqa: F403
