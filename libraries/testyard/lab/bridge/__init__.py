"""The event bus of document 004 as services: orchestrator, reducer, stamping, OnexTree, adapter, discovery."""
