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
COMPARED = ("DatabricksSubmitRunOperator", "DatabricksRunNowOperator", "DatabricksCreateJobsOperator")


def main() -> None:
    warnings.simplefilter("ignore")
    classes = public_classes("operators") | public_classes("sensors")
    hook = import_module(f"{PACKAGE}.hooks.databricks").DatabricksHook
    names = {
        "version": version("apache-airflow-providers-databricks"),
        "operators": {
            name: {"parameters": parameters(classes[name]), "templated": sorted(classes[name].template_fields)}
            for name in COMPARED
        },
        "other classes": sorted(set(classes) - set(COMPARED)),
        "hook methods": sorted(name for name in vars(hook) if not name.startswith("_") and callable(vars(hook)[name])),
    }
    target = Path(__file__).parent.parent / "support" / "official_names.json"
    target.write_text(json.dumps(names, indent=1) + "\n")


def public_classes(kind: str) -> dict[str, Any]:
    """Return the operators, sensors and task groups that are defined in the modules of a package, by name."""
    package = import_module(f"{PACKAGE}.{kind}")
    found = {}
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        for name, defined in vars(import_module(info.name)).items():
            own = inspect.isclass(defined) and defined.__module__ == info.name and not inspect.isabstract(defined)
            if own and name.startswith("Databricks") and not name.endswith(("Link", "Base", "Mixin", "BaseOperator")):
                found[name] = defined
    return found


def parameters(operator: type) -> list[str]:
    """Return what the operator and its own bases take by name, without what every operator of Airflow takes."""
    taken: set[str] = set()
    for base in operator.__mro__:
        if base.__module__.startswith(PACKAGE) and "__init__" in vars(base):
            taken |= {
                name
                for name, parameter in inspect.signature(base.__init__).parameters.items()
                if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
            }
    return sorted(taken)


if __name__ == "__main__":
    main()
