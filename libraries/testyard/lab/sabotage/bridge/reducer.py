"""Started instead of ``testyard.lab.bridge.reducer``, with the defect that the environment names."""

from testyard.lab.bridge.reducer.__main__ import main as serve
from testyard.lab.sabotage.event_bus_defect import broken

main = broken(serve)
