"""The pytest plugin: fixtures for a machine, a guest and the driver; verdicts from the console.

``kdrv test`` runs pytest with everything built before; plain ``pytest`` in a project works too,
and then builds when the first fixture asks.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kdrv.core.errors import KdrvError

if TYPE_CHECKING:
    from kdrv.guest.session import Guest
    from kdrv.machine.contract import Machine
    from kdrv.testing.driver import Driver
    from kdrv.testing.hall import Hall

HALL = pytest.StashKey["Hall"]()
CLEANUP = pytest.StashKey[contextlib.ExitStack]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """What ``kdrv test`` has options for, for runs of plain pytest."""
    group = parser.getgroup("kdrv")
    group.addoption("--kdrv-world", default="qemu", choices=("qemu", "sim"), help="where to boot")
    group.addoption("--kdrv-debug", action="store_true", help="boot the debug kernel")
    group.addoption("--kdrv-seed", type=int, default=0, help="the simulator's seed")
    group.addoption("--kdrv-profile", default="calm", help="the simulator's faults")


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    config.addinivalue_line("markers", "fresh: boot a machine of its own for this test")
    config.addinivalue_line("markers", "params(text): load the driver with these parameters")
    config.stash[CLEANUP] = contextlib.ExitStack()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End every machine."""
    if CLEANUP in config.stash:
        config.stash[CLEANUP].close()


def hall_of(config: pytest.Config) -> Hall:
    """The run's machines; built now from the project at pytest's root if nobody did before."""
    if HALL not in config.stash:
        from kdrv.core.context import Context
        from kdrv.core.project import find_project, load_project
        from kdrv.testing.hall import open_hall
        from kdrv.testing.prepare import make_request

        root = find_project(config.rootpath)
        if root is None:
            pytest.exit(f"{config.rootpath} and its parents hold no kdrv.toml", returncode=2)
        stack = config.stash[CLEANUP]
        request = make_request(
            load_project(root),
            config.getoption("--kdrv-world"),
            debug=config.getoption("--kdrv-debug"),
            seed=config.getoption("--kdrv-seed"),
            profile=config.getoption("--kdrv-profile"),
        )
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="kdrv-", dir="/tmp"))
        config.stash[HALL] = stack.enter_context(open_hall(Context(), request, Path(scratch)))
    return config.stash[HALL]


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Machine:
    """The booted machine; shared by tests as long as its kernel is healthy."""
    hall = hall_of(request.config)
    if request.node.get_closest_marker("fresh"):
        hall.room.discard()
    return hall.room.machine


@pytest.fixture
def guest(machine: Machine, request: pytest.FixtureRequest) -> Guest:
    """The guest: system calls, files, programs and modules in the booted kernel."""
    return hall_of(request.config).room.guest


@pytest.fixture
def driver(guest: Guest, request: pytest.FixtureRequest) -> Iterator[Driver]:
    """The project's driver, loaded and bound; unloaded afterwards and checked for traces."""
    hall = hall_of(request.config)
    marker = request.node.get_closest_marker("params")
    with hall.driver(marker.args[0] if marker else None) as driver:
        yield driver


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Shell tests: scripts that run in the guest and report by KTAP or exit status."""
    # Whoever has kdrv installed has this plugin in every pytest: scripts of others are theirs.
    if file_path.suffix != ".sh":
        return None
    from kdrv.core.project import find_project
    from kdrv.testing.scripts import ShellFile

    if find_project(file_path.parent):
        collector: pytest.Collector = ShellFile.from_parent(parent, path=file_path)
        return collector
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Add the KUnit suites that kdrv.toml names."""
    from kdrv.core.project import find_project, load_project
    from kdrv.testing.scripts import KunitItem

    root = find_project(session.config.rootpath)
    if root is None or not (suites := load_project(root).test.kunit):
        return
    items.extend(KunitItem.from_parent(session, name=f"kunit:{s}", suite=s) for s in suites)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Watch the kernel while fixtures are set up."""
    with _watched(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Watch the kernel while the test runs, and let it suffer what the profile says."""
    with _watched(item), _scarce(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Watch the kernel while fixtures are torn down."""
    with _watched(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show kdrv's own errors as sentences, and keep verdict and console for the results."""
    report = yield
    if call.excinfo and isinstance(call.excinfo.value, KdrvError):
        report.longrepr = _in_words(call.excinfo.value)
    if report.failed and HALL in item.config.stash:
        console = item.config.stash[HALL].last_console()
        if console:
            report.sections.append(("Console of the guest, last lines", "\n".join(console[-40:])))
    verdict = getattr(call.excinfo.value, "verdict", None) if call.excinfo else None
    if verdict is not None:
        report.user_properties.append(("verdict", verdict.outcome.value))
        report.user_properties.append(("fingerprint", verdict.fingerprint))
    return report


@contextlib.contextmanager
def _watched(item: pytest.Item) -> Iterator[None]:
    if HALL in item.config.stash:
        with item.config.stash[HALL].room.watched():
            yield
    else:
        yield


def _scarce(item: pytest.Item) -> contextlib.AbstractContextManager[None]:
    """Only tests in Python make calls of their own."""
    if HALL in item.config.stash and isinstance(item, pytest.Function):
        return item.config.stash[HALL].scarce()
    return contextlib.nullcontext()


def _in_words(error: KdrvError) -> str:
    lines = [error.message, *(f"  | {line}" for line in error.detail)]
    for word, text in error.hints():
        lines.append(f"  {word}: {text}")
    return "\n".join(lines)
