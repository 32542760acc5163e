"""What can be done to a driver and what must hold, as a user's file declares it."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from kdrv.core.errors import UsageError, WorkFailed
from kdrv.explore.history import History, Moment
from kdrv.explore.values import minimal

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from kdrv.devices.model import Device
    from kdrv.guest.files import GuestFile
    from kdrv.guest.session import Session
    from kdrv.testing.driver import Driver, DriverFile

F = TypeVar("F", bound=Callable[..., Any])
OPERATION, PROPERTY = "__kdrv_operation__", "__kdrv_property__"

__all__ = ["Call", "History", "Menu", "Moment", "Operation", "load_menu", "operation", "prop"]


@dataclass
class Call:
    """What an operation gets: the guest to act on, and what the run knows.

    ``guest`` is a session of the acting process; ``driver`` the loaded driver; ``devices`` the
    models by name. ``memory`` and ``files`` are shared by all operations of a run: a model of what
    was done, and open files by slot. ``bindings`` are pairs of a bus driver's directory and the
    device it binds; ``module`` is where the driver is in the guest.
    """

    guest: Session
    driver: Driver
    devices: Mapping[str, Device]
    module: DriverFile
    memory: dict[str, Any] = field(default_factory=dict)
    files: dict[int, GuestFile] = field(default_factory=dict)
    bindings: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Operation:
    """Something that can be done to a driver.

    ``arguments`` are strategies by name; ``weight`` how often it is drawn beside others;
    ``serves`` says that it must succeed again once faults have stopped.
    """

    name: str
    run: Callable[..., object]
    arguments: Mapping[str, SearchStrategy[Any]]
    serves: bool = False
    weight: int = 4

    @cached_property
    def simplest(self) -> dict[str, Any]:
        """The simplest arguments."""
        return {name: minimal(strategy) for name, strategy in self.arguments.items()}


def operation(*, serves: bool = False, **arguments: SearchStrategy[Any]) -> Callable[[F], F]:
    """Declare a function ``f(call, **arguments)`` as an operation.

    An ``OSError`` it raises is a result like any other; an ``AssertionError`` is a bug found. With
    ``serves`` its arguments are such that it succeeds where nothing is wrong, unless the driver is
    busy; and with the simplest ones it must succeed again once faults have stopped.
    """

    def declare(function: F) -> F:
        wanted = list(inspect.signature(function).parameters)[1:]
        if sorted(wanted) != sorted(arguments):
            raise TypeError(
                f"operation {function.__name__} takes {wanted}, "
                f"but strategies are given for {sorted(arguments)}"
            )
        declared = Operation(function.__name__, function, arguments, serves)
        setattr(function, OPERATION, declared)
        return function

    return declare


def prop(function: Callable[[History], None]) -> Callable[[History], None]:
    """Declare ``f(history)`` as a property: it raises ``AssertionError`` where it does not hold."""
    setattr(function, PROPERTY, True)
    return function


@dataclass(frozen=True)
class Menu:
    """All operations by name, and the user's own properties by name.

    ``without`` names properties that belong to every driver but not to this one.
    """

    operations: Mapping[str, Operation]
    properties: Mapping[str, Callable[[History], None]]
    without: frozenset[str] = frozenset()

    def __getitem__(self, name: str) -> Operation:
        """The operation. Raises :class:`UsageError` when there is none of that name."""
        try:
            return self.operations[name]
        except KeyError:
            raise UsageError(
                f"there is no operation {name!r}", expected="one of " + ", ".join(self.operations)
            ) from None


def load_menu(files: Sequence[Path]) -> Menu:
    """The declarations of Python files.

    Raises :class:`WorkFailed` for a file that cannot be imported.
    """
    operations: dict[str, Operation] = {}
    properties: dict[str, Callable[[History], None]] = {}
    for path in files:
        for name, value in _members(path):
            if declared := getattr(value, OPERATION, None):
                operations[declared.name] = declared
            elif getattr(value, PROPERTY, False):
                properties[name] = value
    return Menu(operations, properties)


def declares(path: Path) -> bool:
    """Whether a Python file is worth importing: it speaks of this package."""
    return "kdrv.explore" in path.read_text(errors="replace")


def _members(path: Path) -> Iterator[tuple[str, Any]]:
    module = _imported(path)
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) == module.__name__:
            yield name, value


def _imported(path: Path) -> ModuleType:
    name = f"kdrv_operations_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        lines = traceback.format_exception_only(error)
        raise WorkFailed(
            f"{path} cannot be imported: {lines[-1].strip()}",
            detail=[line.rstrip() for line in lines],
            expected="Python that declares operations (from kdrv.explore import operation)",
        ) from error
    finally:
        sys.path.remove(str(path.parent))
    return module
