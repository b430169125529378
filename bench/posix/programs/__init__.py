"""The programs that are tried, by kind."""
