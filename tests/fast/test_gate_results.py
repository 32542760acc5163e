"""What make said is remembered by target, and results survive by key."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from kdrv.core.errors import SetupError
from kdrv.gate.results import MAKE_ITSELF, Results, Said
from kdrv.gate.walk import TROUBLE


@dataclass(frozen=True)
class Fruit:
    name: str
    seeds: frozenset[str]


def test_a_value_comes_back_as_it_was(tmp_path: Path) -> None:
    results = Results(tmp_path / "gate" / "results.sqlite")
    pear = Fruit("pear", frozenset({"a", "b"}))
    results.put("key", pear)
    assert Results(tmp_path / "gate" / "results.sqlite").get("key", Fruit) == pear
    assert results.get("other", Fruit) is None


def test_a_value_of_another_shape_counts_as_missing(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.sqlite")
    results.put("key", {"name": "pear"})
    assert results.get("key", Fruit) is None
    results.put("key", Fruit("plum", frozenset()))
    assert results.get("key", Fruit) == Fruit("plum", frozenset())


def hear(said: Said, *lines: tuple[str, str | None]) -> None:
    with said.listening() as listener:
        for text, target in lines:
            listener.line(text, target)


def test_what_is_not_made_again_keeps_what_was_said_of_it(tmp_path: Path) -> None:
    said = Said(tmp_path / "said.sqlite")
    hear(
        said,
        ("  CC      a.o", "CC a.o"),
        ("a.c:1:2: warning: unused", None),
        ("  CC      b.o", "CC b.o"),
    )
    hear(said, ("  CC      b.o", "CC b.o"), ("b.c:3:1: warning: late", None))
    assert said.all() == {
        "CC a.o": "  CC      a.o\na.c:1:2: warning: unused",
        "CC b.o": "  CC      b.o\nb.c:3:1: warning: late",
    }


def test_a_target_made_in_silence_is_forgotten(tmp_path: Path) -> None:
    said = Said(tmp_path / "said.sqlite")
    hear(said, ("  CC      a.o", "CC a.o"), ("a.c:1:2: warning: unused", None))
    hear(said, ("  CC      a.o", "CC a.o"))
    assert said.all() == {}


def test_makes_own_words_are_about_one_run(tmp_path: Path) -> None:
    said = Said(tmp_path / "said.sqlite")
    failed = "make[3]: *** [scripts/Makefile.build:287: a.o] Error 1"
    hear(said, ("  CC      a.o", "CC a.o"), ("a.c:1:2: error: no", None), (failed, None))
    assert said.all()[MAKE_ITSELF] == failed
    hear(said, ("  CC      b.o", "CC b.o"))
    assert set(said.all()) == {"CC a.o"}


KERNEL = ("  RUSTC L rust/kernel.o", "RUSTC L rust/kernel.o")
SAMPLE = ("  RUSTC [M] samples/rust/rust_print.o", "RUSTC [M] samples/rust/rust_print.o")
E0061 = (
    "error[E0061]: this function takes 2 arguments",
    "  --> /run/kdrv/src/rust/kernel/a.rs:1:2",
)


def test_rustc_speaks_in_the_midst_of_other_targets(tmp_path: Path) -> None:
    said = Said(tmp_path / "said.sqlite")
    lines = [KERNEL, ("  EXPORTS rust/exports.h", "EXPORTS rust/exports.h"), SAMPLE]
    hear(said, *lines, *((text, None) for text in E0061), ("make[2]: *** Error 1", None))
    assert set(said.all()) == {KERNEL[1], MAKE_ITSELF}
    assert said.all()[KERNEL[1]].splitlines()[1:] == list(E0061)
    hear(said, SAMPLE)
    assert KERNEL[1] in said.all()
    hear(said, KERNEL)
    assert said.all() == {}


def test_what_rustc_says_ends_with_the_next_target(tmp_path: Path) -> None:
    said = Said(tmp_path / "said.sqlite")
    chunk = [("  CC      a.o", "CC a.o"), ("a.c:1:2: warning: unused", None)]
    hear(said, KERNEL, *((text, None) for text in E0061), *chunk, (E0061[0], None))
    assert said.all()["CC a.o"].splitlines() == [text for text, _ in chunk]
    assert said.all()[KERNEL[1]].splitlines()[1:] == [*E0061, E0061[0]]


def test_a_killed_run_has_kept_the_targets_that_were_finished(tmp_path: Path) -> None:
    said = Said(tmp_path / "said.sqlite")
    with pytest.raises(KeyboardInterrupt), said.listening() as listener:
        listener.line("  CC      a.o", "CC a.o")
        listener.line("a.c:1:2: warning: unused", None)
        listener.line("  CC      b.o", "CC b.o")
        listener.line("b.c:1:2: warning: half", None)
        raise KeyboardInterrupt
    assert set(said.all()) == {"CC a.o"}


def test_two_runs_may_have_the_results_open(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    Results(path).put("one", "1")
    reader = sqlite3.connect(path)
    reader.execute("SELECT * FROM result").fetchone()
    Results(path).put("two", "2")
    assert Results(path).get("two", str) == "2"
    reader.close()


@pytest.mark.parametrize(
    ("line", "trouble"),
    [
        ("cc1: out of memory allocating 65536 bytes after a total of 1 bytes", True),
        ("fatal error: error writing to /tmp/ccX.s: No space left on device", True),
        ("make: fork: Resource temporarily unavailable", True),
        ("make[3]: *** [/run/kdrv/src/scripts/Makefile.build:289: lib/x.o] Error 137", True),
        ("make[3]: *** [/run/kdrv/src/scripts/Makefile.build:289: lib/x.o] Killed", True),
        ("make[3]: *** [/run/kdrv/src/scripts/Makefile.build:289: lib/x.o] Error 1", False),
        ('   12 |         pr_err("Cannot allocate memory\\n", nope);', False),
        ('12 |     pr_err!("No space left on device");', False),
        ("lib/x.c:3:2: error: #error No space left on device", False),
    ],
)
def test_what_the_machine_lacks_is_not_the_patchs_fault(line: str, trouble: bool) -> None:
    assert bool(TROUBLE.search(f"  CC      lib/x.o\n{line}\nmake: done\n")) is trouble


def test_many_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    def first(number: int) -> None:
        for place in range(10):
            Results(tmp_path / str(place) / "results.sqlite").put(f"{number}", number)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(first, number) for number in range(4)]:
            done.result()


def test_a_database_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "results.sqlite").write_text("no database" * 1000)
    with pytest.raises(SetupError, match="cannot be used") as raised:
        Results(tmp_path / "results.sqlite").put("one", "1")
    assert "rm " in raised.value.remedy
