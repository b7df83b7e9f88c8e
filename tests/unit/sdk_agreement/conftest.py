"""What the tests of the agreement with the databricks-sdk share: one workspace, on a socket, for each module."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from .scene import Scene, open_scene

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with pytest.MonkeyPatch.context() as patch:
        # A developer's own profile must not reach the SDK, nor the workspace be looked for behind a proxy.
        for name in [name for name in os.environ if name.startswith("DATABRICKS_")]:
            patch.delenv(name)
        patch.setenv("no_proxy", "127.0.0.1")
        with open_scene(tmp_path_factory.mktemp("workspace")) as opened:
            yield opened
