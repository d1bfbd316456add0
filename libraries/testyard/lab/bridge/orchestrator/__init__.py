"""The orchestrator: runs workflows over the other services and publishes what they go through."""
