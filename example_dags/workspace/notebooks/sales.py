# Databricks notebook source
# MAGIC %md
# MAGIC Adds up the sales of one region. The export of `emea` comes late: it is there only when the run is repaired.

# COMMAND ----------

import json

day = dbutils.widgets.get("day")
region = dbutils.widgets.get("region")
repairs = int(dbutils.widgets.get("repairs"))

# COMMAND ----------

if region == "emea" and repairs == 0:
    raise FileNotFoundError(f"There is no export of {region} for {day} yet.")

# COMMAND ----------

dbutils.notebook.exit(json.dumps({"region": region, "day": day, "sales": 1000}))
