"""The operators: what a task's log tells, in both modes."""

from __future__ import annotations

import re

import pytest
from airflow_context import FAST, Scene, mask_secret, submit

from airflow_dbjobs.airflow_compat import AirflowFailException
from airflow_dbjobs.errors import RunFailed, UserCodeFailed
from airflow_dbjobs.sensors import DatabricksRunSensor

# The lines about runs, without times and pages.
STORY = re.compile(r"(?:Launched run|Run|Task(?! Runner)) .*")


@pytest.fixture
def log_text(caplog, capfd):
    """Return what returns the lines that were logged about the run and its tasks."""
    caplog.set_level("INFO")

    def lines() -> list[str]:
        found = [STORY.search(line) for line in capfd.readouterr().out.splitlines()]
        lines = [re.sub(r"\s*\[airflow.*", "", match.group()) for match in found if match] or caplog.messages
        lines = [re.sub(r"\d{15}", "N", re.sub(r" after [\d.]+ s", "", line)) for line in lines]
        return [re.sub(r":? http\S*", "", line).rstrip() for line in lines if STORY.match(line)]

    return lines


def two_tasks(scene: Scene, code: str = "pass") -> list[dict]:
    return [
        {"task_key": "load", "notebook_task": scene.notebook(code)},
        {"task_key": "report", "notebook_task": scene.notebook(name="b"), "depends_on": [{"task_key": "load"}]},
    ]


def in_order(lines: list[str], *needed: str) -> bool:
    rest = iter(lines)
    return all(line in rest for line in needed)


class TestTaskLog:
    def test_has_a_line_per_step_and_none_per_poll(self, scene, log_text, deferrable):
        tasks = two_tasks(scene)
        polls = iter(range(100))

        def open_later() -> None:
            # Each look at the run that finds it active counts.
            handle = scene.workspace.handle

            def counted(request):
                if "runs/" in request.path and next(polls, 99) == 20:
                    scene.open_gate()
                return handle(request)

            scene.workspace.handle = counted

        scene.ti.at_link = open_later
        scene.run_task(lambda: submit(tasks=tasks, deferrable=deferrable, polling_period_seconds=FAST))
        lines = log_text()
        ended = "Run N of job N ended as TERMINATED/SUCCESS; 2 tasks: 2 succeeded."
        assert in_order(lines, "Launched run N of job N", "Run N is RUNNING", ended)
        assert in_order(lines, "Task load is TERMINATED/SUCCESS", "Task report is TERMINATED/SUCCESS", ended)
        assert ("Task load is RUNNING" in lines) is not deferrable
        assert len(lines) == len(set(lines)) <= 9

    def test_has_tasks_and_summary_before_the_error(self, scene, log_text, deferrable):
        tasks = two_tasks(scene, "raise ValueError('no rows')")
        scene.ti.at_link = scene.open_gate
        with pytest.raises(UserCodeFailed):
            scene.run_task(lambda: submit(tasks=tasks, deferrable=deferrable))
        failed, not_run = "Task load is TERMINATED/FAILED", "Task report is TERMINATED/UPSTREAM_FAILED"
        ended = "Run N of job N ended as INTERNAL_ERROR/FAILED; 2 tasks: 1 failed, 1 did not run."
        lines = log_text()
        assert in_order(lines, failed, not_run, ended)

    def test_has_the_last_output_of_a_failed_python_task(self, scene, caplog, deferrable):
        caplog.set_level("INFO")
        secret = "dapi" + "0123456789abcdef" * 2
        (scene.root / "job.py").write_text(f"print('before the end, with {secret}')\nraise SystemExit(3)\n")
        task = {"python_file": "/job.py"}
        with pytest.raises(UserCodeFailed):
            scene.run_task(lambda: submit(spark_python_task=task, deferrable=deferrable))
        assert "    before the end, with ***" in caplog.text
        assert secret not in caplog.text


class TestSecrets:
    def test_known_to_airflow_are_in_no_error(self, scene, client, deferrable):
        mask_secret("the-word-of-this-test")
        scene.open_gate()
        notebook = scene.notebook("raise ValueError('it is the-word-of-this-test')")
        with pytest.raises(RunFailed, match=r"ValueError: it is [*]{3}") as error:
            scene.run_task(lambda: submit(notebook_task=notebook, deferrable=deferrable))
        assert "the-word-of-this-test" not in str(error.value)
        waiting = DatabricksRunSensor(task_id="wait", run_id=error.value.run_id, deferrable=deferrable)
        with pytest.raises(AirflowFailException, match=r"ValueError: it is [*]{3}"):
            waiting.execute(scene.context)
