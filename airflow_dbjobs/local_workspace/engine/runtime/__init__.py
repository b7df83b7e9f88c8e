"""The part of the Databricks Runtime that programs find: `dbutils`, `display`, magics, and modules to import.

Everything here runs in the subprocess of a task. It imports the standard library only, and what few tasks need only
when they use it, as every task should start fast.
"""
