"""Virtual environments with the libraries of tasks: made by the first task that needs one, and used by later ones.

Runs in the process of a task, so that the server does not wait, and a stop of the task stops pip. Imports the standard
library only.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import site
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .task_files import INSTALLING, fail

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What the lines with an error begin with: pip's own, and those about a package that cannot be built.
_ERRORS = ("ERROR: ", "\N{MULTIPLICATION SIGN} ")
_SCRIPT = Path(__file__).with_name("task_process.py")


def enter(folder: Path, libraries: dict[str, Any]) -> None:
    """Continue in the environment with the libraries of a task; return if there is nothing to install.

    If they cannot be installed, the task ends.
    """
    for note in libraries["notes"]:
        _say(note)
    if not libraries["installs"]:
        return
    try:
        environment = _environment(libraries, folder / INSTALLING)
    except (OSError, InstallationError) as error:
        fail(folder, "LIBRARY_INSTALLATION_ERROR", f"The libraries of this task could not be installed: {error}")
    binaries = environment / "bin"
    os.environ["VIRTUAL_ENV"] = str(environment)
    os.environ["PATH"] = f"{binaries}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    os.execv(binaries / "python", [str(binaries / "python"), "-P", str(_SCRIPT), str(folder)])


class InstallationError(Exception):
    """pip, or what it needs, failed."""


def _environment(libraries: dict[str, Any], installing: Path) -> Path:
    """Return the environment with these libraries, which is made if needed."""
    cache = Path(libraries["cache"])
    cache.mkdir(exist_ok=True)
    environment = cache / _key(libraries["installs"])
    # Exists once all is installed.
    complete = environment / "complete"
    if complete.exists():
        return environment
    installing.touch()
    with environment.with_suffix(".lock").open("w") as lock:
        # Of tasks that need the same libraries at the same time, one installs them.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            # What a killed task has left.
            shutil.rmtree(environment, ignore_errors=True)
            try:
                _install(environment, libraries["installs"], lock.fileno())
            except InstallationError:
                shutil.rmtree(environment, ignore_errors=True)
                raise
            complete.touch()
    installing.unlink()
    return environment


def _key(installs: list[list[str]]) -> str:
    """Return a name for an environment: the same for the same libraries, files of the same content and this Python."""
    digest = hashlib.sha256(json.dumps([sys.version, _site_folders(), installs]).encode())
    for file in _files(installs):
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:32]


def _files(installs: list[list[str]]) -> Iterator[Path]:
    """Return the files that are installed, without the extras of their packages."""
    return (Path(line.partition("[")[0]) for lines in installs for line in lines if line.startswith("/"))


def _install(environment: Path, installs: list[list[str]], lock: int) -> None:
    _say(f"Installing {', '.join(_shown(line) for lines in installs for line in lines)}")
    _run([sys.executable, "-P", "-m", "venv", "--without-pip", str(environment)], lock)
    packages = next(environment.glob("lib/python*/site-packages"))
    # The packages of the server's environment are there as well, after the task's own. `--system-site-packages` would
    # be those of the Python that the server's environment was made from.
    added = [f"import site; site.addsitedir({folder!r})\n" for folder in _site_folders()]
    (packages / "server_environment.pth").write_text("".join(added))
    install = _installer(environment / "bin" / "python")
    if files := [str(file) for file in _files(installs) if _is_installed(file)]:
        # Else pip would keep what the server has, if the version is the same.
        _run([*install, "--no-deps", "--force-reinstall", *files], lock)
    for number, lines in enumerate(installs):
        requirements = environment / f"requirements-{number}.txt"
        requirements.write_text("\n".join(lines))
        _run([*install, "-r", str(requirements)], lock)


def _shown(line: str) -> str:
    """Return a line of a requirements file for the log, where pip hides passwords, too."""
    return Path(line).name if line.startswith("/") else re.sub(r"//[^/\s]*@", "//****@", line)


def _installer(python: Path) -> list[str]:
    """Return the command that installs into the environment of an interpreter.

    It is the pip of the server's environment, which takes packages for installed that are there, or uv.
    """
    if importlib.util.find_spec("pip"):
        # Conflicts with other packages of the server do not concern the task.
        return [str(python), "-P", "-m", "pip", "install", "--no-warn-conflicts", "--progress-bar=off"]
    if uv := shutil.which("uv"):
        # Environments that uv makes have no pip.
        return [uv, "pip", "install", "--python", str(python)]
    raise InstallationError("the local workspace runs in an environment without pip, and there is no uv on the PATH")


def _is_installed(file: Path) -> bool:
    """Return whether the server's environment has some version of the package in a file."""
    try:
        metadata.distribution(re.split(r"-\d", file.name)[0])
    except metadata.PackageNotFoundError:
        return False
    return True


def _site_folders() -> list[str]:
    user_folder = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [*site.getsitepackages(), *user_folder]


def _run(command: list[str], lock: int) -> None:
    """Run a command with its output in the log. It inherits the lock, which others get after its end only."""
    error = last = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", pass_fds=(lock,)
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)  # noqa: T201 - what the program prints is its log
            last = line.strip() or last
            # pip's error may be followed by advice, and its own failure by a traceback.
            if last.startswith(_ERRORS) and last != "ERROR: Exception:":
                error = last
    if process.returncode:
        raise InstallationError(error or last or f"{' '.join(command)} ended with code {process.returncode}")


def _say(text: str) -> None:
    print(f"[local workspace] {text}", flush=True)  # noqa: T201 - as above
