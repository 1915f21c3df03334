"""The profile: everything besides module, input and limits that decides a result.

Gas, waypoints, stack and NaNs are decided by our own rewriting of the module and not by the engine,
so neither the engine's version nor the architecture belongs to the identity of the profile. Two
results are comparable when their profile ids are equal; the engine is named beside them for people.
"""

import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final, Literal

from blake3 import blake3

from vcp_cluster.executor.callgraph import (
    FRAME_BYTES,
    INSTRUCTIONS_PER_BYTE,
    LOCAL_BYTES,
    UNCOUNTED_BYTES_MAX,
)
from vcp_cluster.executor.trace import WAYPOINT_GAS_MIN, WAYPOINT_GAS_PER_BYTE, WAYPOINTS_MAX
from vcp_cluster.executor.wasm.limits import STATIC_LIMITS
from vcp_cluster.ledger.domains import DOMAIN_PROFILE

Backend = Literal["cranelift", "pulley"]
"""How the engine runs a module: compiled for this machine, or by its portable interpreter."""

COST_TABLE_VERSION: Final = 1
"""Raised when the gas of any instruction changes (docs/executor.md has the table)."""
REWRITER_VERSION: Final = 1
"""Raised by whatever changes a byte of a rewritten module."""
NAN_MODE: Final = "canonical-where-observed/1"
"""Scalars where their bits become visible, lanes of vectors behind the arithmetic on them."""

FEATURES: Final[tuple[tuple[str, bool], ...]] = (
    ("wasm_bulk_memory", True),
    ("wasm_multi_value", True),
    ("wasm_reference_types", True),  # funcref only: without a collector there is no externref
    ("wasm_simd", True),
    # What a module may not use. Most are on by default in the engine, so each is switched off.
    ("gc_support", False),
    ("shared_memory", False),
    ("wasm_component_model", False),
    ("wasm_custom_page_sizes", False),
    ("wasm_exceptions", False),
    ("wasm_function_references", False),
    ("wasm_gc", False),
    ("wasm_memory64", False),
    ("wasm_multi_memory", False),
    ("wasm_relaxed_simd", False),
    ("wasm_stack_switching", False),
    ("wasm_tail_call", False),
    ("wasm_threads", False),
    ("wasm_wide_arithmetic", False),
)
"""Features by the names of `wasmtime.Config`."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A meter and a feature set."""

    name: str

    @property
    def text(self) -> str:
        """Canonical text of the profile: one `key value` line each, in a fixed order."""
        rows: list[tuple[str, object]] = [
            ("name", self.name),
            ("cost_table", COST_TABLE_VERSION),
            ("rewriter", REWRITER_VERSION),
            ("nan", NAN_MODE),
            ("waypoint_gas_min", WAYPOINT_GAS_MIN),
            ("waypoint_gas_per_byte", WAYPOINT_GAS_PER_BYTE),
            ("waypoints_max", WAYPOINTS_MAX),
            ("frame_bytes", FRAME_BYTES),
            ("local_bytes", LOCAL_BYTES),
            ("instructions_per_byte", INSTRUCTIONS_PER_BYTE),
            ("uncounted_bytes_max", UNCOUNTED_BYTES_MAX),
            *FEATURES,
            *STATIC_LIMITS,
        ]
        return "".join(f"{name} {str(value).lower()}\n" for name, value in rows)

    @property
    def profile_id(self) -> bytes:
        """32 bytes: BLAKE3 over the domain and the canonical text."""
        return blake3(DOMAIN_PROFILE + self.text.encode()).digest()


def describe_engine(backend: Backend) -> str:
    """For people: `wasmtime-VERSION/ARCHITECTURE`, with `pulley` as the architecture of that.

    The version comes from the package's metadata, so that a process which only compares results
    does not load the engine.
    """
    machine = platform.machine().lower()
    architecture = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    return f"wasmtime-{version('wasmtime')}/{'pulley' if backend == 'pulley' else architecture}"


PROFILE: Final = Profile(name="vcp-gas/1")
PROFILE_ID: Final = PROFILE.profile_id
ENGINE: Final = describe_engine("cranelift")
