"""The master: namespace, chunks, leases, operation log (GFS §2.4)."""
