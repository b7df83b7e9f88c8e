"""Signing in: one ``requests.auth.AuthBase`` per scheme, and the choice among them.

``headers`` has what needs no token server. All else is a ``tokens.TokenAuth`` with a source: ``oauth``, ``federation``
(with ``kubernetes`` and ``aws``), ``azure`` or ``sdk``. Which fields of a connection belong to which scheme is data, in
``airflow_dbjobs.fields``.
"""

from airflow_dbjobs.auth.choice import choose_auth
from airflow_dbjobs.auth.headers import BasicAuth, BearerAuth

__all__ = ["BasicAuth", "BearerAuth", "choose_auth"]
