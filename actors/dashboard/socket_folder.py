"""Sockets in a folder of their owner alone, by which the programs of one user of a machine find each other.

The folder is `$XDG_RUNTIME_DIR/understudy`, for the XDG Base Directory Specification keeps that for a user's sockets.
If there is none, it is a fresh one among the temporary files, whose name no other user could have taken beforehand.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import struct
import sys
import tempfile
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

MAX_PATH = 100
"""Bytes that the path of a socket stays below: `sun_path` has 104 on macOS and 108 on Linux."""
TEMPORARY = Path("/tmp")  # noqa: S108 - what is found there is checked, and what is made has a new name.
"""Where temporary files are if the path to those of the environment is too long."""
BACKLOG = 20
CONNECT_SECONDS = 1.0
NAME = re.compile(r"(\d+)(?:-\d+)?\.sock")
LONGEST_NAME = len("4194304-99.sock")
LOCAL_PEERCRED = 1
"""The option of macOS and the BSDs that tells `struct xucred`: its version, the peer's uid, and its groups."""


@contextmanager
def owner_only() -> Generator[None]:
    """Make files that the owner alone may use; the umask is the process's, so it is set for few system calls."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def is_private(folder: Path) -> bool:
    """Tell whether this is a folder, and no link to one, that our user owns and no other may look into."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


def is_short(folder: Path) -> bool:
    """Tell whether the paths of the sockets in a folder are short enough."""
    return len(os.fsencode(folder)) + 1 + LONGEST_NAME < MAX_PATH


def runtime_folder() -> Path | None:
    """Return the folder for sockets below `$XDG_RUNTIME_DIR`, which need not be there yet.

    None if that is not our user's own, as for root in the environment of another user.
    """
    stated = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    return stated / "understudy" if stated.is_absolute() and is_private(stated) else None


def temporary_folders() -> list[Path]:
    """Return the private folders for sockets among the temporary files, the oldest first."""
    roots = dict.fromkeys((Path(tempfile.gettempdir()), TEMPORARY))
    found = [one for root in roots for one in root.glob(f"understudy-{os.getuid()}-*") if is_private(one)]
    return sorted(found, key=lambda one: one.lstat().st_mtime)


def folders() -> list[Path]:
    """Return the private folders in which there may be sockets."""
    stated = runtime_folder()
    return [*([stated] if stated is not None and is_private(stated) else []), *temporary_folders()]


def folder_for_sockets() -> Path:
    """Return a private folder for a new socket, and make it if there is none. Raises OSError if it cannot be made."""
    stated = runtime_folder()
    if stated is not None and is_short(stated):
        with suppress(OSError), owner_only():  # There is another place.
            stated.mkdir(mode=0o700, exist_ok=True)
        if is_private(stated):
            return stated
    for folder in temporary_folders():
        if is_short(folder):
            return folder
    root = tempfile.gettempdir()
    prefix = f"understudy-{os.getuid()}-"
    is_root_short = is_short(Path(root, f"{prefix}{'x' * 8}"))
    return Path(tempfile.mkdtemp(prefix=prefix, dir=root if is_root_short else TEMPORARY))


def is_live(path: Path) -> bool:
    """Tell whether a program listens at a socket: one whose program has ended refuses connections."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connecting:
        connecting.settimeout(CONNECT_SECONDS)
        try:
            connecting.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # As of one that has too many connections to take another.
    return True


def listening_at(path: Path) -> socket.socket:
    """Return a socket that listens at a path, in place of a stale one.

    Raises OSError for a path that is too long, at which a program listens, or at which there is anything but a socket.
    """
    if len(os.fsencode(path)) >= MAX_PATH:
        raise OSError(errno.ENAMETOOLONG, f"the path of a socket must be shorter than {MAX_PATH} bytes", str(path))
    if path.is_socket():
        if is_live(path):
            raise OSError(errno.EADDRINUSE, "another program listens there", str(path))
        path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with owner_only():
            listening.bind(str(path))
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def new_socket() -> tuple[socket.socket, Path]:
    """Return a socket that listens in the owner's folder, named by this process, and its path. Raises OSError."""
    folder, pid = folder_for_sockets(), os.getpid()
    for number in count(1):
        path = folder / (f"{pid}.sock" if number == 1 else f"{pid}-{number}.sock")
        try:
            return listening_at(path), path
        except OSError as error:
            if error.errno != errno.EADDRINUSE or number == 99:
                raise
    raise AssertionError


def sockets() -> list[Path]:
    """Return the sockets in the owner's folders, and remove those that killed programs have left."""
    found: list[Path] = []
    for folder in folders():
        for path in sorted(folder.iterdir()):
            named = NAME.fullmatch(path.name)
            if named is None or not path.is_socket():
                continue
            if not is_live(path) and not is_process(int(named[1])):
                path.unlink(missing_ok=True)
            else:
                found.append(path)
    return found


def is_process(pid: int) -> bool:
    """Tell whether there is a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # It is of another user.
    return True


def peer_uid(connected: socket.socket) -> int | None:
    """Return the user at the other end of a local socket; None if the system does not tell."""
    if sys.platform == "linux":
        told = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return struct.unpack("3i", told)[1]
    if sys.platform == "darwin" or "bsd" in sys.platform:
        told = connected.getsockopt(0, LOCAL_PEERCRED, struct.calcsize("2i"))
        return struct.unpack("2i", told)[1]
    return None


def is_of_our_user(connected: socket.socket) -> bool:
    """Tell whether the other end of a local socket is a process of our user."""
    try:
        return peer_uid(connected) == os.getuid()
    except OSError:
        return False
