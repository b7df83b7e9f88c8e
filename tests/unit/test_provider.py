"""What Airflow reads of this provider in each of its processes."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import airflow
import jsonschema
import pytest

from airflow_dbjobs.hooks import DatabricksJobsHook
from airflow_dbjobs.hooks.fields import UI_FIELD_BEHAVIOUR
from airflow_dbjobs.hooks.form import conn_fields
from airflow_dbjobs.provider import get_provider_info


def _paths() -> list[str]:
    info = get_provider_info()
    modules = [
        module for kind in ("hooks", "operators", "sensors", "triggers") for entry in info[kind]
        for module in entry["python-modules"]
    ]  # fmt: skip
    hooks = [entry["hook-class-name"] for entry in info["connection-types"]]
    decorators = [entry["class-name"] for entry in info["task-decorators"]]
    return [*modules, *hooks, *decorators, *info["extra-links"]]


class TestProviderInfo:
    def test_conforms_to_airflows_schema(self):
        schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
        jsonschema.validate(get_provider_info(), schema)

    def test_is_found_by_the_entry_point(self):
        (found,) = [
            entry for entry in entry_points(group="apache_airflow_provider") if entry.dist.name == _distribution()
        ]
        assert found.load() is get_provider_info

    def test_has_the_version_of_the_package(self):
        assert get_provider_info()["versions"] == [version(_distribution())]

    def test_is_found_by_airflow_3_3_which_looks_for_examples(self):
        assert pkgutil.resolve_name(_distribution().replace("-", "_")).__name__ == "airflow_dbjobs"

    @pytest.mark.parametrize("path", _paths())
    def test_names_only_what_exists(self, path):
        assert pkgutil.resolve_name(path)

    def test_is_cheap_to_import(self):
        code = (
            "import sys; before = set(sys.modules)\n"
            "import airflow_dbjobs.provider as provider; provider.get_provider_info()\n"
            "print(*sorted(n for n in set(sys.modules) - before if n.partition('.')[0] not in sys.stdlib_module_names))"
        )
        loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
        assert loaded == [
            "airflow_dbjobs",
            "airflow_dbjobs.hooks",
            "airflow_dbjobs.hooks.fields",
            "airflow_dbjobs.hooks.form",
            "airflow_dbjobs.provider",
        ]


class TestConnectionForm:
    def test_is_the_same_for_airflow_before_3_2(self):
        (declared,) = get_provider_info()["connection-types"]
        hook = pkgutil.resolve_name(declared["hook-class-name"])
        assert hook is DatabricksJobsHook
        assert (hook.conn_type, hook.hook_name) == (declared["connection-type"], declared["hook-name"])
        form = hook.get_ui_field_behaviour()
        assert {name.replace("_", "-"): value for name, value in form.items()} == UI_FIELD_BEHAVIOUR
        schema = json.loads(
            (Path(airflow.__file__).parent / "customized_form_field_behaviours.schema.json").read_text()
        )
        jsonschema.validate(form, schema)

    def test_is_part_of_the_info(self):
        (declared,) = get_provider_info()["connection-types"]
        assert declared["conn-fields"] == conn_fields()


def _distribution() -> str:
    return str(get_provider_info()["package-name"])
