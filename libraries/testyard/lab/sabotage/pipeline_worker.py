"""A worker of the pipeline service with one defect: started instead of ``testyard.lab.pipelines.worker``."""

import sys

from testyard.lab.pipelines.worker import main as work
from testyard.lab.sabotage.pipelines import break_this_process


def main() -> int:
    """Break this process, then run the worker; gives the exit status."""
    break_this_process()
    return work()


if __name__ == "__main__":
    sys.exit(main())
