"""Pure decisions of the master: no I/O, no clock, no randomness of its own."""
