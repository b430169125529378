"""The mount: POSIX calls become calls to master and chunk servers."""
