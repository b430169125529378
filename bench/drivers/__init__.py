"""Functions that make the measured system calls; each call runs in a process of its own."""
