"""Which program is shown, and that a token is never an argument."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from actors.command.app import run_app
from actors.command.bad_input import BadInput
from actors.command.top.finding import RunningPlace, place_of, running
from actors.command.top.links import LinkRefusal, PagePlace, SocketPlace
from actors.command.top.top import try_to_open
from actors.dashboard import View, Viewport, socket_folder
from actors.dashboard.local import LocalSocket
from actors.dashboard.messages import AskedAct
from actors.dashboard.server import Dashboard
from tests.actors.dashboard.stage import looked_at

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no local sockets")
TOKEN = "o" * 20


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path_factory):
    tmp_path_factory.getbasetemp()  # It is among the temporary files as they are for all tests.
    made = Path(tempfile.mkdtemp(prefix="us-"))
    made.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(made))
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    monkeypatch.setattr(socket_folder, "TEMPORARY", made)
    yield made
    shutil.rmtree(made)


@pytest.mark.real_time
async def test_the_program_that_runs_is_found_and_of_several_one_is_to_be_named():
    pid = os.getpid()
    with pytest.raises(BadInput, match="no program that can be shown runs; start it"):
        await try_to_open(RunningPlace())
    async with looked_at("alder") as stage, LocalSocket(stage.system) as first:
        async with RunningPlace().open() as link:
            assert link.name == f"shop, pid {pid}"
        await try_to_open(place_of(str(pid), token_file=None))
        await try_to_open(place_of(str(first.path), token_file=None))
        with pytest.raises(BadInput, match="runs as process 1;"):
            await try_to_open(RunningPlace(1))
        async with LocalSocket(stage.system) as second:
            with pytest.raises(BadInput, match="several programs run; name one") as told:
                await try_to_open(RunningPlace())
            assert str(first.path) in str(told.value)
            assert str(second.path) in str(told.value)
            assert "python" in str(told.value)  # The command of each.
        assert [path for path, _ in await running()] == [first.path]


@pytest.mark.real_time
async def test_what_is_shown_goes_on_with_the_next_program():
    place = RunningPlace()
    async with looked_at("alder") as stage:
        for _ in range(2):
            async with LocalSocket(stage.system), place.open() as link:
                await anext(link.updates())


@pytest.mark.real_time
async def test_what_is_no_program_of_ours_is_an_error_in_plain_words(folder):
    with socket_folder.listening_at(folder / "odd.sock") as listening:
        listening.settimeout(0)
        with pytest.raises(BadInput, match="no answer within"):
            await try_to_open(SocketPlace(folder / "odd.sock"))
    with pytest.raises(BadInput, match="No such file"):
        await try_to_open(SocketPlace(folder / "none.sock"))


@pytest.mark.parametrize(
    ("where", "token_file", "environ", "words"),
    [
        ("http://127.0.0.1:1/#secret-token", None, {"UNDERSTUDY_TOKEN": TOKEN}, "must not have the token"),
        ("http://127.0.0.1:1/?token=secret-token", None, {"UNDERSTUDY_TOKEN": TOKEN}, "must not have the token"),
        ("http://secret-token@127.0.0.1:1/", None, {"UNDERSTUDY_TOKEN": TOKEN}, "must not have the token"),
        ("http://ops.example/secret-token", None, {"UNDERSTUDY_TOKEN": TOKEN}, "must be https"),
        ("ftp://127.0.0.1/secret-token", None, {"UNDERSTUDY_TOKEN": TOKEN}, "must be one such as"),
        ("http://127.0.0.1:99999/secret-token", None, {"UNDERSTUDY_TOKEN": TOKEN}, "must be one such as"),
        ("http://127.0.0.1:1/", None, {}, "set UNDERSTUDY_TOKEN"),
        ("http://127.0.0.1:1/", None, {"UNDERSTUDY_TOKEN": "secret-token"}, "at least 16 characters"),
        ("http://127.0.0.1:1/", None, {"UNDERSTUDY_TOKEN": "secret-token\nHost: x"}, "one line"),
        ("http://127.0.0.1:1/", "/nowhere/at/all", {"UNDERSTUDY_TOKEN": TOKEN}, "No such file"),
        (None, "token", {}, "name its URL beside it"),
    ],
)
def test_what_cannot_be_used_is_refused_without_a_part_of_the_secret(where, token_file, environ, words):
    with pytest.raises(BadInput, match=words) as refused:
        place_of(where, token_file=token_file, environ=environ)
    assert "secret-token" not in str(refused.value)


@pytest.mark.parametrize("arguments", [["http://127.0.0.1:9/#secret-token"], ["1"], ["--token-file", "x"]])
def test_bad_input_has_exit_code_2(arguments, capsys):
    pytest.importorskip("textual", reason="the extra `tui` is not installed")
    assert run_app(["top", *arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert "secret-token" not in told


def test_a_token_comes_from_a_file_or_the_environment(tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    url = "http://127.0.0.1:1/"
    for place in (
        place_of(url, token_file=str(tmp_path / "token"), environ={}),
        place_of(url, token_file=None, environ={"UNDERSTUDY_TOKEN": TOKEN}),
    ):
        assert isinstance(place, PagePlace)
        assert place._token == TOKEN


@pytest.mark.real_time
async def test_a_page_is_shown_by_its_url_with_its_token():
    async with looked_at("alder") as stage, Dashboard(stage.system, token=TOKEN, may_act=True) as page:
        with pytest.raises(BadInput, match="refuses the token"):
            await try_to_open(PagePlace(page.address, "x" * 20))
        view = View()
        async with PagePlace(page.address, TOKEN).open() as link:
            assert link.name == page.address.rstrip("/")
            await link.look_at(Viewport(most=9))
            async for update in link.updates():
                view.apply(update)
                if view.actors is not None:
                    break
            (key,) = view.providers
            assert await link.act(AskedAct(kind="isolate", subject=key)) == "isolated"
            with pytest.raises(LinkRefusal, match="no provider"):
                await link.act(AskedAct(kind="isolate", subject="nothing"))
    with pytest.raises(BadInput):
        await try_to_open(PagePlace(page.address, TOKEN))
