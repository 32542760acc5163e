"""What the commands share: the edge where errors become exit codes, options, the context."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from kdrv.core.context import Context, default_cache
from kdrv.core.errors import EXIT_ENVIRONMENT, KdrvError, SetupError, UsageError
from kdrv.core.show import clean
from kdrv.core.store import write_atomic

if TYPE_CHECKING:
    from kdrv.core.project import Project

F = TypeVar("F", bound=Callable[..., Any])
EXIT_INTERRUPTED = 130
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM)
"""What a disk refuses for want of room or permission."""
GIT_REPOSITORY = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_WORK_TREE",
)
"""By these git tells a hook its own repository; kdrv's user names the one that is meant."""


def run_guarded(command: click.Command) -> NoReturn:
    """Run the command line; every expected error leaves as a sentence and an exit code."""
    # A terminated kdrv cleans up like an interrupted one.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    for name in GIT_REPOSITORY:
        os.environ.pop(name, None)
    try:
        command.main(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        _interrupted()
    except KeyboardInterrupt:
        _interrupted()
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_ENVIRONMENT)
    except KdrvError as error:
        show_error(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output left (kdrv … | head): nothing is wrong, nobody listens.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_ENVIRONMENT)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK:
            show_error(_disk_error(error))
        else:
            traceback.print_exc()
            click.echo(
                "kdrv: this is a bug of kdrv itself: please report the lines above", err=True
            )
        # Nothing was judged: never the code that blames the user's code.
        sys.exit(EXIT_ENVIRONMENT)
    sys.exit(0)


def _disk_error(error: OSError) -> SetupError:
    name = error.filename or "a file"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        expected = "free disk space"
        remedy = "kdrv cache prune, or set XDG_CACHE_HOME to a larger disk"
    else:
        expected = "permission for that"
        kept = default_cache() in Path(os.fsdecode(name)).absolute().parents
        remedy = "set XDG_CACHE_HOME to a directory of your own" if kept else ""
    return SetupError(f"cannot use {name}: {error.strerror}", expected=expected, remedy=remedy)


def _interrupted() -> NoReturn:
    click.echo("kdrv: interrupted; the next run goes on from here", err=True)
    sys.exit(EXIT_INTERRUPTED)


def show_error(error: KdrvError) -> None:
    """Print an error to stderr: the sentence, what was expected, the remedy, the reproducer."""
    lines = [f"{click.style('kdrv:', fg='red', bold=True)} {clean(error.message)}"]
    lines += [f"  | {clean(line)}" for line in error.detail]
    for word, text in error.hints():
        lines.append(f"  {click.style(word + ':', bold=True)} {clean(text)}")
    click.echo("\n".join(lines), err=True)


@contextmanager
def session(jobs: int | None = None, quiet: bool = False, mirror: str = "") -> Iterator[Context]:
    """A context whose events show on stderr: a live display on a terminal, else plain lines."""
    ctx = Context(jobs=jobs, mirror=mirror) if jobs else Context(mirror=mirror)
    with contextlib.ExitStack() as stack:
        if not quiet:
            if sys.stderr.isatty():
                from kdrv.report.live import watch
            else:
                from kdrv.report.progress import watch
            stack.enter_context(watch(ctx.events))
        yield ctx


def print_json(value: object) -> None:
    """Print a typed result as JSON on stdout."""
    from kdrv.report.data import to_data

    click.echo(json.dumps(to_data(value), indent=2, sort_keys=True))


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in reading order."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def _output_file(_ctx: click.Context, _param: click.Parameter, text: str | None) -> Path | None:
    """A file that is written when the work is done: whether it can be is asked before."""
    if text is None:
        return None
    path = Path(text)
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a directory", expected="a file's name")
    if not path.parent.is_dir():
        raise UsageError(
            f"cannot write {path}: {path.parent} is no directory",
            expected="a file in a directory that is there",
            remedy=f"mkdir -p {shlex.quote(str(path.parent))}",
        )
    return path


def write_file(path: Path, text: str) -> None:
    """Put a view where :func:`file_option` said; what is no regular file (a pipe) is written to."""
    if path.exists() and not path.is_file():
        path.write_text(text)
    else:
        write_atomic(path, text)


def file_option(name: str, words: str) -> Callable[[F], F]:
    """An option that names a file to write; the command gets its path, or ``None``."""
    return click.option(name, metavar="FILE", callback=_output_file, help=words)


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
jobs_option = click.option(
    "-j", "--jobs", type=click.IntRange(1), help="Processes at once.  [default: processors]"
)
kernel_option = click.option(
    "--kernel",
    metavar="DIR|SERIES|latest",
    help="A kernel tree, or a series whose package is used.  [default: kdrv.toml's, or 7.3]",
)
toolchain_option = click.option(
    "--toolchain",
    type=click.Choice(["auto", "debian", "host"]),
    default="auto",
    show_default=True,
    help="Where compilers and QEMU come from.",
)
lane_options = options(
    click.option(
        "--arch",
        type=click.Choice(["x86_64", "arm64", "um"]),
        help="The architecture.  [default: x86_64; um in the simulator]",
    ),
    click.option(
        "--config",
        "base",
        metavar="FILE|defconfig|tiny",
        default="tiny",
        show_default=True,
        help="What the configuration starts from.",
    ),
    click.option(
        "--fragment",
        "fragments",
        metavar="FILE",
        multiple=True,
        help="Lines put on top of the configuration; may be repeated.",
    ),
    click.option("--debug", is_flag=True, help="Add lockdep, KASAN, kmemleak, DMA debug and more."),
)


def project_at(path: str | None) -> Project:
    """The project at, or around, a path. Raises :class:`UsageError` when there is none."""
    from kdrv.core.project import find_project, load_project

    root = find_project(Path(path or "."))
    if root is None:
        raise UsageError(
            f"{path or 'this directory'} is not a driver's project",
            expected="a directory with a kdrv.toml, here or above",
            remedy="kdrv new NAME",
        )
    return load_project(root)


@contextmanager
def scratch_directory() -> Iterator[str]:
    """A directory that is gone afterwards, short enough for UNIX sockets below it."""
    with tempfile.TemporaryDirectory(prefix="kdrv-", dir="/tmp") as path:
        yield path
