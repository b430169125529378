"""Client library: the file system without a kernel mount."""
