"""`python -m benchmarks.executor [--quick] [--kernel NAME]`: ratios of CPU time, one table.

All ways to run a kernel take turns, round after round, and every ratio is the median of the ratios
of single rounds: whatever else the machine does meets all of them alike.
"""

import argparse
import math
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.executor.build import BUILDS, NAMES, build_native, has_compiler, module_path
from benchmarks.executor.runners import Runner, native_runner, plain_runner, traced_runner

SIZES = {
    "bodies": 480,
    "calls": 240,
    "digest": 40,
    "inner": 240,
    "machine": 96,
    "mandelbrot": 160,
    "matmul": 48,
    "sieve": 36,
    "sorting": 26,
    "stencil": 2400,
}
"""Some tenths of a second each."""

COLUMNS = {
    "plain/native": ("plain", "native"),
    "fuel/native": ("fuel", "native"),
    "traced/native": ("traced", "native"),
    "traced/plain": ("traced", "plain"),
    "traced/fuel": ("traced", "fuel"),
    "traced/fuel+nan": ("traced", "fuel+nan"),
}
"""What is divided by what."""

Measured = dict[str, list[float]]


def make_runners(name: str, build: str, native: Path | None) -> dict[str, Runner]:
    """All ways to run one module; the native one only if there is a compiler."""
    wasm = module_path(name, build).read_bytes()
    runners = {
        "plain": plain_runner(wasm),
        "fuel": plain_runner(wasm, fuel=True),
        "fuel+nan": plain_runner(wasm, fuel=True, canonical_nans=True),
        "traced": traced_runner(wasm),
    }
    return runners if native is None else {"native": native_runner(native), **runners}


def measure(runners: dict[str, Runner], size: int, rounds: int) -> Measured:
    """CPU seconds by runner and round. Raises `ValueError` when two disagree on the checksum."""
    seconds: Measured = {name: [] for name in runners}
    checksums: dict[str, int] = {}
    for round_ in range(rounds + 1):
        for name, runner in runners.items():
            checksums[name], taken = runner(size)
            if round_:  # the first one warms up
                seconds[name].append(taken)
        if round_ == 0 and native_differs(checksums):
            raise ValueError(f"the runners do not agree: {checksums}")
    return seconds


def native_differs(checksums: dict[str, int]) -> bool:
    """Whether any two checksums differ; native state lives on, so only the first call counts."""
    return len(set(checksums.values())) > 1


def ratios(seconds: Measured) -> dict[str, float]:
    """The median ratio of each column that has both its sides."""
    return {
        column: statistics.median(
            one / other for one, other in zip(seconds[upper], seconds[lower], strict=True)
        )
        for column, (upper, lower) in COLUMNS.items()
        if upper in seconds and lower in seconds
    }


def report(rows: dict[str, dict[str, float]], title: str) -> None:
    """Print one table with the geometric mean below."""
    columns = list(next(iter(rows.values())))
    mean = {
        c: math.exp(statistics.mean(math.log(row[c]) for row in rows.values())) for c in columns
    }
    sys.stdout.write(f"\n{title}\n{'':12}" + "".join(f"{c:>17}" for c in columns) + "\n")
    for name, row in [*rows.items(), ("geo. mean", mean)]:
        sys.stdout.write(f"{name:12}" + "".join(f"{row[c]:17.2f}" for c in columns) + "\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.executor", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the work, three rounds")
    parser.add_argument("--kernel", action="append", choices=NAMES, help="only this one")
    options = parser.parse_args()
    rounds, divisor = (3, 4) if options.quick else (7, 1)
    with tempfile.TemporaryDirectory() as folder:
        names = options.kernel or list(NAMES)
        natives = {
            name: build_native(name, Path(folder)) if has_compiler() else None for name in names
        }
        if not has_compiler():
            sys.stdout.write("No native columns: install ziglang into this environment first.\n")
        for build in BUILDS:
            rows = {}
            for name in names:
                runners = make_runners(name, build, natives[name])
                rows[name] = ratios(measure(runners, max(SIZES[name] // divisor, 1), rounds))
            report(rows, f"{build} build, CPU time, medians of {rounds} rounds")


if __name__ == "__main__":
    main()
