"""rustc, asked only what it was not asked before; runs in the sandbox, before rustc in its PATH.

make compiles a crate again when a file that it reads is newer, and bindgen writes new files when
any C header changed: most changes of headers are none that Rust sees, and yet the bindings and
the kernel crate, one after the other, are half of a build. ccache(1) knows no Rust, and sccache no
``--emit=obj``.

What rustc made lies in the build directory, with digests of all that it was made from: the files
in rustc's own dep-info (``-Zbinary_dep_depinfo``: metadata and procedural macros too), the command
line, and the environment but for what make changes from call to call, for macros may read it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

MEMO = Path(".kdrv-rustc")
"""Below the build directory, in which kbuild runs rustc."""
ENTRIES = 4
"""How many answers to one command line are kept, the last ones."""
DAYS = 30
"""How long a command line that is not seen again is remembered."""
ENTRY = "entry.json"
VOLATILE = re.compile(r"_|(OLD)?PWD|SHLVL|(GNU)?M(AKE)?FLAGS|MAKE(LEVEL|OVERRIDES|_TERM(OUT|ERR))")
"""Variables of make and the shell that differ from call to call."""
_EMIT = re.compile(r"--emit=(?P<kind>[a-z-]+)=(?P<path>.+)")


class Request:
    """A compilation whose answer can be kept: ``outputs`` are the files that it writes."""

    def __init__(self, rustc: str, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self.argv = (rustc, *argv)
        emits = [found for word in argv if (found := _EMIT.fullmatch(word))]
        self.outputs = tuple(emit["path"] for emit in emits)
        self._dep_info = next((emit["path"] for emit in emits if emit["kind"] == "dep-info"), "")
        unnamed = any(word.startswith("--emit") for word in argv if not _EMIT.fullmatch(word))
        self.fit = bool(self._dep_info) and not unnamed
        kept = {n: value for n, value in environment.items() if not VOLATILE.fullmatch(n)}
        program = Path(rustc).stat()
        compiler = (program.st_size, program.st_mtime_ns)
        asked = json.dumps((self.argv, sorted(kept.items()), str(Path.cwd()), compiler))
        self.folder = MEMO / hashlib.sha256(asked.encode()).hexdigest()[:20]

    def inputs(self) -> list[str] | None:
        """The files that it has read, once it was carried out; ``None`` when that is not told."""
        text = Path(self._dep_info).read_text()
        if "\\" in text:
            return None  # a name with a space, which nobody gives a file of the kernel
        named = (word.removeprefix("--target=").lstrip("@") for word in self.argv[1:])
        words = {word for word in named if word.startswith("./") and Path(word).is_file()}
        rules = (line.partition(": ")[2] for line in text.splitlines() if line[:1] != "#")
        return sorted(words.union(*(rule.split() for rule in rules)))

    def entries(self) -> list[Path]:
        """What is kept of such requests, the newest first."""
        found = self.folder.glob(f"*/{ENTRY}")
        return [path.parent for path in sorted(found, key=lambda p: -p.stat().st_mtime_ns)]


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
        with contextlib.suppress(OSError, ValueError):
            _keep(request, done.stderr.decode())
    return done.returncode


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
    if any(_digest_of(path) != digest for path, digest in known["inputs"].items()):
        raise ValueError("made from something else")
    copies = [entry / str(number) for number in range(len(request.outputs))]
    if not all(copy.is_file() for copy in copies):
        raise ValueError("not whole any more")
    for copy, output in zip(copies, request.outputs, strict=True):
        Path(output).unlink(missing_ok=True)
        shutil.copy(copy, output)
    (entry / ENTRY).touch()
    return str(known["said"])


def _keep(request: Request, said: str) -> None:
    inputs = request.inputs()
    if inputs is None:
        return
    if not request.folder.exists():
        request.folder.mkdir(parents=True)
        _forget(time.time() - DAYS * 86400)
    with _new(request.folder) as entry:
        for number, output in enumerate(request.outputs):
            shutil.copy(output, entry / str(number))
        known = {"inputs": {path: _digest_of(path) for path in inputs}, "said": said}
        (entry / ENTRY).write_text(json.dumps(known))
    # The rest is older, or was left half-made by a build that was killed or undone.
    for rest in {*request.folder.iterdir()}.difference(request.entries()[:ENTRIES]):
        shutil.rmtree(rest, ignore_errors=True)


def _forget(before: float) -> None:
    """Remove what was last of use before a time: the answers to commands of other flags."""
    for folder in MEMO.iterdir():
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
    # Not hashlib.file_digest: a host's Python may be older than kdrv's.
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
