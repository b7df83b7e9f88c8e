# Databricks notebook source
# MAGIC %md
# MAGIC Counts the words of a text and returns the counts.

# COMMAND ----------

import json
from collections import Counter

dbutils.widgets.text("text", "to be or not to be")

# COMMAND ----------

words = dbutils.widgets.get("text").split()
counts = Counter(words)
print(f"{len(words)} words, {len(counts)} of them different")

# COMMAND ----------

dbutils.notebook.exit(json.dumps({"words": len(words), "most_common": counts.most_common(1)[0][0]}))
