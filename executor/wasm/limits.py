"""Static limits of a module. Compiling is the attack surface: a module of 438 KB can take the
engine 31 CPU seconds, so sizes and counts are bounded before the engine sees a byte.

They decide which modules are refused, so they are part of the profile's identity.
"""

from typing import Final

FUNCTIONS_MAX: Final = 20_000
BODY_BYTES_MAX: Final = 128 << 10
LOCALS_MAX: Final = 1_000
"""Parameters and locals of one function."""
NESTING_MAX: Final = 256
"""Blocks inside one another in one function."""
BLOCKS_TIMES_LOCALS_MAX: Final = 2_000_000
"""Sum over all functions of (blocks and entries of branch tables) x (parameters and locals).

The compiler may keep a value for every local at every block, which is what makes a bomb.
"""
BRANCHES_TIMES_LOCALS_MAX: Final = 4_000_000
"""The same sum over branches instead of blocks, which cost the compiler about half as much."""
TYPES_MAX: Final = 10_000
TYPE_VALUES_MAX: Final = 128
GLOBALS_MAX: Final = 1_000
EXPORTS_MAX: Final = 1_000
SEGMENTS_MAX: Final = 10_000
ELEMENTS_MAX: Final = 100_000
"""References in all element segments together."""
NAME_BYTES_MAX: Final = 256
CUSTOM_SECTIONS_MAX: Final = 100
TABLES_MAX: Final = 16
TABLE_ELEMENTS_MAX: Final = 100_000
"""Largest table in elements; `table.grow` beyond it returns -1."""

STATIC_LIMITS: Final[tuple[tuple[str, int], ...]] = (
    ("blocks_times_locals_max", BLOCKS_TIMES_LOCALS_MAX),
    ("body_bytes_max", BODY_BYTES_MAX),
    ("branches_times_locals_max", BRANCHES_TIMES_LOCALS_MAX),
    ("custom_sections_max", CUSTOM_SECTIONS_MAX),
    ("elements_max", ELEMENTS_MAX),
    ("exports_max", EXPORTS_MAX),
    ("functions_max", FUNCTIONS_MAX),
    ("globals_max", GLOBALS_MAX),
    ("locals_max", LOCALS_MAX),
    ("name_bytes_max", NAME_BYTES_MAX),
    ("nesting_max", NESTING_MAX),
    ("segments_max", SEGMENTS_MAX),
    ("table_elements_max", TABLE_ELEMENTS_MAX),
    ("tables_max", TABLES_MAX),
    ("type_values_max", TYPE_VALUES_MAX),
    ("types_max", TYPES_MAX),
)
"""All of them by name, for the profile's canonical text."""
