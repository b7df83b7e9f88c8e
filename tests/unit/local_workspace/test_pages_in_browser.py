"""The pages in a real browser: they follow what happens, and fit on phones.

`make test-browser` runs this and leaves screenshots in `.screenshots`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .support import TOKEN, Client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

CHROMIUM = os.environ.get("CHROMIUM", "chromium")
SCREENSHOTS = Path(__file__).parents[3] / ".screenshots"
#: Prints more than a page shows of a log, and then keeps printing until the file exists whose path it is given.
FOLLOWED = """
import pathlib, sys, time
for number in range(20_000):
    print("line", number)
number = 0
while not pathlib.Path(sys.argv[1]).exists():
    number += 1
    print("more", number)
    time.sleep(0.05)
"""
#: The line in the middle of the log's view.
IN_VIEW = """log => {
    const {left, top, height} = log.getBoundingClientRect();
    const {startContainer, startOffset} = document.caretRangeFromPoint(left + 20, top + height / 2);
    const {data} = startContainer;
    return data.slice(data.lastIndexOf("\\n", startOffset - 1) + 1).split("\\n")[0];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import expect, sync_playwright

    if (path := shutil.which(CHROMIUM)) is None:
        pytest.exit(f"There is no {CHROMIUM}. Install Debian's package chromium, or set CHROMIUM to a path.", 1)
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=path) as browser:
        yield browser


@pytest.fixture
def server(root: Path) -> Iterator[tuple[Client, str]]:
    """Return a client of a server process, and the URL of its front page."""
    command = [sys.executable, "-m", "airflow_dbjobs.local_workspace", "--root", str(root), "--port", "0"]
    with subprocess.Popen([*command, "--token", TOKEN], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = iter(process.stdout.readline, "")
        front = next(found[0] for line in lines if (found := re.search(r"http://\S+\?key=\S+", line)))
        yield Client(front.partition("/?")[0]), front
        process.terminate()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Return a tab, whose script must not fail, nor do what the policy forbids."""
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if "Policy" in message.text else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        assert errors == []


@pytest.fixture
def stop(root: Path) -> Iterator[Path]:
    file = root / "stop"
    yield file
    # The program of a test that failed must not print for ever.
    file.touch()


@pytest.fixture
def followed(server: tuple[Client, str], write, stop: Path) -> str:
    """Return the URL of the page of a run whose program prints until `stop` exists."""
    client, _ = server
    write("followed.py", FOLLOWED)
    run_id = client.submit(spark_python_task={"python_file": "/followed.py", "parameters": [str(stop)]})
    url: str = client.get("runs/get", run_id=run_id)["run_page_url"]
    return url


def last_number(page: Page) -> int:
    return int(page.locator(".log").inner_text().split()[-1])


class TestActiveRun:
    def test_is_followed_without_loading_the_page_again(self, page: Page, followed: str, stop: Path) -> None:
        from playwright.sync_api import expect

        page.goto(followed)
        page.evaluate("window.loaded = 'once'")
        state, log = page.locator(".facts .state"), page.locator(".log")
        expect(log).to_contain_text("more 9\n")
        assert log.evaluate("log => log.scrollTop") == 0, "the end is in view"
        # A reader who scrolls up keeps what they read, though the page shows only the end of this log.
        log.evaluate("log => log.scrollTop = -3000")
        read, number = log.evaluate(IN_VIEW), last_number(page)
        assert read.startswith("line ")
        page.wait_for_function(
            "least => document.querySelector('.log').textContent.includes(`more ${least}\\n`)", arg=number + 20
        )
        assert log.evaluate(IN_VIEW) == read
        stop.touch()
        expect(state).to_have_text("SUCCESS")
        expect(page).to_have_title(re.compile("^✓ Run"))
        assert page.locator("[data-live]").count() == 0
        assert page.evaluate("window.loaded") == "once"

    def test_is_followed_without_scripts(self, browser: Browser, followed: str, stop: Path) -> None:
        from playwright.sync_api import expect

        with browser.new_context(java_script_enabled=False) as context:
            page = context.new_page()
            page.goto(followed)
            expect(page.locator(".facts .state")).to_have_text("RUNNING")
            stop.touch()
            expect(page.locator(".facts .state")).to_have_text("SUCCESS")

    def test_says_that_the_server_is_gone_until_it_is_back(self, page: Page, followed: str, stop: Path) -> None:
        from playwright.sync_api import expect

        page.goto(followed)
        expect(page.locator("#lost")).to_be_hidden()
        page.route("**/*", lambda route: route.fulfill(status=500, body="{}"))
        expect(page.locator("#lost")).to_be_visible()
        stop.touch()
        page.unroute_all()
        expect(page.locator("#lost")).to_be_hidden()
        expect(page.locator(".facts .state")).to_have_text("SUCCESS")


class TestFrontPage:
    def test_shows_new_runs_and_keeps_the_focus(self, page: Page, server: tuple[Client, str]) -> None:
        from playwright.sync_api import expect

        client, front = server
        old = client.finish(run_name="Old", spark_python_task={"python_file": "/missing.py"})
        page.goto(front)
        page.get_by_role("link", name=str(old["run_id"])).focus()
        client.finish(run_name="New", spark_python_task={"python_file": "/missing.py"})
        expect(page.locator("tbody tr")).to_have_count(2)
        expect(page.locator("tbody tr").first).to_contain_text("New")
        expect(page.get_by_role("link", name=str(old["run_id"]))).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_pages_fit(browser: Browser, server: tuple[Client, str], width: int, scheme: str) -> None:
    client, front = server
    long = "long_" * 20
    tasks = [
        {"task_key": "if", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}},
        {"task_key": long, "depends_on": [{"task_key": "if", "outcome": "true"}], "max_retries": 1},
        {"task_key": "no", "depends_on": [{"task_key": "if", "outcome": "false"}]},
        {"task_key": "end", "depends_on": [{"task_key": long}, {"task_key": "no"}], "run_if": "ALL_DONE"},
    ]
    for task in tasks[1:]:
        task["spark_python_task"] = {"python_file": "/missing.py", "parameters": ["x" * 500]}
    job_id = client.post("create", name=f"שלום <b> {long}", tasks=tasks)["job_id"]
    run = client.wait_for(client.post("run-now", job_id=job_id)["run_id"])
    pages = {
        "front": front,
        "job": front.replace("/?", f"/jobs/{job_id}?"),
        "run": run["run_page_url"],
        "task": run["tasks"][1]["run_page_url"],
    }
    with browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme) as context:
        page = context.new_page()
        for name, url in pages.items():
            page.goto(url)
            page.screenshot(path=SCREENSHOTS / f"{name} {width} {scheme}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
