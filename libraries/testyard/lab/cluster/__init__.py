"""A cluster on this computer: a datacentre of nodes, a replicated database, and the deployer that creates them.

``python -m testyard.lab.cluster`` is the deployer's command line (:mod:`testyard.lab.cluster.deployer`).
"""
