"""Pure decisions of the mount: what may be cached, what is open."""
