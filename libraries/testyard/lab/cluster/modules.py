"""The modules whose processes the datacentre's fork server forks, by name: importing them is its work alone."""

from __future__ import annotations

NODE = "testyard.lab.cluster.node"
JANITOR = "testyard.lab.cluster.janitor"
MEASURING = "testyard.lab.cluster.deployer.measuring"
