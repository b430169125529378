"""Pure decisions of a chunk server about its replicas."""
