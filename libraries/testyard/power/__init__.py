"""Power of a cluster's machines: stop, start, crash, restart, on six providers and over SSH; proven or refused."""
