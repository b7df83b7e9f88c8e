"""What importing a provider's operators adds to a DAG file that has imported airflow.sdk: ours and the official one's.

Each import is timed in fresh interpreters, several times, alternating, and the median is shown. The official provider
must be installed beside this one: `make bench-imports` sees to that. Run by hand: `python
tests/benchmarks/import_time.py [--rounds 7]`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

BUDGET_MS = 15
MODULES = {
    "airflow_dbjobs": "airflow_dbjobs.operators",
    "official": "airflow.providers.databricks.operators.databricks",
}

# A DAG file needs DAG before it needs an operator, so what DAG loads is not the cost of the provider. All names are
# imported, because ours are loaded when they are first used.
PROBE = """
import json, sys, time
from airflow.sdk import DAG
before, start = set(sys.modules), time.perf_counter()
from {module} import *
print(json.dumps([(time.perf_counter() - start) * 1000, len(set(sys.modules) - before)]))
"""

# A provider that pip has installed has bytecode caches: ours needs them, too, wherever they may not be written here.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def measure(module: str) -> tuple[float, int]:
    """Return the milliseconds and the number of modules that importing `module` takes in a new interpreter."""
    probe = [sys.executable, "-W", "ignore", "-c", PROBE.format(module=module)]
    output = subprocess.run(probe, check=True, capture_output=True, text=True, env=ENVIRONMENT).stdout
    milliseconds, modules = json.loads(output.splitlines()[-1])
    return milliseconds, modules


def main() -> int:
    """Print the comparison; exit 1 if our import is over its budget."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="interpreters per provider (default 7)")
    rounds = parser.parse_args().rounds
    for module in MODULES.values():
        measure(module)  # writes the bytecode caches, which every later process of a deployment finds
    samples: dict[str, list[tuple[float, int]]] = {name: [] for name in MODULES}
    for _ in range(rounds):
        for name, module in MODULES.items():
            samples[name].append(measure(module))
    medians = {name: statistics.median(time for time, _ in taken) for name, taken in samples.items()}
    print(f"{'import':<52}{'median ms':>10}{'min':>8}{'max':>8}{'modules':>9}")
    for name, taken in samples.items():
        times = [time for time, _ in taken]
        print(f"{MODULES[name]:<52}{medians[name]:>10.1f}{min(times):>8.1f}{max(times):>8.1f}{taken[0][1]:>9}")
    print(f"ratio {medians['official'] / medians['airflow_dbjobs']:.0f}, budget {BUDGET_MS} ms")
    return 0 if medians["airflow_dbjobs"] <= BUDGET_MS else 1


if __name__ == "__main__":
    sys.exit(main())
