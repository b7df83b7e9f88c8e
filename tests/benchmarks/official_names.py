"""Write down the official provider's names, with which `tests/docs/test_migration.py` compares docs/migrating.md.

Run it where the official provider is installed (`make official-names`), when another release of it is compared with.
"""

from __future__ import annotations

import inspect
import json
import pkgutil
import warnings
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGE = "airflow.providers.databricks"
COMPARED = (
    "DatabricksSubmitRunOperator", "DatabricksRunNowOperator", "DatabricksCreateJobsOperator",
    "DatabricksNotebookOperator", "DatabricksTaskOperator", "DatabricksWorkflowTaskGroup",
)  # fmt: skip
NOT_COMPARED = ("Link", "Base", "Mixin", "BaseOperator", "Error")


def main() -> None:
    warnings.simplefilter("ignore")
    classes = {
        name: found
        for kind in ("operators", "sensors", "hooks", "triggers")
        for name, found in public_classes(kind).items()
    }
    hook = import_module(f"{PACKAGE}.hooks.databricks").DatabricksHook
    names = {
        "version": version("apache-airflow-providers-databricks"),
        "operators": {
            name: {
                "parameters": parameters(classes[name]),
                "templated": sorted(getattr(classes[name], "template_fields", ())),
                "methods": methods(classes[name]),
            }
            for name in COMPARED
        },
        "other classes": sorted(set(classes) - set(COMPARED)),
        "hook methods": sorted(name for name in vars(hook) if not name.startswith("_") and callable(vars(hook)[name])),
    }
    target = Path(__file__).parent.parent / "support" / "official_names.json"
    target.write_text(json.dumps(names, indent=1) + "\n")


def public_classes(kind: str) -> dict[str, Any]:
    """Return the public classes that are defined in the modules of a package, by name."""
    package = import_module(f"{PACKAGE}.{kind}")
    found = {}
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        for name, defined in vars(import_module(info.name)).items():
            own = inspect.isclass(defined) and defined.__module__ == info.name and not inspect.isabstract(defined)
            if own and name.startswith("Databricks") and not name.endswith(NOT_COMPARED):
                found[name] = defined
    return found


def parameters(operator: type) -> list[str]:
    """Return what the operator and its own bases take by name, without what every operator of Airflow takes."""
    taken: set[str] = set()
    for base in own_bases(operator):
        if "__init__" in vars(base):
            taken |= {
                name
                for name, parameter in inspect.signature(base.__init__).parameters.items()
                if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
            }
    return sorted(taken)


def methods(operator: type) -> list[str]:
    """Return the methods and properties of the operator and its own bases, which a subclass can override."""
    found = {name: member for base in own_bases(operator) for name, member in vars(base).items()}
    return sorted(
        name
        for name, member in found.items()
        if not name.startswith("__") and (inspect.isroutine(member) or hasattr(member, "__get__"))
    )


def own_bases(operator: type) -> list[type]:
    """Return the operator and those of its bases that are not for all operators."""
    return [
        base for base in operator.__mro__ if base.__module__.startswith(PACKAGE) or base.__name__ == "ResumableJobMixin"
    ]


if __name__ == "__main__":
    main()
