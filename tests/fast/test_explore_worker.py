"""A worker of a campaign refuses what would be another campaign."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdrv.core.context import Context
from kdrv.core.errors import SetupError, WorkFailed
from kdrv.explore import worker
from kdrv.explore.subject import Identity
from kdrv.explore.worker import Post, make_post
from kdrv.sim.host import HostCpu

IDENTITY = Identity("d", "edu", "7.3", "c")


@pytest.fixture
def operations(tmp_path: Path) -> Path:
    path = tmp_path / "operations.py"
    path.write_text("one")
    return path


@pytest.fixture
def post(tmp_path: Path, operations: Path) -> Post:
    subject: Any = SimpleNamespace(
        project=SimpleNamespace(root=tmp_path),
        files=(operations,),
        stands={False: None},
        identity=IDENTITY,
    )
    request: Any = object()
    shown: Any = object()
    return make_post(Context(), subject, shown, request)


def made_ready(post: Post, monkeypatch: pytest.MonkeyPatch, identity: Identity = IDENTITY) -> Any:
    made = SimpleNamespace(identity=identity)
    monkeypatch.setattr(worker, "prepare", lambda *_, **__: made)
    with ExitStack() as stack:
        return worker._made_ready(Context(), post, stack)


def test_the_same_driver_on_the_same_kind_of_machine_is_taken(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert made_ready(post, monkeypatch).identity == IDENTITY


def test_another_driver_is_refused(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(IDENTITY, driver="e")
    with pytest.raises(SetupError, match="another driver or kernel: edu e"):
        made_ready(post, monkeypatch, other)


def test_another_processor_is_refused(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = replace(post, host=HostCpu("Zilog Z80", "0"))
    with pytest.raises(SetupError, match="another processor") as raised:
        made_ready(elsewhere, monkeypatch)
    assert "Zilog Z80" in raised.value.expected


def test_other_operations_are_refused(
    post: Post, operations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations.write_text("two")
    with pytest.raises(SetupError, match="another text of operations"):
        made_ready(post, monkeypatch)


def test_a_machine_without_the_project_is_refused(
    post: Post, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    post.subject.project.root = tmp_path / "nowhere"  # type: ignore[misc]
    with pytest.raises(SetupError, match="there is no .*/nowhere"):
        made_ready(post, monkeypatch)


def test_what_fails_on_a_worker_tells_where(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise WorkFailed("it does not build", detail=["line 1"])

    monkeypatch.setattr(worker, "prepare", fails)
    with pytest.raises(WorkFailed) as raised, ExitStack() as stack:
        worker._made_ready(Context(), post, stack)
    assert raised.value.detail[0].startswith("on the worker ")
    assert raised.value.detail[1] == "line 1"
