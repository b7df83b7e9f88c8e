"""What all parts of `dbutils` have."""

from __future__ import annotations


class Utility:
    """A part of `dbutils`."""

    def help(self, method: str = "") -> None:
        """Print what this part has, or what one of its methods does."""
        # Imported here, as few notebooks need it, and every task should start fast.
        import inspect

        for name in [method] if method else sorted(name for name in dir(self) if not name.startswith("_")):
            found = getattr(self, name)
            signature = inspect.signature(found) if callable(found) else ""
            print(f"{name}{signature}: {(inspect.getdoc(found) or '').partition(chr(10))[0]}")
