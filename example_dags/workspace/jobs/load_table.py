"""Loads one table: what a `spark_python_task` runs. Its parameters come as command-line arguments."""

import argparse
import time

parser = argparse.ArgumentParser()
parser.add_argument("--table", required=True)
parser.add_argument("--rows", type=int, default=1000)
arguments = parser.parse_args()

print(f"loading {arguments.rows} rows into {arguments.table}")
time.sleep(1)
print("done")
