"""Signing in: one ``requests.auth.AuthBase`` per scheme, and the choice among them.

``headers`` has what needs no token server. All else is a ``tokens.TokenAuth`` with a source: ``oauth``, ``federation``
(with ``kubernetes`` and ``aws``), ``azure`` or ``sdk``. Which fields of a connection belong to which scheme is data, in
``airflow_dbjobs.hooks.fields``.
"""

from airflow_dbjobs.client.auth.static import BasicAuth, BearerAuth
from airflow_dbjobs.hooks.credentials import choose_auth

__all__ = ["BasicAuth", "BearerAuth", "choose_auth"]
