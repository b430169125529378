"""The benchmark of the views: `python -m bench.views`."""
