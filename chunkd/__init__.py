"""The chunk server: replicas on local disks, chains, reads (GFS §2.3)."""
