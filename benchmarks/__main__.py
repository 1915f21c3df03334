"""`python -m benchmarks …` is `vcp-cluster bench run …`."""

from __future__ import annotations

import sys

from vcp_cluster.cli.main import cli

if __name__ == "__main__":
    cli(["bench", "run", *sys.argv[1:]])
