"""Spin for some seconds and print the CPU seconds that this process got: `python spinner.py 0.5`.

Run as a file, so that it starts fast and imports nothing of ours.
"""

import sys
import time


def spin(seconds: float) -> float:
    """CPU seconds of this process within so many seconds of wall time."""
    start_s, cpu_s = time.monotonic(), time.process_time()
    while time.monotonic() - start_s < seconds:
        pass
    return time.process_time() - cpu_s


if __name__ == "__main__":
    # Ready first, so that all spinners begin together however long their start takes.
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(f"{spin(float(sys.argv[1]))}\n")
