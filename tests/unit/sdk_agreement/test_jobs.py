"""Jobs and their permissions: our client and the databricks-sdk get the same answers, and change the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from databricks.sdk.service import jobs as sdk

from airflow_dbjobs.client.workspace import API_VERSIONS

from .made import FULL, HEALTH, SMALL, TASK, large
from .scene import NOT_OF_LISTED_JOBS, differences, in_each

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_dbjobs.payloads import Job

    from .scene import Scene

#: What 2.0 tells otherwise than 2.2, which the SDK speaks.
OF_2_0 = {"+run_as", "-run_as_user_name", "+settings.health.rules[].operator", "-settings.health.rules[].op"}
#: What was told in pages is whole for both; only the SDK leaves the mark of a first page on it.
OF_A_FIRST_PAGE = {"-has_more"}


def ours(jobs: Iterable[Job]) -> list[dict[str, Any]]:
    return list(jobs)


def theirs(jobs: Iterable[sdk.BaseJob]) -> list[dict[str, Any]]:
    return [job.as_dict() for job in jobs]


class TestReadJob:
    @pytest.mark.parametrize("version", API_VERSIONS)
    def test_returns_the_same_job(self, scene: Scene, version: str) -> None:
        job_id = scene.ours.create_job({**FULL, "health": HEALTH})
        found = scene.speaking(version).get_job(job_id)
        expected = OF_2_0 if version == "2.0" else set()
        assert differences(found, scene.theirs.get(job_id).as_dict()) == expected

    def test_returns_a_large_job_completely(self, scene: Scene) -> None:
        job_id = scene.ours.create_job(large(250))
        told = scene.ours.get_job(job_id)
        assert [len(told["settings"][name]) for name in ("tasks", "parameters", "job_clusters")] == [250, 120, 3]
        assert differences(told, scene.theirs.get(job_id).as_dict()) == OF_A_FIRST_PAGE


class TestListJobs:
    def test_returns_the_same_jobs_over_several_pages(self, scene: Scene) -> None:
        for number in range(105):
            scene.ours.create_job({**SMALL, "name": f"of {number}"})
        job_ids = [job.job_id for job in scene.theirs.list()]
        assert len(job_ids) >= 105
        # 2.0 tells of tasks without being asked, so that there only the order is compared.
        assert [job["job_id"] for job in scene.speaking("2.0").list_jobs()] == job_ids
        for version in ("2.1", "2.2"):
            listed = ours(scene.speaking(version).list_jobs())
            assert differences(listed, theirs(scene.theirs.list())) == in_each(NOT_OF_LISTED_JOBS)

    @pytest.mark.parametrize("version", API_VERSIONS)
    @pytest.mark.parametrize("name", ["A Name", "a name", "a nam"])
    def test_selects_the_same_jobs_by_name(self, scene: Scene, version: str, name: str) -> None:
        for given in ("A Name", "a name", "another name"):
            scene.ours.create_job({**SMALL, "name": given})
        found = [job["job_id"] for job in scene.speaking(version).list_jobs(name=name)]
        assert found == [job.job_id for job in scene.theirs.list(name=name)]
        assert bool(found) == (name.lower() == "a name")

    def test_returns_all_tasks_of_expanded_jobs(self, scene: Scene) -> None:
        for settings in (large(130), SMALL):
            scene.ours.create_job({**settings, "name": "expanded"})
        listed = ours(scene.ours.list_jobs(name="expanded", expand_tasks=True))
        assert [len(job["settings"]["tasks"]) for job in listed] == [1, 130]
        found = differences(listed, theirs(scene.theirs.list(name="expanded", expand_tasks=True)))
        assert found == in_each(NOT_OF_LISTED_JOBS)


class TestChangeJob:
    @pytest.mark.parametrize("version", API_VERSIONS)
    def test_creates_the_same_job(self, scene: Scene, version: str) -> None:
        made = scene.speaking(version).create_job(FULL), scene.their_job(FULL)
        first, second = map(scene.job, made)
        assert first == second
        assert len(first["settings"]["tasks"]) == 3

    @pytest.mark.parametrize("version", API_VERSIONS)
    def test_replaces_settings_equally(self, scene: Scene, version: str) -> None:
        mine, other = (scene.ours.create_job(FULL) for _ in range(2))
        scene.speaking(version).reset_job(mine, SMALL)
        scene.theirs.reset(other, sdk.JobSettings.from_dict(SMALL))
        assert scene.job(mine) == scene.job(other)
        assert "schedule" not in scene.job(mine)["settings"]

    @pytest.mark.parametrize("version", API_VERSIONS)
    @pytest.mark.parametrize(
        ("new_settings", "fields_to_remove"),
        [
            ({"name": "renamed", "tasks": [{"task_key": "check", **TASK, "run_if": "ALL_DONE"}]}, None),
            (None, ["schedule", "tasks/break", "email_notifications"]),
            ({"timeout_seconds": 7, "tags": {"other": "b"}}, ["description"]),
            ({"timeout_seconds": 0}, []),
        ],
    )
    def test_updates_settings_equally(
        self, scene: Scene, version: str, new_settings: dict[str, Any] | None, fields_to_remove: list[str] | None
    ) -> None:
        mine, other = (scene.ours.create_job(FULL) for _ in range(2))
        before = scene.job(mine)
        scene.speaking(version).update_job(mine, new_settings, fields_to_remove)
        their_settings = sdk.JobSettings.from_dict(new_settings) if new_settings else None
        scene.theirs.update(other, new_settings=their_settings, fields_to_remove=fields_to_remove)
        assert scene.job(mine) == scene.job(other) != before

    @pytest.mark.parametrize("version", API_VERSIONS)
    def test_deletes_a_job_equally(self, scene: Scene, version: str) -> None:
        made = [scene.ours.create_job({**SMALL, "name": "to be deleted"}) for _ in range(3)]
        scene.speaking(version).delete_job(made[0])
        scene.theirs.delete(made[1])
        # Once more is no error to either.
        scene.speaking(version).delete_job(made[1])
        scene.theirs.delete(made[0])
        assert [job.job_id for job in scene.theirs.list(name="to be deleted")] == [made[2]]
        scene.theirs.delete(made[2])

    @pytest.mark.parametrize("version", API_VERSIONS)
    def test_reads_and_changes_permissions_equally(self, scene: Scene, version: str) -> None:
        client = scene.speaking(version)
        mine, other = scene.ours.create_job(SMALL), scene.ours.create_job(SMALL)
        levels = {"permission_levels": client.get_permission_levels(mine)}
        assert levels == scene.theirs.get_permission_levels(str(mine)).as_dict()
        owner = {"user_name": "owner@b.example", "permission_level": "IS_OWNER"}
        viewers = {"group_name": "viewers", "permission_level": "CAN_VIEW"}
        robot = {"service_principal_name": "robot", "permission_level": "CAN_MANAGE_RUN"}
        for ours_do, theirs_do, grants in (
            (client.set_permissions, scene.theirs.set_permissions, [owner, viewers]),
            (client.update_permissions, scene.theirs.update_permissions, [robot]),
            (
                client.update_permissions,
                scene.theirs.update_permissions,
                [{**viewers, "permission_level": "CAN_MANAGE"}],
            ),
            (client.set_permissions, scene.theirs.set_permissions, [owner]),
        ):
            told = ours_do(mine, grants)
            their_grants = [sdk.JobAccessControlRequest.from_dict(grant) for grant in grants]
            their_told = theirs_do(str(other), access_control_list=their_grants).as_dict()
            # The object_id tells the two jobs from each other.
            assert differences(told, their_told) == {"object_id"}
            for job_id, answer in ((mine, told), (other, their_told)):
                assert client.get_permissions(job_id) == scene.theirs.get_permissions(str(job_id)).as_dict()
                assert scene.theirs.get_permissions(str(job_id)).as_dict() == answer
