"""What a member of a workflow group decides, from the attempt, the note about it, and its own try."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from described_runs import described, state

from airflow_dbjobs.client.models import Outcome, Run
from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.runs.workflow_repair import dependents, is_being_repaired, repair_request
from airflow_dbjobs.runs.workflow_task import (
    Note,
    Stage,
    Step,
    TaskEndCondition,
    failed_upstream,
    find_task,
    is_due,
    next_step,
)

ATTEMPT = 70
SUCCESSES = frozenset({Outcome.SUCCESS, Outcome.PARTIAL_SUCCESS})
ACTIVE, ENDING = ("RUNNING", None), ("TERMINATING", None)
SUCCESS, FAILED, CANCELED = ("TERMINATED", "SUCCESS"), ("TERMINATED", "FAILED"), ("TERMINATED", "CANCELED")
SKIPPED, EXCLUDED = ("SKIPPED", None), ("TERMINATED", "EXCLUDED")
UPSTREAM = ("TERMINATED", "UPSTREAM_FAILED")
MINE = Note(ATTEMPT, epoch=2, try_number=3)
EARLIER = replace(MINE, try_number=2)
CLEARED = replace(MINE, epoch=1, try_number=2)
OTHER_ATTEMPT = replace(EARLIER, attempt=60, stage=Stage.WANTS_REPAIR)


def group_run(task: tuple[str, str | None], *, over: bool = True, **fields: Any) -> Run:
    run = ("TERMINATED", "FAILED") if over else ("RUNNING", None)
    tasks = [{"task_key": "load", "run_id": ATTEMPT, "max_retries": 0, **state(*task)}]
    return described(*run, tasks=tasks, **fields)


def decide(task: tuple[str, str | None], note: Note | None, *, over: bool = True) -> tuple[Step, Note | None]:
    run = group_run(task, over=over)
    return next_step(run, run.tasks[0], note, epoch=MINE.epoch, try_number=MINE.try_number, successes=SUCCESSES)


class TestActiveAttempt:
    @pytest.mark.parametrize("note", [None, OTHER_ATTEMPT])
    @pytest.mark.parametrize("task", [ACTIVE, ENDING])
    def test_becomes_that_of_the_first_try_that_sees_it(self, task: Any, note: Note | None) -> None:
        assert decide(task, note, over=False) == (Step.WAIT_FOR_TASK, MINE)

    def test_is_waited_for_by_its_own_try(self) -> None:
        assert decide(ACTIVE, MINE, over=False) == (Step.WAIT_FOR_TASK, None)

    def test_is_joined_by_a_later_try(self) -> None:
        assert decide(ACTIVE, EARLIER, over=False) == (Step.WAIT_FOR_TASK, replace(MINE, joined=True))

    def test_that_is_ending_stays_that_of_the_earlier_try(self) -> None:
        assert decide(ENDING, EARLIER, over=False) == (Step.WAIT_FOR_TASK, None)

    @pytest.mark.parametrize("stage", Stage)
    def test_from_before_a_clear_is_cancelled(self, stage: Stage) -> None:
        wanted = replace(MINE, stage=Stage.WANTS_REPAIR)
        assert decide(ACTIVE, replace(CLEARED, stage=stage), over=False) == (Step.CANCEL, wanted)
        assert decide(ENDING, replace(CLEARED, stage=stage), over=False) == (Step.WAIT_FOR_TASK, wanted)

    def test_that_a_lost_try_was_about_to_cancel_is_cancelled(self) -> None:
        note = replace(EARLIER, stage=Stage.WANTS_REPAIR)
        assert decide(ACTIVE, note, over=False) == (Step.CANCEL, replace(MINE, stage=Stage.WANTS_REPAIR))

    def test_may_be_followed_by_another_one_of_databricks(self) -> None:
        run = group_run(FAILED, over=False)
        run.tasks[0].raw["max_retries"] = 1
        step, _ = next_step(run, run.tasks[0], None, epoch=2, try_number=3, successes=SUCCESSES)
        assert step is Step.WAIT_FOR_TASK


class TestFinishedAttempt:
    @pytest.mark.parametrize("task", [SUCCESS, FAILED, CANCELED, SKIPPED, EXCLUDED, UPSTREAM])
    @pytest.mark.parametrize("note", [None, OTHER_ATTEMPT, MINE])
    @pytest.mark.parametrize("over", [True, False])
    def test_ends_the_first_try_that_sees_its_end(self, task: Any, note: Note | None, over: bool) -> None:
        assert decide(task, note, over=over) == (Step.END, replace(MINE, stage=Stage.ENDED))

    @pytest.mark.parametrize("task", [FAILED, CANCELED])
    @pytest.mark.parametrize(("over", "step"), [(True, Step.REPAIR), (False, Step.WAIT_FOR_RUN)])
    @pytest.mark.parametrize("stage", Stage)
    def test_that_failed_ends_no_second_try(self, task: Any, over: bool, step: Step, stage: Stage) -> None:
        note = replace(EARLIER, stage=stage)
        assert decide(task, note, over=over) == (step, replace(MINE, stage=Stage.WANTS_REPAIR))

    @pytest.mark.parametrize("task", [SUCCESS, SKIPPED, EXCLUDED, UPSTREAM])
    @pytest.mark.parametrize("stage", [Stage.WAITING, Stage.ENDED])
    def test_that_did_not_fail_ends_the_try_after_a_lost_one(self, task: Any, stage: Stage) -> None:
        assert decide(task, replace(EARLIER, stage=stage)) == (Step.END, replace(MINE, stage=Stage.ENDED))

    @pytest.mark.parametrize("task", [SUCCESS, FAILED, CANCELED, SKIPPED, EXCLUDED, UPSTREAM])
    @pytest.mark.parametrize(("over", "step"), [(True, Step.REPAIR), (False, Step.WAIT_FOR_RUN)])
    @pytest.mark.parametrize("stage", Stage)
    def test_ends_no_try_after_a_clear(self, task: Any, over: bool, step: Step, stage: Stage) -> None:
        note = replace(CLEARED, stage=stage)
        assert decide(task, note, over=over) == (step, replace(MINE, stage=Stage.WANTS_REPAIR))

    @pytest.mark.parametrize("task", [SUCCESS, FAILED, UPSTREAM])
    @pytest.mark.parametrize("by", [MINE, EARLIER])
    def test_that_a_try_wants_repaired_ends_none(self, task: Any, by: Note) -> None:
        assert decide(task, replace(by, stage=Stage.WANTS_REPAIR))[0] is Step.REPAIR

    def test_that_was_joined_and_then_cancelled_is_repaired(self) -> None:
        joined = replace(MINE, joined=True)
        assert decide(CANCELED, joined)[0] is Step.REPAIR
        assert decide(FAILED, joined)[0] is Step.END
        assert decide(CANCELED, MINE)[0] is Step.END

    def test_ends_a_try_that_does_not_accept_a_partial_success(self) -> None:
        run = group_run(("TERMINATED", "SUCCESS_WITH_FAILURES"))
        only = frozenset({Outcome.SUCCESS})
        step, _ = next_step(run, run.tasks[0], EARLIER, epoch=2, try_number=3, successes=only)
        assert step is Step.REPAIR


class TestAllCombinations:
    TASKS = (ACTIVE, ENDING, SUCCESS, FAILED, CANCELED, SKIPPED, EXCLUDED, UPSTREAM)
    NOTES = (
        None,
        *(
            replace(note, stage=stage, joined=joined)
            for note, stage, joined in itertools.product((MINE, EARLIER, CLEARED, OTHER_ATTEMPT), Stage, (True, False))
        ),
    )

    @pytest.mark.parametrize("task", TASKS)
    @pytest.mark.parametrize("over", [True, False])
    def test_a_note_that_is_left_gives_the_same_step_again(self, task: Any, over: bool) -> None:
        """So a worker that is lost after it has left its note changes nothing for the same try."""
        for note in self.NOTES:
            step, left = decide(task, note, over=over)
            assert decide(task, left or note, over=over) == (step, None), note

    @pytest.mark.parametrize("task", TASKS)
    def test_only_a_finished_run_is_repaired(self, task: Any) -> None:
        for note in self.NOTES:
            assert decide(task, note, over=False)[0] is not Step.REPAIR

    @pytest.mark.parametrize("task", TASKS)
    def test_no_try_ends_by_what_ended_or_was_replaced_before(self, task: Any) -> None:
        for note in self.NOTES:
            if note and note.attempt == ATTEMPT and (note.epoch != MINE.epoch or note.stage is Stage.WANTS_REPAIR):
                assert decide(task, note)[0] is not Step.END, note


class TestNote:
    @pytest.mark.parametrize("note", [MINE, replace(CLEARED, stage=Stage.WANTS_REPAIR, joined=True)])
    def test_survives_a_stay_in_the_database(self, note: Note) -> None:
        assert Note.from_json(note.to_json()) == note

    @pytest.mark.parametrize("plain", [None, "", 5, [], {}, {**MINE.to_json(), "stage": "new"}, {"attempt": 1}])
    def test_of_another_kind_is_none(self, plain: Any) -> None:
        assert Note.from_json(plain) is None


ENDED = replace(EARLIER, stage=Stage.ENDED)
WANTS = replace(EARLIER, stage=Stage.WANTS_REPAIR)
WAITS_FOR_NEXT_TRY = ["cleared", "scheduled", "queued", "up_for_retry", "restarting"]


class TestSibling:
    @staticmethod
    def due(task: Any, note: Note | None, airflow_state: str) -> bool | None:
        return is_due(group_run(task).tasks[0], note, airflow_state, SUCCESSES)

    @pytest.mark.parametrize("airflow_state", ["success", "failed", "skipped", "upstream_failed", "removed", "gone"])
    @pytest.mark.parametrize("note", [None, ENDED, WANTS])
    def test_that_has_ended_is_not_due(self, airflow_state: str, note: Note | None) -> None:
        assert self.due(FAILED, note, airflow_state) is False

    @pytest.mark.parametrize("airflow_state", ["running", "deferred", *WAITS_FOR_NEXT_TRY])
    @pytest.mark.parametrize("task", [SUCCESS, FAILED, UPSTREAM])
    def test_that_says_so_is_due(self, airflow_state: str, task: Any) -> None:
        assert self.due(task, WANTS, airflow_state) is True

    @pytest.mark.parametrize("airflow_state", WAITS_FOR_NEXT_TRY)
    def test_that_failed_and_starts_again_is_due(self, airflow_state: str) -> None:
        assert self.due(FAILED, ENDED, airflow_state) is True

    @pytest.mark.parametrize("airflow_state", ["running", "deferred", *WAITS_FOR_NEXT_TRY])
    @pytest.mark.parametrize("note", [None, EARLIER, OTHER_ATTEMPT])
    def test_that_may_not_have_seen_its_end_is_undecided(self, airflow_state: str, note: Note | None) -> None:
        assert self.due(FAILED, note, airflow_state) is None

    def test_that_may_just_be_ending_is_undecided(self) -> None:
        assert self.due(FAILED, ENDED, "running") is None
        # It may have been cleared, or its worker was lost after the success.
        assert self.due(SUCCESS, ENDED, "queued") is None

    @pytest.mark.parametrize("note", [None, ENDED])
    def test_that_did_not_run_is_repaired_with_what_is_before_it(self, note: Note | None) -> None:
        assert self.due(UPSTREAM, note, "cleared") is False


def chain(*edges: tuple[str, str], **states: tuple[str, str | None]) -> Run:
    tasks = [
        {
            "task_key": key,
            "run_id": number,
            "depends_on": [{"task_key": before} for before, after in edges if after == key],
            **state(*ended),
        }
        for number, (key, ended) in enumerate(states.items(), 70)
    ]
    return described("TERMINATED", "FAILED", tasks=tasks)


class TestDependencies:
    run = chain(("a", "b"), ("b", "c"), ("x", "c"), a=FAILED, b=UPSTREAM, c=UPSTREAM, x=SUCCESS, other=FAILED)

    def test_dependents_are_direct_and_indirect(self) -> None:
        assert dependents(self.run, ["a"]) == {"b", "c"}
        assert dependents(self.run, ["x", "other"]) == {"c"}
        assert dependents(self.run, []) == set()

    def test_the_first_failure_of_a_chain_is_named(self) -> None:
        assert failed_upstream(self.run, self.run.tasks[2]) == ["a"]

    def test_a_task_that_is_missing_is_an_error(self) -> None:
        with pytest.raises(ConfigurationError, match=r"no task 'new'.*added to the DAG.*a, b, c, other, x"):
            find_task(self.run, "new")
        assert find_task(described("PENDING"), "new") is None


class TestRepairRequest:
    def test_names_each_task_once_and_compares_the_latest_repair(self) -> None:
        history = [{"type": "ORIGINAL", "start_time": 1}, {"type": "REPAIR", "id": 5, "start_time": 2}]
        run = described("TERMINATED", "FAILED", repair_history=history)
        assert repair_request(run, ["b", "a", "b"]) == {
            "run_id": 7,
            "rerun_tasks": ["a", "b"],
            "rerun_dependent_tasks": True,
            "latest_repair_id": 5,
        }

    def test_sends_the_values_of_job_parameters_again(self) -> None:
        parameters = [{"name": "day", "default": "", "value": "monday"}, {"name": "unused", "default": "x"}]
        request = repair_request(described("TERMINATED", "FAILED", job_parameters=parameters), ["a"])
        assert request["job_parameters"] == {"day": "monday"}
        assert request["latest_repair_id"] is None

    @pytest.mark.parametrize(("life", "expected"), [("RUNNING", True), ("TERMINATED", False), ("NEW", False)])
    def test_a_repair_may_be_active_before_the_run_shows_it(self, life: str, expected: bool) -> None:
        history = [{"type": "REPAIR", "id": 5, "start_time": 2, **state(life)}]
        assert is_being_repaired(described("TERMINATED", "FAILED", repair_history=history)) is expected
        assert is_being_repaired(described("TERMINATED", "FAILED")) is False


class TestCondition:
    def check(self, run: Run, attempt: int | None = None) -> bool | None:
        return TaskEndCondition(chosen=7, task_key="load", attempt=attempt).check_run(run).verdict

    def test_is_met_by_the_end_of_the_task(self) -> None:
        assert self.check(group_run(ACTIVE, over=False)) is None
        assert self.check(group_run(FAILED, over=False)) is True

    def test_is_met_for_a_repair_by_the_end_of_the_run_or_another_attempt(self) -> None:
        assert self.check(group_run(FAILED, over=False), ATTEMPT) is None
        assert self.check(group_run(FAILED), ATTEMPT) is True
        assert self.check(group_run(ACTIVE, over=False), 60) is True

    def test_is_met_by_the_end_of_a_run_without_tasks(self) -> None:
        assert self.check(described("QUEUED")) is None
        assert self.check(described("SKIPPED")) is True
