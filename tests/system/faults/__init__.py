"""The whole cluster under faults: what was promised holds whatever process fails."""
