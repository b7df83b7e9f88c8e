"""Workflow groups: a task group that is one Databricks job, and how its members run."""

from airflow_dbjobs.operators.workflow.group import DatabricksWorkflowTaskGroup

__all__ = ["DatabricksWorkflowTaskGroup"]
