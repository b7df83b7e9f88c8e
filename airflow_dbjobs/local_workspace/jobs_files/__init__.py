"""Jobs from files: a Databricks bundle, or the settings of jobs as JSON or YAML."""
