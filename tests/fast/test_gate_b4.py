"""A thread by its message-id: the real b4, and a server that answers like lore.kernel.org."""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kdrv.core.context import Context
from kdrv.core.errors import SetupError
from kdrv.core.process import LocalRunner
from kdrv.gate.git import open_repo
from kdrv.gate.mails import fetch, named_base, read_mails

from .gate_repo import History

COVER = "20260101120000.1-0-dev@example.org"


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(cache=tmp_path / "cache", runner=LocalRunner())


@pytest.fixture
def history(tmp_path: Path) -> History:
    made = History(tmp_path / "repo")
    for number in range(3):
        made.commit({"file": f"{number}\n"}, f"file: Say {number}\n\nIt has to be said.\n")
    return made


@pytest.fixture
def lore(
    tmp_path: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ThreadingHTTPServer]:
    """Knows one thread: two patches with a cover letter that names their base."""
    text = history.git(
        *("format-patch", "--stdout", "--cover-letter", "--thread", "--base=HEAD~2", "HEAD~2..")
    )
    first = next(line for line in text.splitlines() if line.lower().startswith("message-id:"))
    text = text.replace(first.partition("<")[2].rstrip(">"), COVER)
    thread = gzip.compress(text.replace("*** SUBJECT HERE ***", "Say more").encode())

    class Lore(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = COVER.partition("@")[0] in self.path and "t.mbox.gz" in self.path
            self.send_response(200 if known else 404)
            self.end_headers()
            if known:
                self.wfile.write(thread)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    home = tmp_path / "home"
    home.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), Lore) as server:
        where = f"http://127.0.0.1:{server.server_port}/%s"
        (home / ".gitconfig").write_text(f"[b4]\n\tmidmask = {where}\n\tlinkmask = {where}\n")
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "GIT_CONFIG_GLOBAL"):
            monkeypatch.delenv(name, raising=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.usefixtures("lore")
def test_a_thread_is_fetched_with_its_base(ctx: Context, history: History) -> None:
    sources = fetch(ctx, COVER)
    mails = read_mails(open_repo(ctx, history.path), sources)
    assert [mail.subject for mail in mails] == [
        "[PATCH 1/2] file: Say 1",
        "[PATCH 2/2] file: Say 2",
    ]
    assert "+2\n" in mails[1].diff
    assert "Link:" not in mails[1].diff  # what b4 says is no part of the patches
    assert named_base(sources) == history.git("rev-parse", "HEAD~2")


@pytest.mark.usefixtures("lore")
def test_a_thread_that_nobody_knows(ctx: Context) -> None:
    with pytest.raises(SetupError, match="b4 cannot fetch unknown@example.org") as caught:
        fetch(ctx, "unknown@example.org")
    assert "b4 am" in caught.value.reproducer
    assert any("unknown" in line or "404" in line for line in caught.value.detail)


def test_without_b4(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SetupError, match="not installed") as caught:
        fetch(ctx, COVER)
    assert caught.value.remedy == "pip install b4"
