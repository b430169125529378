"""The command `gfs`."""
