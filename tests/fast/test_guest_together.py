"""Several things in one request, by the agent as an ordinary program here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdrv.guest.session import Guest
from kdrv.guest.together import list_small, read_files, write_and_sleep
from tests.fast.guest_fakes import SocketChannel, compile_agent, native_agent


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    program = compile_agent(tmp_path_factory.mktemp("agent"))
    if program is None:
        pytest.skip("no C compiler on this machine")
    with native_agent(program) as (sock, _):
        yield Guest(SocketChannel(sock))


def test_files_are_read_in_order(guest: Guest, tmp_path: Path) -> None:
    texts = ["one\n", "", "drei ß\n", "x" * 5000]
    paths = [str(tmp_path / str(number)) for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        Path(path).write_text(text)
    assert read_files(guest, paths) == texts
    assert read_files(guest, paths, room=3) == ["one", "", "dre", "xxx"]
    assert read_files(guest, []) == []


def test_an_absent_file_is_an_error_and_none_stays_open(guest: Guest, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.write_text("here")
    descriptors = guest.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        read_files(guest, [str(here), str(tmp_path / "absent"), str(here)])
    assert guest.listdir("/proc/self/fd") == descriptors


def test_a_directory(guest: Guest, tmp_path: Path) -> None:
    for name in ("b", "a", "ü"):
        (tmp_path / name).touch()
    assert list_small(guest, str(tmp_path)) == ["a", "b", "ü"]
    assert list_small(guest, str(tmp_path / "absent")) == []
    with pytest.raises(NotADirectoryError):
        list_small(guest, str(tmp_path / "a"))


def test_writing_opens_the_file_for_each_word(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("....")
    write_and_sleep(guest, str(path), ("ab", "c"), 0.0)
    assert path.read_text() == "cb.."
    with pytest.raises(FileNotFoundError):
        write_and_sleep(guest, str(tmp_path / "absent"), ("a",), 0.0)
    assert not os.path.lexists(tmp_path / "absent")
