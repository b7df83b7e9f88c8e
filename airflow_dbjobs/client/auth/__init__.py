"""Authentication: one ``requests.auth.AuthBase`` for each scheme.

The schemes in ``static`` need no token server. Every other scheme is a ``tokens.TokenAuth`` with a source of tokens:
``databricks`` (with ``kubernetes`` and ``aws``), ``azure`` or ``sdk``. None of them knows the fields of a connection.
"""

from airflow_dbjobs.client.auth.static import BasicAuth, BearerAuth

__all__ = ["BasicAuth", "BearerAuth"]
