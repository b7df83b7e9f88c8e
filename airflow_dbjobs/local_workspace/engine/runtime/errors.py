"""What the names that Databricks provides raise."""

from __future__ import annotations

from typing import Any


class NotebookExit(BaseException):
    """`dbutils.notebook.exit` was called. Not an Exception, so that the user's `except Exception` does not catch it."""


class NotSupportedError(NotImplementedError):
    """The local workspace does not have this feature of Databricks."""

    # Tracebacks show the module of a class; users do not know this one.
    __module__ = "dbutils"


class InputWidgetNotDefinedError(KeyError):
    """A notebook read a widget that is not defined and has no parameter."""

    __module__ = "dbutils"

    def __str__(self) -> str:
        return str(self.args[0])


class NotebookRunError(RuntimeError):
    """A notebook started by `dbutils.notebook.run` failed or timed out."""

    __module__ = "dbutils"


class Missing:
    """Stands for what only the cloud has: any use raises NotSupportedError."""

    def __init__(self, name: str, remedy: str = "") -> None:
        self._name = name
        self._remedy = remedy

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            # Python looks for these when it inspects or copies an object.
            raise AttributeError(name)
        raise NotSupportedError(f"the local workspace has no {self._name}.{name}{self._remedy}")

    def __call__(self, *_: object, **__: object) -> Any:
        """Raise NotSupportedError."""
        raise NotSupportedError(f"the local workspace has no {self._name}{self._remedy}")
