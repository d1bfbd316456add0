"""The command ``python -m testyard.lab.cluster``: the deployer."""

from __future__ import annotations

import sys

from testyard.lab.cluster.deployer.command_line import end_orderly_when_terminated, main

if __name__ == "__main__":
    end_orderly_when_terminated()
    sys.exit(main())
