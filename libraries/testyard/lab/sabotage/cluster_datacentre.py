"""The datacentre with one defect: started instead of ``testyard.lab.cluster.datacentre``."""

import sys

from testyard.lab.cluster.datacentre import main as serve
from testyard.lab.sabotage.cluster_processes import break_this_process


def main() -> int:
    """Break this process, then run the datacentre; gives the exit status."""
    break_this_process()
    return serve()


if __name__ == "__main__":
    sys.exit(main())
