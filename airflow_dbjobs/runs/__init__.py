"""One task, one run: launch it once, wait for it, repair it, explain how it ended. Knows no Airflow."""
