"""Real programs in a directory on ext4, on a mount of this project, and on mounts of peers."""
