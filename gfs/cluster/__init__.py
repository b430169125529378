"""A whole cluster on this host: what `gfs cluster up`, `down` and `status` do."""
