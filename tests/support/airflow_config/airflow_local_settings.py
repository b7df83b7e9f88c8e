"""What Airflow imports in the tests before all else: of the versions of its execution API, it offers the newest only.

Each process that serves this API makes the routes of all its versions at the first request. Airflow 3.3 needs six
seconds for that, and all clients in the tests are of the same release.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec

# Nothing of this module becomes a setting of Airflow's.
__all__: list[str] = []

# The newest alone would not do: a route that moved lately has to be there in an older version.
_VERSIONS = 3


class _NewestVersionOnly(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, _: Any = None) -> ModuleSpec | None:
        if name != "airflow.api_fastapi.execution_api.versions":
            return None
        spec = PathFinder.find_spec(name, path)
        loader: Any = spec and spec.loader
        execute = loader.exec_module

        def execute_and_reduce(module: Any) -> None:
            import cadwyn

            def bundle(head: Any, *versions: Any) -> Any:
                *newest, (oldest, *_) = versions[:_VERSIONS]
                return VersionBundle(head, *(Version(*version) for version in newest), Version(oldest))

            Version, VersionBundle = cadwyn.Version, cadwyn.VersionBundle  # noqa: N806 (they are classes)
            with mock.patch.multiple(cadwyn, Version=lambda *parts: parts, VersionBundle=bundle):
                execute(module)

        loader.exec_module = execute_and_reduce
        return spec


sys.meta_path.insert(0, _NewestVersionOnly())
