"""Why RUST_IS_AVAILABLE is n: scripts/rust_is_available.sh in a sentence, and a remedy."""

from __future__ import annotations

import re
from dataclasses import dataclass

_OWN = "or let kdrv bring its own tools (--toolchain debian)"
# Messages about libclang name bindgen too, and come first.
_REMEDIES = (
    (
        r"libclang .* is too old",
        "install libclang {minimum} or newer, or point LIBCLANG_PATH at one",
    ),
    (r"Rust compiler .* could not be found", "install rustc (Debian: apt install rustc)"),
    (
        r"bindings generator .* could not be found",
        "install bindgen (Debian: apt install bindgen; or: cargo install --locked bindgen-cli)",
    ),
    (r"Rust compiler .* is too old", "install rustc {minimum} or newer (rustup update)"),
    (
        r"bindings generator .* is too old",
        "install bindgen {minimum} or newer (cargo install --locked bindgen-cli)",
    ),
    (
        r"to check the libclang version",
        "install libclang (Debian: apt install libclang-dev), or point LIBCLANG_PATH at it",
    ),
    (
        r"Source code for the 'core' standard library",
        "install the source of Rust's core library (Debian: apt install rust-src; "
        "rustup: rustup component add rust-src)",
    ),
    (r"to check the Rust compiler version", "repair rustc: rustc --version must work"),
    (r"to check the bindings generator version", "repair bindgen: bindgen --version must work"),
    (
        r"to check the Rust bindings generator version",
        "repair bindgen: bindgen --version must work",
    ),
)
_WARNINGS = re.compile(r"This may be a problem|may not work due to a bug")


@dataclass(frozen=True)
class RustProblem:
    """What is wrong with the Rust toolchain, in the kernel's words, and what mends it."""

    text: str
    remedy: str


def rust_problem(output: str) -> RustProblem:
    """The reason in the output of scripts/rust_is_available.sh.

    Its warnings (clang and libclang of different versions) do not make Rust unavailable and are
    passed over.
    """
    for text in _paragraphs(output):
        if _WARNINGS.search(text):
            continue
        minimum = re.search(r"Minimum version: (\S+)", text)
        for pattern, remedy in _REMEDIES:
            if re.search(pattern, text):
                mend = remedy.format(minimum=minimum[1] if minimum else "")
                return RustProblem(_sentence(text), f"{mend}, {_OWN}")
    return RustProblem(
        "scripts/rust_is_available.sh fails", f"run: make rustavailable (in the tree), {_OWN}"
    )


def _paragraphs(output: str) -> list[str]:
    """The script's messages: runs of lines between bare ``***`` lines."""
    paragraphs: list[list[str]] = [[]]
    for line in output.splitlines():
        text = line.removeprefix("***").strip()
        if text:
            paragraphs[-1].append(text)
        else:
            paragraphs.append([])
    return [" ".join(lines) for lines in paragraphs if lines]


def _sentence(text: str) -> str:
    text = re.sub(r"\.? See output and docs below for details:.*", "", text)
    text = re.sub(
        r"\s*Your version:\s*(\S+)\s*Minimum version:\s*(\S+)", r" (\1, needed: \2)", text
    )
    return re.sub(r"\.(?= \()|\.$", "", text)
