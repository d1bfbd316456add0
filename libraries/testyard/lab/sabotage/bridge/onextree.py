"""Started instead of ``testyard.lab.bridge.onextree``, with the defect that the environment names."""

from testyard.lab.bridge.onextree.__main__ import main as serve
from testyard.lab.sabotage.event_bus_defect import broken

main = broken(serve)
