"""The command line with one defect: run instead of ``testyard`` by the keywords about ``testyard workflow``."""

import runpy

from testyard.lab.sabotage.cluster_processes import break_this_process

if __name__ == "__main__":
    break_this_process()
    runpy.run_module("testyard", run_name="__main__")
