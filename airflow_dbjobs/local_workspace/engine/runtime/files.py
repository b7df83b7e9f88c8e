"""`dbutils.fs`: DBFS and volumes are folders in the workspace's root."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, NamedTuple

from airflow_dbjobs.local_workspace.state.paths import PlaceError, is_listed, place_of, with_top

from .errors import NotSupportedError
from .paths import full_path, local_path
from .utility import Utility

if TYPE_CHECKING:
    from pathlib import Path

_MISSING = "java.io.FileNotFoundException: No such file or directory"


class FileInfo(NamedTuple):
    """An item of `dbutils.fs.ls`."""

    path: str
    name: str
    size: int
    modificationTime: int

    def isDir(self) -> bool:
        """Return whether this is a folder."""
        return self.name.endswith("/")

    def isFile(self) -> bool:
        """Return whether this is a file."""
        return not self.isDir()


class MountInfo(NamedTuple):
    """An item of `dbutils.fs.mounts`."""

    mountPoint: str
    source: str
    encryptionType: str = ""


class FileSystem(Utility):
    """`dbutils.fs`: a path without a scheme is in DBFS, in a volume or in the workspace's files."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def ls(self, path: str = "/") -> list[FileInfo]:
        """Return what a folder has, or the file itself."""
        place = self._existing(path)
        if place.is_dir():
            # Without links that lead nowhere.
            items = [item for item in sorted(place.iterdir()) if item.exists() and is_listed(self._root, item)]
            return [_info(item, f"{full_path(path).rstrip('/')}/{item.name}") for item in items]
        return [_info(place, full_path(path))]

    def head(self, file: str, maxBytes: int = 65536) -> str:
        """Return the beginning of a file."""
        with self._existing(file).open("rb") as content:
            return content.read(maxBytes).decode(errors="replace")

    def put(self, file: str, contents: str, overwrite: bool = False) -> bool:
        """Write text to a file."""
        place = self._place(file)
        if place.exists() and not overwrite:
            raise FileExistsError(f"{file} already exists; pass overwrite=True")
        with_top(self._root, place.parent).mkdir(parents=True, exist_ok=True)
        print(f"Wrote {place.write_bytes(contents.encode())} bytes.")
        return True

    def mkdirs(self, dir: str) -> bool:
        """Create a folder and those above it."""
        with_top(self._root, self._place(dir)).mkdir(parents=True, exist_ok=True)
        return True

    def rm(self, dir: str, recurse: bool = False) -> bool:
        """Delete a file or folder; return whether there was one."""
        place = self._place(dir)
        if place.is_dir():
            if self._root.resolve().is_relative_to(place.resolve()):
                raise OSError(f"{dir} is not deleted: the root folder of the local workspace is {self._root}")
            if not recurse and any(place.iterdir()):
                raise OSError(f"{dir} is a folder that is not empty; pass recurse=True")
            shutil.rmtree(place)
            return True
        found = place.exists()
        place.unlink(missing_ok=True)
        return found

    def cp(self, source: str, dest: str, recurse: bool = False) -> bool:
        """Copy a file, into a folder if there is one at `dest`; a folder with all it has with `recurse`."""
        origin, target = self._existing(source), self._place(dest)
        if origin.is_dir():
            if not recurse:
                raise OSError(f"{source} is a folder; pass recurse=True")
            if target.resolve().is_relative_to(origin.resolve()):
                raise OSError(f"{source} cannot be copied into itself: {dest}")
            shutil.copytree(origin, with_top(self._root, target), dirs_exist_ok=True)
            return True
        if target.is_dir() or dest.endswith("/"):
            target /= origin.name
        with_top(self._root, target.parent).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin, target)
        return True

    def mv(self, source: str, dest: str, recurse: bool = False) -> bool:
        """Move a file or, with `recurse`, a folder."""
        self.cp(source, dest, recurse)
        return self.rm(source, recurse)

    def mount(self, source: str, mount_point: str, *_: object, **__: object) -> bool:
        """Create the folder that stands for a mount. Nothing of `source` comes into it."""
        place = self._place(mount_point)
        with_top(self._root, place).mkdir(parents=True, exist_ok=True)
        print(f"The local workspace does not mount {source}: {mount_point} is the folder {place}.")
        return True

    updateMount = mount

    def unmount(self, mount_point: str) -> bool:
        """Delete the folder that stands for a mount if it is empty."""
        place = self._existing(mount_point)
        if not any(place.iterdir()):
            place.rmdir()
        return True

    def mounts(self) -> list[MountInfo]:
        """Return the folders that stand for mounts."""
        folder = place_of(self._root, "dbfs:/mnt")
        return [MountInfo(f"/mnt/{item.name}", str(item)) for item in sorted(folder.glob("*")) if item.is_dir()]

    def refreshMounts(self) -> bool:
        """Do nothing: mounts are folders."""
        return True

    def _place(self, path: str) -> Path:
        place = local_path(self._root, path)
        if place is None:
            raise NotSupportedError(f"the local workspace has no access to {path}: it has no cloud storage")
        return place

    def _existing(self, path: str) -> Path:
        try:
            place = self._place(path)
        except PlaceError as error:
            raise FileNotFoundError(f"{_MISSING} {path}: {error}") from None
        if full_path(path) == "dbfs:/":
            # DBFS itself always exists.
            with_top(self._root, place)
        if not place.exists():
            raise FileNotFoundError(f"{_MISSING} {path}; the local workspace looked for {place}")
        return place


def _info(place: Path, path: str) -> FileInfo:
    status = place.stat()
    folder = "/" if place.is_dir() else ""
    size = 0 if folder else status.st_size
    return FileInfo(path + folder, place.name + folder, size, int(status.st_mtime * 1000))
