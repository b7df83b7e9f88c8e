"""The workspace over HTTP: a server, an in-process transport, the routes of the API, and authentication."""
