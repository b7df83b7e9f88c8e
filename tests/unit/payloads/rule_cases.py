"""One passing and one failing case, or more, for each rule."""

from __future__ import annotations

from .request_cases import REQUEST_CASES
from .resource_cases import RESOURCE_CASES
from .task_cases import TASK_CASES

CASES = [*REQUEST_CASES, *TASK_CASES, *RESOURCE_CASES]
