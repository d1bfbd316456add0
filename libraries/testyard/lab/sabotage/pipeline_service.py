"""The pipeline service with one defect: started instead of ``testyard.lab.pipelines``."""

import sys

from testyard.lab.pipelines.__main__ import main
from testyard.lab.sabotage.pipelines import break_this_process

if __name__ == "__main__":
    break_this_process()
    sys.exit(main())
