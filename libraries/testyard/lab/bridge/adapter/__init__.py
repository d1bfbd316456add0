"""The database adapter: stores every event exactly once, and dead-letters what is none."""
