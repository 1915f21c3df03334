"""Run a program that ends with the process that started it: `python -m … PROGRAM ARGUMENT…`.

The wish to die with a parent survives `exec`; to ask for it between fork and exec in the parent is
not safe beside threads.
"""

from __future__ import annotations

import os
import sys

from vcp_cluster.cluster.processes import follow_if_asked

if __name__ == "__main__":
    follow_if_asked()
    os.execv(sys.argv[1], sys.argv[1:])
