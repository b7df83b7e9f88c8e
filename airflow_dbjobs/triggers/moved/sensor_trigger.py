"""The class path that release 0.1.0 stored for deferred tasks."""

from airflow_dbjobs.triggers.condition import DatabricksSensorTrigger

__all__ = ["DatabricksSensorTrigger"]
