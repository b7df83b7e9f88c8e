"""An Airflow provider for the Databricks Jobs API."""

__version__ = "0.1.0"
