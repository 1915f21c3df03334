"""`context.Ledger` over the Unix socket to the Raft process and, for writes, to the leader."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from vcp_cluster.cluster.errors import InvalidTransaction, Unavailable
from vcp_cluster.cluster.door.problems import Problem
from vcp_cluster.cluster.door.submission import Submission
from vcp_cluster.cluster.link import LinkClosed, LinkTimeout, RaftLink
