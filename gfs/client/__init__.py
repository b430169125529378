"""The client library: files of the cluster for programs, without a kernel mount.

`open_client` gives a `Client` (by inode, as the mount uses it); `Filesystem`
puts paths on top. Everything runs on trio, in one task group that the client
owns.
"""

from gfs.client.client import Client, open_client
from gfs.client.files import OpenFile
from gfs.client.filesystem import Filesystem
from gfs.client.settings import Callbacks, ClientSettings

__all__ = ["Callbacks", "Client", "ClientSettings", "Filesystem", "OpenFile", "open_client"]
