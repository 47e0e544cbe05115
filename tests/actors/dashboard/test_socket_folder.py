"""Sockets that the owner alone can reach: their folder, those of ended programs, and who is at the other end."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from actors.dashboard import socket_folder
from actors.dashboard.socket_folder import MAX_PATH, folders, is_of_our_user, listening_at, new_socket, sockets

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no local sockets")
ENDED = 2**22 + 1
"""A number that no process has: the kernel gives none above 2 ** 22."""


@pytest.fixture
def runtime(monkeypatch, tmp_path_factory):
    """A runtime folder with a short path, which `tmp_path` has not, and no other temporary files."""
    tmp_path_factory.getbasetemp()  # It is among the temporary files as they are for all tests.
    made = Path(tempfile.mkdtemp(prefix="us-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(made / "run"))
    (made / "run").mkdir(mode=0o700)
    (made / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made / "tmp"))
    monkeypatch.setattr(socket_folder, "TEMPORARY", made / "tmp")
    yield made / "run"
    shutil.rmtree(made)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_the_folder_and_the_socket_are_their_owners_alone(runtime):
    before = os.umask(0o000)
    try:
        listening, path = new_socket()
        assert os.umask(0o000) == 0o000
    finally:
        os.umask(before)
    with listening:
        assert path.parent == runtime / "understudy"
        assert mode(path.parent) == 0o700
        assert mode(path) & 0o077 == 0
        assert len(os.fsencode(path)) < MAX_PATH
        assert sockets() == [path]


@pytest.mark.parametrize(
    "trouble", ["open to others", "a link", "a file", "too long", "not there", "not ours alone", "unset"]
)
def test_without_a_private_runtime_folder_a_fresh_one_is_made_and_found(runtime, monkeypatch, trouble, tmp_path):
    folder = runtime / "understudy"
    if trouble == "open to others":
        folder.mkdir()
        folder.chmod(0o750)
    elif trouble == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    elif trouble == "a file":
        folder.write_text("")
    elif trouble == "too long":
        long = runtime / ("x" * 90)
        long.mkdir(mode=0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    elif trouble == "not ours alone":
        runtime.chmod(0o755)
    elif trouble == "not there":
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime / "gone" / "gone"))
    else:
        monkeypatch.delenv("XDG_RUNTIME_DIR")
    listening, path = new_socket()
    with listening:
        assert path.parent.parent == Path(tempfile.gettempdir())
        assert mode(path.parent) == 0o700
        assert sockets() == [path]
        again, second = new_socket()
        with again:
            assert second.parent == path.parent
            assert second.name == f"{os.getpid()}-2.sock"


@pytest.mark.usefixtures("runtime")
def test_a_folder_that_others_may_write_to_is_neither_used_nor_looked_into():
    squatted = Path(tempfile.gettempdir()) / f"understudy-{os.getuid()}-squatted"
    squatted.mkdir()
    squatted.chmod(0o777)
    assert squatted not in folders()
    if os.getuid() == 0:
        squatted.chmod(0o700)
        os.chown(squatted, 12_345, 12_345)
        assert squatted not in folders()


def test_a_stale_socket_is_replaced_and_a_live_one_is_refused(runtime):
    folder = runtime / "understudy"
    folder.mkdir(mode=0o700)
    path = folder / "1.sock"
    listening_at(path).close()
    assert path.is_socket()
    with listening_at(path):
        with pytest.raises(OSError, match="another program listens there"):
            listening_at(path)
        assert path.is_socket()
    (folder / "2.sock").write_text("a file of someone")
    with pytest.raises(OSError, match="in use"):
        listening_at(folder / "2.sock")
    assert (folder / "2.sock").read_text() == "a file of someone"
    with pytest.raises(OSError, match="shorter than 100 bytes"):
        listening_at(folder / f"{'3' * 100}.sock")


def test_sockets_of_killed_programs_are_removed_and_nothing_else(runtime):
    folder = runtime / "understudy"
    folder.mkdir(mode=0o700)
    listening_at(folder / f"{ENDED}.sock").close()
    listening_at(folder / f"{os.getpid()}.sock").close()  # As of one that is about to listen.
    (folder / "notes.txt").write_text("")
    assert sockets() == [folder / f"{os.getpid()}.sock"]
    assert sorted(one.name for one in folder.iterdir()) == sorted([f"{os.getpid()}.sock", "notes.txt"])


def test_the_user_at_the_other_end_is_known(monkeypatch):
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert is_of_our_user(ours)
        monkeypatch.setattr(os, "getuid", lambda: 12_345)
        assert not is_of_our_user(ours)
        monkeypatch.setattr(socket_folder, "peer_uid", lambda _: None)
        assert not is_of_our_user(ours)
