"""The REST interface: one module per family of resources, each with its table of endpoints."""
