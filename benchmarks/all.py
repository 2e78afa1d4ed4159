"""Every row that is measured, one after another: `python -m benchmarks.all [NAME ...]`. What `make bench` runs.

Each is a program of its own that says what it measures and prints a table; one that fails does not keep the others.
"""

from __future__ import annotations

import subprocess
import sys
import time

ROWS = (
    "drain",
    "against_peers",
    "pickup",
    "held_snapshot",
    "million",
    "workers",
    "import_rows",
    "batch_update",
    "single_updates",
    "growth",
    "start",
    "watch_latency",
    "watch_fanout",
    "watch_memory",
    "watch_log",
    "watch_backbone",
)


def main(names: list[str]) -> int:
    """Runs them. Returns the exit code: 1 when one failed."""
    failed: list[str] = []
    for name in names or ROWS:
        print(f"\n## {name}\n", flush=True)  # noqa: T201
        began_s = time.monotonic()
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
        print(f"\n{name}: {time.monotonic() - began_s:.0f} s", flush=True)  # noqa: T201
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
