"""The operations of the APIs: functions from a request context to a JSON object."""
