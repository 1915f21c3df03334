"""Compile examples/*.c to WebAssembly with the C compiler of PyPI's `ziglang` (`make examples`).

`python examples/build.py` writes one .wasm beside each .c. The flags turn off everything that
would leave a trace of the building machine, so the same compiler gives the same bytes anywhere.
"""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent

FLAGS = (
    "--target=wasm32-freestanding",
    "-std=c11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-g0",
    "-nostdlib",
    "-Wl,--no-entry",
    "-Wl,--strip-all",
    "-Wl,-z,stack-size=65536",
)


def build(source: Path) -> Path:
    """Compile `source`; returns the module's path. Raises `CalledProcessError`."""
    target = source.with_suffix(".wasm")
    command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, "-o", target.name, source.name]
    # Relative names from the folder itself: no path of this machine reaches the compiler.
    subprocess.run(command, cwd=source.parent, check=True)
    target.chmod(0o644)  # the linker marks it executable, which no host of ours wants
    return target


def main() -> None:
    """Build every example and say how large it became."""
    for source in sorted(FOLDER.glob("*.c")):
        target = build(source)
        sys.stdout.write(f"{target.name}  {target.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
