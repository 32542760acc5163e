"""rustc, not asked again what it was asked lately; runs in the sandbox, before rustc in its PATH.

make compiles a crate again when a file that it reads is newer, and bindgen writes new files when
any C header changed: most changes of headers are none that Rust sees, and yet the bindings and
the kernel crate, one after the other, are half of a build. ccache(1) knows no Rust, and sccache no
``--emit=obj``.

What rustc made lies in the build directory, with digests of all that it was made from: the files
in rustc's own dep-info (``-Zbinary_dep_depinfo``: metadata and procedural macros too), the command
line, and the environment but for what make changes from call to call, for macros may read it.
It may run under any Python from 3.9 on: a machine's own tools can be older than kdrv's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PYTHON = (3, 9)
"""The oldest Python that this runs under."""
MEMO = Path(".kdrv-rustc")
"""Below the build directory, in which kbuild runs rustc."""
ENTRIES = 4
"""How many answers to one command line are kept, the last ones."""
DAYS = 30
"""How long a command line that is not seen again is remembered."""
ENTRY = "entry.json"
ENTRY_LIMIT = 4 << 20
"""Bytes of an entry's description; that of the kernel crate has 20,000."""
VOLATILE = re.compile(r"_|(OLD)?PWD|SHLVL|(GNU)?M(AKE)?FLAGS|MAKE(LEVEL|OVERRIDES|_TERM(OUT|ERR))")
"""Variables of make and the shell that differ from call to call."""
_EMIT = re.compile(r"--emit=(?P<kind>[a-z-]+)=(?P<path>.+)")
_TELLS_ALL = {"-Zbinary_dep_depinfo", "-Zbinary_dep_depinfo=y"}
"""Without it dep-info says nothing of metadata and procedural macros."""


class Request:
    """What rustc is asked; ``outputs`` are the files that it writes.

    It is ``fit`` when the answer can be kept: all that it reads will be told, and all that it
    writes is named.
    """

    def __init__(self, rustc: str, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self.argv = (rustc, *argv)
        emits = [found for word in argv if (found := _EMIT.fullmatch(word))]
        self.outputs = tuple(emit["path"] for emit in emits)
        self._dep_info = next((emit["path"] for emit in emits if emit["kind"] == "dep-info"), "")
        unnamed = any(word.startswith("--emit") for word in argv if not _EMIT.fullmatch(word))
        told = bool(self._dep_info) and not _TELLS_ALL.isdisjoint(argv)
        self.fit = told and len(emits) > 1 and not unnamed and "-" not in argv
        kept = {n: value for n, value in environment.items() if not VOLATILE.fullmatch(n)}
        program = Path(rustc).stat()
        compiler = (program.st_size, program.st_mtime_ns)
        asked = json.dumps((self.argv, sorted(kept.items()), str(Path.cwd()), compiler))
        self.folder = MEMO / hashlib.sha256(asked.encode()).hexdigest()[:20]

    def inputs(self) -> list[str]:
        """The files that it has read, once it was carried out.

        Raises ValueError when that cannot be told.
        """
        text = Path(self._dep_info).read_text()
        if "\\" in text:
            raise ValueError("a name with a space, which nobody gives a file of the kernel")
        words = (re.sub(r"^(--[a-z-]+=)?@?", "", word) for word in self.argv[1:])
        named = {word for word in words if len(word) < 4096 and os.path.isfile(word)}  # noqa: PTH113
        rules = (line.partition(": ")[2] for line in text.splitlines() if line[:1] != "#")
        return sorted(named.union(*(rule.split() for rule in rules)).difference(self.outputs))

    def entries(self) -> list[Path]:
        """What is kept of such requests, the newest first."""
        found = {}
        for path in self.folder.glob(f"[!.]*/{ENTRY}"):
            with contextlib.suppress(OSError):
                facts = path.lstat()
                if stat.S_ISREG(facts.st_mode) and facts.st_size <= ENTRY_LIMIT:
                    found[path.parent] = facts.st_mtime_ns
        return sorted(found, key=lambda entry: -found[entry])


def main(argv: Sequence[str]) -> int:
    """Answer as rustc would; the status to end with."""
    rustc = _rustc()
    request = Request(rustc, argv, os.environ)
    if not request.fit:
        os.execv(rustc, [rustc, *argv])
    for entry in request.entries():
        # It lies where the makefiles of a patch can write: there may be anything.
        with contextlib.suppress(Exception):
            sys.stderr.write(_restored(request, entry))
            return 0
    done = subprocess.run(request.argv, stderr=subprocess.PIPE, close_fds=False)
    sys.stderr.buffer.write(done.stderr)
    if done.returncode == 0:
        # It has been compiled; whether that can be kept is no matter of the build's.
        with contextlib.suppress(Exception):
            _keep(request, done.stderr.decode())
    # Killed by a signal, as a shell would say it.
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def _rustc() -> str:
    """The program that comes after this one in the PATH."""
    own = Path(__file__).parent
    folders = [one for one in os.environ["PATH"].split(":") if Path(one) != own]
    found = shutil.which("rustc", path=":".join(folders))
    if not found:
        sys.exit("rustc: not found")
    return found


def _restored(request: Request, entry: Path) -> str:
    """Put the files of an entry in place; what rustc said. Raises ValueError if it does not fit."""
    known = json.loads((entry / ENTRY).read_text())
    if not known["inputs"] or any(_digest_of(path) != was for path, was in known["inputs"].items()):
        raise ValueError("made from something else")
    if any(os.path.lexists(twin) for path in known["inputs"] for twin in _twins(path)):
        raise ValueError("one module may lie in two files: rustc would not have that")
    copies = {output: entry / str(number) for number, output in enumerate(request.outputs)}
    # After a loss of power they may be empty.
    if [_digest_of(str(copy)) for copy in copies.values()] != known["outputs"]:
        raise ValueError("not whole any more")
    for output, copy in copies.items():
        Path(output).unlink(missing_ok=True)
        shutil.copy(copy, output)
    (entry / ENTRY).touch()
    return str(known["said"])


def _twins(path: str) -> list[str]:
    """Where else a module could lie that lies here (E0584)."""
    if not path.endswith(".rs"):
        return []
    stem = path[: -len(".rs")]
    return [f"{os.path.dirname(stem)}.rs" if stem.endswith("/mod") else f"{stem}/mod.rs"]  # noqa: PTH120


def _keep(request: Request, said: str) -> None:
    """Keep an answer. Raises where it cannot be kept."""
    inputs = {path: _digest_of(path) for path in request.inputs()}
    if not request.folder.exists():
        request.folder.mkdir(parents=True)
        _forget(time.time() - DAYS * 86400)
    with _new(request.folder) as entry:
        outputs = []
        for number, output in enumerate(request.outputs):
            shutil.copy(output, entry / str(number))
            outputs.append(_digest_of(output))
        (entry / ENTRY).write_text(json.dumps({"inputs": inputs, "outputs": outputs, "said": said}))
    # The rest is older, or was left half-made by a build that was killed or undone.
    for rest in {*request.folder.iterdir()}.difference(request.entries()[:ENTRIES]):
        shutil.rmtree(rest, ignore_errors=True)


def _forget(before: float) -> None:
    """Remove what was last of use before a time: the answers to commands of other flags."""
    for folder in MEMO.iterdir():
        with contextlib.suppress(OSError):
            files = [path.stat().st_mtime for path in (folder, *folder.glob(f"*/{ENTRY}"))]
            if max(files) < before:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _new(folder: Path) -> Iterator[Path]:
    """A new entry, which is there as a whole or not at all."""
    place = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        yield place
        place.rename(folder / place.name.removeprefix(".new-"))
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _digest_of(path: str) -> str:
    """Of a plain file; raises ValueError for anything else, which could be without an end."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"{path} is no file")
        return hashlib.sha256(file.read()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
