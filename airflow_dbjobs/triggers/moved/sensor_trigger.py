"""The class path by which tasks that release 0.1.0 deferred are stored."""

from airflow_dbjobs.triggers.condition import DatabricksSensorTrigger

__all__ = ["DatabricksSensorTrigger"]
