"""Libraries of tasks: installed once, in an environment of their own, by the task's own process."""

from __future__ import annotations

import http.server
import threading
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest

from airflow_dbjobs.local_workspace import LocalWorkspace
from airflow_dbjobs.local_workspace.engine import libraries

from . import support
from .conftest import mounted
from .support import TOKEN, Client, eventually
from .wheels import build_wheel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHOW = {"spark_python_task": {"python_file": "/show.py"}}
TINY = {"libraries": [{"whl": "/dist/tiny-1.0-py3-none-any.whl"}]}

#: A build backend that needs no package: it makes wheels of a line that adds a folder to the import path.
BACKEND = """
import pathlib, zipfile

def build_editable(folder, *_):
    info = "tiny-2.0.dist-info/"
    files = {
        "tiny.pth": str(pathlib.Path("src").resolve()),
        info + "METADATA": "Metadata-Version: 2.1\\nName: tiny\\nVersion: 2.0\\n",
        info + "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        info + "RECORD": "",
    }
    with zipfile.ZipFile(pathlib.Path(folder, "tiny-2.0-py3-none-any.whl"), "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return "tiny-2.0-py3-none-any.whl"
"""


@pytest.fixture(autouse=True)
def files(write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program into the workspace; nothing may be downloaded."""
    # pip takes seconds, and more on a busy machine.
    monkeypatch.setattr(support, "DEADLINE", 60)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    write("show.py", "import tiny\nprint(tiny.TEXT)")


@pytest.fixture
def tiny(root: Path) -> Path:
    return build_wheel(root / "dist", "tiny", "TEXT = 'tiny 1'\n\ndef main():\n    print('main ran')\n")


def environments(root: Path) -> list[Path]:
    return [path for path in (root / ".airflow_dbjobs" / "environments").iterdir() if path.is_dir()]


def last_line(client: Client, run: dict[str, Any], key: str | None = None) -> str:
    output = client.output(run, key)
    assert run["state"]["result_state"] == "SUCCESS", output
    line: str = output["logs"].splitlines()[-1]
    return line


@pytest.mark.usefixtures("tiny")
class TestInstalled:
    def test_wheel_is_there_for_programs_of_each_kind(self, client: Client, write, notebook) -> None:
        # The packages of the server's environment are, too: pyspark will be one. As these tests run in a virtual
        # environment, they are not the system's packages.
        write("show.py", "import pytest, sys, tiny\nprint(tiny.TEXT, pytest.__file__, sys.prefix)")
        notebook("inner", "import tiny\ndbutils.notebook.exit(tiny.TEXT)")
        notebook("outer", "import tiny\ndbutils.notebook.exit(dbutils.notebook.run('inner'))")
        payloads: list[dict[str, Any]] = [
            {"task_key": "file", **SHOW},
            {"task_key": "notebook", "notebook_task": {"notebook_path": "/outer"}},
            {"task_key": "wheel", "python_wheel_task": {"package_name": "tiny", "entry_point": "main"}},
        ]
        run = client.finish(tasks=[{**payload, **TINY} for payload in payloads])
        assert run["state"]["result_state"] == "SUCCESS", run
        text, module, prefix = last_line(client, run, "file").rsplit(" ", 2)
        assert (text, module) == ("tiny 1", pytest.__file__)
        assert "/.airflow_dbjobs/environments/" in prefix
        assert client.output(run, "notebook")["notebook_output"]["result"] == "tiny 1"
        assert last_line(client, run, "wheel") == "main ran"

    def test_requirements_file(self, client: Client, write) -> None:
        write("conf/requirements.txt", "# Ours\n-r more.txt\n")
        write("conf/more.txt", "../dist/tiny-1.0-py3-none-any.whl  # ours\n")
        run = client.finish(**SHOW, libraries=[{"requirements": "/Workspace/conf/requirements.txt"}])
        assert last_line(client, run) == "tiny 1"

    def test_serverless_environment(self, client: Client, root: Path) -> None:
        dependencies = ["--no-index", f"--find-links {root / 'dist'}", "tiny>=1"]
        spec = {"environment_version": "2", "dependencies": dependencies}
        task = {"task_key": "show", "environment_key": "default", **SHOW}
        run = client.finish(tasks=[task], environments=[{"environment_key": "default", "spec": spec}])
        assert last_line(client, run) == "tiny 1"

    def test_project_in_the_workspace_follows_its_files(self, client: Client, write) -> None:
        write(
            "project/pyproject.toml", '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]'
        )
        write("project/backend.py", BACKEND)
        write("project/src/tiny.py", "TEXT = 'first'")
        environment = {"environment_key": "default", "spec": {"dependencies": ["--editable /project"]}}
        task = {"tasks": [{"task_key": "show", "environment_key": "default", **SHOW}], "environments": [environment]}
        assert last_line(client, client.finish(**task)) == "first"
        write("project/src/tiny.py", "TEXT = 'second'")
        assert last_line(client, client.finish(**task)) == "second"

    def test_package_with_its_own_index(self, client: Client, root: Path, monkeypatch) -> None:
        # It would win over the index.
        monkeypatch.delenv("PIP_NO_INDEX")
        index = root / "simple" / "tiny"
        index.mkdir(parents=True)
        wheel = root / "dist" / "tiny-1.0-py3-none-any.whl"
        (index / "index.html").write_text(f'<a href="{wheel.as_uri()}">{wheel.name}</a>')
        library = {"package": "tiny==1.0", "repo": index.parent.as_uri()}
        run = client.finish(**SHOW, libraries=[{"pypi": library}])
        assert last_line(client, run) == "tiny 1"

    def test_wheel_wins_over_the_same_version_in_the_servers_environment(self, client: Client, root, write) -> None:
        version = metadata.version("iniconfig")
        wheel = build_wheel(root / "dist", "iniconfig", "TEXT = 'from the wheel'", version=version)
        write("show.py", "import iniconfig\nprint(iniconfig.TEXT)")
        assert last_line(client, client.finish(**SHOW, libraries=[{"whl": f"/dist/{wheel.name}"}])) == "from the wheel"

    def test_library_for_another_language_is_skipped_with_a_note(self, client: Client, write) -> None:
        write("show.py", "print('ran')")
        maven = {"maven": {"coordinates": "org.jsoup:jsoup:1.7.2"}}
        run = client.finish(**SHOW, libraries=[maven])
        note, printed = client.output(run)["logs"].splitlines()
        assert note.startswith("[local workspace] Skipped, as only Python libraries can be installed here:")
        assert "org.jsoup:jsoup:1.7.2" in note
        assert printed == "ran"


class TestDependency:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("pandas==2.0  # pinned", "pandas==2.0"),
            ("tiny @ https://example.com/tiny.whl", "tiny @ https://example.com/tiny.whl"),
            ("https://example.com/tiny.zip#egg=tiny", "https://example.com/tiny.zip#egg=tiny"),
            ("--extra-index-url https://example.com/simple", "--extra-index-url https://example.com/simple"),
            ("/Workspace/lib/tiny.whl", "{root}/lib/tiny.whl"),
            ("lib/tiny.whl[more]", "{root}/lib/tiny.whl[more]"),
            ("/project/", "-e {root}/project"),
            ("./project", "-e {root}/project"),
            ("--editable=/Workspace/project", "-e {root}/project"),
            ("-e git+https://example.com/tiny.git", "-e git+https://example.com/tiny.git"),
        ],
    )
    def test_is_what_pip_understands_on_this_machine(self, root: Path, write, line: str, expected: str) -> None:
        write("lib/tiny.whl", "")
        write("project/pyproject.toml", "")
        assert libraries._lines(root, [line, "# a comment", ""]) == [expected.format(root=root)]


class TestEnvironment:
    @pytest.mark.usefixtures("tiny")
    def test_is_made_once_for_each_content_of_a_wheel(self, client: Client, root: Path) -> None:
        run = client.finish(tasks=[{"task_key": key, **SHOW, **TINY} for key in ("a", "b")])
        logs = [client.output(run, key)["logs"] for key in ("a", "b")]
        assert sorted(log.count("Installing tiny") for log in logs) == [0, 1]
        assert client.output(client.finish(**SHOW, **TINY))["logs"] == "tiny 1\n"
        build_wheel(root / "dist", "tiny", "TEXT = 'rebuilt'")
        assert last_line(client, client.finish(**SHOW, **TINY)) == "rebuilt"
        assert len(environments(root)) == 2


class TestFailure:
    def failed(self, run: dict[str, Any]) -> tuple[str, str]:
        assert run["state"]["life_cycle_state"] == "INTERNAL_ERROR"
        return run["status"]["termination_details"]["code"], run["state"]["state_message"]

    def test_is_not_the_programs_and_is_not_kept(self, client: Client, root: Path, monkeypatch, tiny: Path) -> None:
        wanted = {"libraries": [{"pypi": {"package": "tiny"}}]}
        run = client.finish(**SHOW, **wanted)
        code, message = self.failed(run)
        assert code == "LIBRARY_INSTALLATION_ERROR"
        assert message == (
            "The libraries of this task could not be installed: ERROR: No matching distribution found for tiny"
        )
        output = client.output(run)
        assert output["error"] == message
        assert "Could not find a version that satisfies the requirement tiny" in output["logs"]
        monkeypatch.setenv("PIP_FIND_LINKS", str(tiny.parent))
        assert last_line(client, client.finish(**SHOW, **wanted)) == "tiny 1"

    def test_project_that_cannot_be_built(self, client: Client, write) -> None:
        write(
            "project/pyproject.toml", '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]'
        )
        write("project/backend.py", "def build_editable(*_): 1 / 0")
        write("requirements.txt", "-e /project")
        _, message = self.failed(client.finish(**SHOW, libraries=[{"requirements": "/requirements.txt"}]))
        assert message.startswith("The libraries of this task could not be installed: ")
        assert message.endswith(" Encountered error while generating package metadata.")

    def test_missing_wheel(self, client: Client) -> None:
        code, message = self.failed(client.finish(**SHOW, **TINY))
        assert code == "LIBRARY_INSTALLATION_ERROR"
        assert message.startswith(
            "A library cannot be installed: '/dist/tiny-1.0-py3-none-any.whl' was not found under"
        )

    def test_unknown_environment(self, client: Client) -> None:
        task = {"task_key": "show", "environment_key": "absent", **SHOW}
        run = client.finish(tasks=[task], environments=[{"environment_key": "default", "spec": {}}])
        state = run["tasks"][0]["state"]
        assert state["life_cycle_state"] == "INTERNAL_ERROR"
        assert state["state_message"] == (
            "Field 'environment_key' names 'absent', which is not in 'environments'; there: 'default'."
        )


class Index(http.server.ThreadingHTTPServer):
    """A package index that holds its answers back until a test releases it."""

    def __init__(self, folder: Path) -> None:
        self.released = threading.Event()
        self.asked = threading.Event()
        released, asked = self.released, self.asked

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=str(folder))

            def do_GET(self) -> None:
                asked.set()
                released.wait()
                super().do_GET()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, *_: object) -> None:
        """Ignore that pip was killed while it waited for an answer."""


@pytest.fixture
def index(root: Path, tiny: Path) -> Iterator[Index]:
    (root / "dist" / "tiny").mkdir()
    tiny.rename(root / "dist" / "tiny" / tiny.name)
    server = Index(root / "dist")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


class TestStop:
    def test_during_the_installation(self, client: Client, root: Path, index: Index, monkeypatch) -> None:
        monkeypatch.delenv("PIP_NO_INDEX")
        wanted = [{"pypi": {"package": "tiny", "repo": f"http://user:secret@127.0.0.1:{index.server_port}"}}]
        first, second = (client.submit(**SHOW, libraries=wanted) for _ in range(2))
        eventually(index.asked.is_set)
        for run_id in (first, second):
            eventually(lambda run_id=run_id: self.message(client, run_id) == "Installing libraries.")
        # The second one waits for the first.
        for run_id in (second, first):
            client.post("runs/cancel", run_id=run_id)
            assert client.wait_for(run_id)["state"]["result_state"] == "CANCELED"
        assert not [folder for folder in environments(root) if (folder / "complete").exists()]
        index.released.set()
        run_id = client.submit(**SHOW, libraries=wanted)
        run = client.wait_for(run_id)
        assert last_line(client, run) == "tiny 1"
        assert self.message(client, run_id) == ""
        assert "secret" not in client.output(run)["logs"]

    def test_of_the_server_does_not_end_the_installation(self, root: Path, index: Index, monkeypatch) -> None:
        monkeypatch.delenv("PIP_NO_INDEX")
        library = {"pypi": {"package": "tiny", "repo": f"http://127.0.0.1:{index.server_port}"}}
        first = LocalWorkspace(root, token=TOKEN)
        first.start()
        run_id = mounted(first).submit(**SHOW, libraries=[library])
        eventually(index.asked.is_set)
        first.close(leave_running=True)
        with LocalWorkspace(root, token=TOKEN) as second:
            client = mounted(second)
            eventually(lambda: self.message(client, run_id) == "Installing libraries.")
            index.released.set()
            assert last_line(client, client.wait_for(run_id)) == "tiny 1"
        # Only its parent, which is this process, can see its end.
        first._executor.kill([])

    def message(self, client: Client, run_id: int) -> str:
        text: str = client.get("runs/get", run_id=run_id)["tasks"][0]["state"]["state_message"]
        return text
