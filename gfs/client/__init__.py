"""The client library: files of the cluster for programs, without a kernel mount.

`open_client` gives a `Client` (by inode, as the mount uses it); `Filesystem`
puts paths on top (as the command line uses it). Everything runs on trio, in one
task group that the client owns.
"""
