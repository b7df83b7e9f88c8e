"""A pytest plugin: DAGs run against a scripted workspace in the test's process, in time that leaps over waits."""
