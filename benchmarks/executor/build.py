"""Compile the kernels with the C compiler of PyPI's `ziglang`: twice to WebAssembly, once native.

`python -m benchmarks.executor.build` writes the modules that are kept beside the sources. The
native reference is built when the benchmark runs, for the machine at hand.
"""

import importlib.util
import platform
import subprocess
import sys
from pathlib import Path

KERNELS = Path(__file__).resolve().parent / "kernels"
NAMES = tuple(sorted(path.stem for path in KERNELS.glob("*.c")))

COMMON = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-g0", "-fno-builtin-memset")
WASM = (
    "--target=wasm32-freestanding",
    "-nostdlib",
    "-Wl,--no-entry",
    "-Wl,--strip-all",
    "-Wl,-z,stack-size=65536",
)
BUILDS = {"scalar": (), "simd": ("-msimd128",)}
"""Kinds of module by name: the flags that tell them apart."""

# Vectors of 128 bits and no fused multiplication, as in WebAssembly.
NATIVE_CPUS = {"x86_64": "x86_64_v2", "aarch64": "baseline"}


def has_compiler() -> bool:
    """Whether `ziglang` is installed for this interpreter."""
    return importlib.util.find_spec("ziglang") is not None


def module_path(name: str, build: str) -> Path:
    """Where the module of a kernel lies."""
    return KERNELS / f"{name}.{build}.wasm"


def build_native(name: str, folder: Path) -> Path:
    """Compile a kernel to a shared library in `folder`. Raises `CalledProcessError`."""
    target = folder / f"{name}.so"
    cpu = NATIVE_CPUS.get(platform.machine(), "baseline")
    _compile(*COMMON, f"-mcpu={cpu}", "-shared", "-fPIC", "-o", str(target), f"{name}.c")
    return target


def _compile(*arguments: str) -> None:
    # Relative names from the folder itself: no path of this machine reaches a module.
    subprocess.run([sys.executable, "-m", "ziglang", "cc", *arguments], cwd=KERNELS, check=True)


def main() -> None:
    """Build every module."""
    for name in NAMES:
        for build, flags in BUILDS.items():
            target = module_path(name, build)
            _compile(*COMMON, *WASM, *flags, "-o", target.name, f"{name}.c")
            target.chmod(0o644)  # the linker marks it executable, which no host of ours wants


if __name__ == "__main__":
    main()
