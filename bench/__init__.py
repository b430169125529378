"""Repeatable benchmarks: the same real work on this project, on peers and on the local disk.

`targets` start and stop what is measured, `workloads` say what is done and
what is reported, `drivers` are the functions that make the system calls, each
in a process of its own; `runner` interleaves them and `report` prints.
"""
