"""Real servers for the lab, each started from what a package manager brings."""
