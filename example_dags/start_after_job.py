"""Start when a run of a job has succeeded, no matter who started it, and use its parameters; needs Airflow 3."""

from datetime import UTC, datetime

from airflow.sdk import Asset, AssetWatcher, dag, task

from airflow_dbjobs.triggers import DatabricksJobRunTrigger

closing = DatabricksJobRunTrigger(job_name="monthly-closing", poll_interval=2)
closed = Asset("monthly-closing", watchers=[AssetWatcher(name="closing-ended", trigger=closing)])


@dag(schedule=[closed], start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False, tags=["databricks"])
def start_after_job():
    @task
    def report(triggering_asset_events=None):
        return [event.extra["payload"]["job_parameters"] for event in triggering_asset_events[closed]]

    report()


start_after_job()
