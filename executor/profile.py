"""The profile: everything besides module, input and limits that decides a result.

Gas is the engine's own fuel here, and fuel changes between engine versions, so the version and
the architecture are part of the profile's identity and two runs are compared only when their
profile ids are equal. A later meter is another profile with another name; nothing else changes.
"""

import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from blake3 import blake3

from vcp_cluster.ledger.domains import DOMAIN_PROFILE

SETTINGS: Final[tuple[tuple[str, bool | str], ...]] = (
    # Determinism and metering.
    ("consume_fuel", True),
    ("cranelift_nan_canonicalization", True),
    ("cranelift_opt_level", "speed"),
    ("epoch_interruption", False),
    ("strategy", "cranelift"),
    # Features that a module may use.
    ("wasm_bulk_memory", True),
    ("wasm_multi_value", True),
    ("wasm_reference_types", True),  # funcref only: without a collector there is no externref
    ("wasm_simd", True),
    # Features that it may not. Most are on by default in the engine, so each is switched off.
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
"""Engine settings that a result depends on, by the names of `wasmtime.Config`."""

TABLE_ELEMENTS_MAX: Final = 100_000
"""Largest table in elements; `table.grow` beyond it returns -1, so it is part of the profile."""

TABLES_MAX: Final = 16
"""Tables of one module."""


def _architecture() -> str:
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A meter, an engine version, an architecture and a feature set."""

    name: str
    engine_version: str
    architecture: str

    @property
    def engine(self) -> str:
        """For people: `wasmtime-VERSION/ARCHITECTURE`."""
        return f"wasmtime-{self.engine_version}/{self.architecture}"

    @property
    def text(self) -> str:
        """Canonical text of the profile: one `key value` line each, in a fixed order."""
        lines = [
            f"name {self.name}",
            f"wasmtime {self.engine_version}",
            f"architecture {self.architecture}",
            "cpu baseline",
            *(f"{name} {str(value).lower()}" for name, value in SETTINGS),
            f"table_elements_max {TABLE_ELEMENTS_MAX}",
            f"tables_max {TABLES_MAX}",
        ]
        return "".join(line + "\n" for line in lines)

    @property
    def profile_id(self) -> bytes:
        """32 bytes: BLAKE3 over the domain and the canonical text."""
        return blake3(DOMAIN_PROFILE + self.text.encode()).digest()


# The engine's version comes from its metadata, so that a process which only compares results
# does not load the engine.
PROFILE: Final = Profile(
    name="wasmtime-fuel/1", engine_version=version("wasmtime"), architecture=_architecture()
)
PROFILE_ID: Final = PROFILE.profile_id
ENGINE: Final = PROFILE.engine
