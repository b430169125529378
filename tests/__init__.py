"""Tests of all programs, from pure cores to real mounts."""
