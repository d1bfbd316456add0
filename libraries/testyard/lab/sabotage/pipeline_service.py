"""The pipeline service with one defect: started instead of ``testyard.lab.pipelines``."""

import sys

from testyard.lab.pipelines.__main__ import main as serve
from testyard.lab.sabotage.pipelines import break_this_process


def main() -> int:
    """Break this process, then run the service; gives the exit status."""
    break_this_process()
    return serve()


if __name__ == "__main__":
    sys.exit(main())
