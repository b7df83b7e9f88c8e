"""What the check of payloads adds to the parsing of a DAG file: the first operator, and each further one.

Each sample is a new interpreter that has imported airflow.sdk (or airflow, of 2.x), as a DAG file has, and this
provider's operators. It makes one operator, then many more like it, with the check and without; what the check costs
is the difference, in CPU time, so that a busy machine counts less. Run by hand: `python
tests/benchmarks/parse_time.py [--rounds 7]`. Exits 1 if it is over budget.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

FIRST_MS = 100
FURTHER_MS = 1
FURTHER = 200

CLUSTER = {
    "spark_version": "15.4.x-scala2.12",
    "node_type_id": "i3.xlarge",
    "autoscale": {"min_workers": 1, "max_workers": 8},
    "spark_conf": {"spark.speculation": "true"},
    "custom_tags": {"team": "sales", "cost-center": "17"},
    "aws_attributes": {"availability": "SPOT_WITH_FALLBACK", "first_on_demand": 1},
    "init_scripts": [{"workspace": {"destination": "/Shared/init.sh"}}],
}
PAYLOADS = {
    "run-now": ("DatabricksRunNowOperator", {"job_id": 17, "notebook_params": {"day": "{{ ds }}"}}),
    "notebook": (
        "DatabricksSubmitRunOperator",
        {
            "notebook_task": {"notebook_path": "/Shared/load", "base_parameters": {"day": "{{ ds }}"}},
            "new_cluster": CLUSTER,
            "libraries": [{"pypi": {"package": "requests"}}],
        },
    ),
    "ten tasks": (
        "DatabricksSubmitRunOperator",
        {
            "tasks": [
                {
                    "task_key": f"t{number}",
                    "depends_on": [{"task_key": f"t{number - 1}"}] if number else [],
                    "notebook_task": {"notebook_path": "/Shared/load", "base_parameters": {"day": "{{ ds }}"}},
                    "new_cluster": CLUSTER,
                    "libraries": [{"pypi": {"package": "requests"}}],
                    "email_notifications": {"on_failure": ["team@example.com"]},
                }
                for number in range(10)
            ]
        },
    ),
}

PROBE = """
import json, sys, time
try:
    from airflow.sdk import DAG
except ImportError:
    from airflow import DAG
from airflow_dbjobs import operators
kind = getattr(operators, {kind!r})
loaded = "pydantic" in sys.modules
times = []
for number in range(1 + {further}):
    fields = json.loads({payload!r})
    start = time.process_time()
    kind(task_id=f"t{{number}}", validate={validate}, **fields)
    times.append((time.process_time() - start) * 1000)
print(json.dumps([times[0], sum(times[1:]) / {further}, loaded, len(sys.modules)]))
"""


def measure(name: str, *, validate: bool) -> tuple[float, float, bool]:
    """Return the milliseconds of the first operator and of each further one, and whether pydantic was there before."""
    kind, payload = PAYLOADS[name]
    probe = PROBE.format(kind=kind, payload=json.dumps(payload), further=FURTHER, validate=validate)
    # As a deployment has it, whatever the shell of a developer says.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-W", "ignore", "-c", probe]
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    first, further, loaded, _ = json.loads(output.stdout.splitlines()[-1])
    return first, further, loaded


def main() -> int:
    """Print the comparison; exit 1 if the check is over its budget."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="interpreters per payload, with and without (default 7)")
    rounds = parser.parse_args().rounds
    for name in PAYLOADS:
        measure(name, validate=True)  # writes the bytecode caches, which every later process of a deployment finds
    print(f"{'ms per operator':<12}{'first':>18}{'unchecked':>12}{'further':>12}{'unchecked':>12}")
    good = True
    for name in PAYLOADS:
        samples = [(measure(name, validate=True), measure(name, validate=False)) for _ in range(rounds)]
        (first, further), (bare_first, bare_further) = (
            (statistics.median(sample[side][0] for sample in samples), statistics.median(s[side][1] for s in samples))
            for side in (0, 1)
        )
        print(f"{name:<12}{first:>21.1f}{bare_first:>12.1f}{further:>12.2f}{bare_further:>12.2f}")
        good = good and first - bare_first <= FIRST_MS and further - bare_further <= FURTHER_MS
    loaded = "had" if samples[0][0][2] else "had not"
    print(f"budget {FIRST_MS} and {FURTHER_MS} ms; Airflow {loaded} loaded pydantic itself")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
