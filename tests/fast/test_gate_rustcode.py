"""Unsafe code and the public interface, before against after."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdrv.build.diagnostics import Level
from kdrv.gate.policy import Policy, load_policy
from kdrv.gate.result import Changed, Check, Outcome
from kdrv.gate.rust_api import ItemChange, compare, items
from kdrv.gate.rust_parse import Source
from kdrv.gate.rust_unsafe import new_sites, sites
from kdrv.gate.rustcode import judge_rust, judge_rust_series

from .gate_repo import History


def _unsaid(text: str) -> list[tuple[str, int]]:
    return [(one.kind, one.line) for one in sites(Source.parse("a.rs", text)) if not one.said]


def _kinds(text: str) -> list[str]:
    return [one.kind for one in sites(Source.parse("a.rs", text))]


SAID = {
    "above": "fn f() {\n    // SAFETY: a.\n    unsafe { g() };\n}\n",
    "in several lines": "fn f() {\n    // SAFETY: a,\n    // b.\n    unsafe { g() };\n}\n",
    "as a block": "fn f() {\n    /* SAFETY: a,\n     * b. */\n    unsafe { g() };\n}\n",
    "before it on the line": "fn f() {\n    let a = /* SAFETY: a. */ unsafe { g() };\n}\n",
    "above the statement": "fn f() {\n    // SAFETY: a.\n    let a = h(1, unsafe { g() });\n}\n",
    "inside the statement": (
        "fn f() {\n    let a =\n        // SAFETY: a.\n        unsafe { g() };\n}\n"
    ),
    "above the arm": (
        "fn f() {\n    match a {\n        // SAFETY: a.\n        1 => unsafe { g() },\n    }\n}\n"
    ),
    "above a chain": (
        "fn f() {\n    // SAFETY: a.\n    let a = b\n        .map(|c| unsafe { g(c) });\n}\n"
    ),
    "above a static": "// SAFETY: a.\nstatic A: B = unsafe { g() };\n",
    "above attributes": "// SAFETY: a.\n#[cfg(X)]\nunsafe impl Send for A {}\n",
    "below attributes": "#[cfg(X)]\n// SAFETY: a.\nunsafe impl Send for A {}\n",
    "in a macro's arguments": (
        "fn f() {\n    m!(B {\n        // SAFETY: a.\n        a: unsafe { g() },\n    });\n}\n"
    ),
    "above a macro's call": 'fn f() {\n    // SAFETY: a.\n    m!("{}", unsafe { g() });\n}\n',
    "in a macro": (
        "macro_rules! m {\n    () => {\n        // SAFETY: a.\n        unsafe { g() }\n    };\n}\n"
    ),
    "above a statement with a comma in a macro": (
        "macro_rules! m {\n    () => {\n        // SAFETY: a.\n"
        "        static A: B<C, D> =\n            unsafe { g() };\n    };\n}\n"
    ),
    "of a function": (
        "/// It does.\n///\n/// # Safety\n///\n/// Mind it.\n#[inline]\npub unsafe fn f() {}\n"
    ),
    "of a trait": "/// # Safety\n///\n/// Mind it.\npub unsafe trait T {}\n",
    "by the trait": "// SAFETY: a.\nunsafe impl T for A {\n    unsafe fn f() {}\n}\n",
    "allowed": "#[allow(clippy::missing_safety_doc)]\nunsafe fn f() {}\n",
    "allowed around": (
        "#[expect(clippy::undocumented_unsafe_blocks)]\nmod m {\n    fn f() {\n"
        "        unsafe { g() };\n    }\n}\n"
    ),
    "allowed for the file": (
        "#![allow(clippy::undocumented_unsafe_blocks)]\nfn f() {\n    unsafe { g() };\n}\n"
    ),
}
UNSAID = {
    "above the braces it is in": (
        "fn f() {\n    // SAFETY: a.\n    m! {\n        a: unsafe { g() }\n    }\n}\n",
        [("block", 4)],
    ),
    "on the line of another attribute": (
        "// SAFETY: a.\n#[a] unsafe impl A for C {}\n#[a] unsafe impl B for C {}\n",
        [("impl", 3)],
    ),
    "nothing": ("fn f() {\n    unsafe { g() };\n}\n", [("block", 2)]),
    "another comment": ("fn f() {\n    // Go.\n    unsafe { g() };\n}\n", [("block", 3)]),
    "word inside": ("fn f() {\n    // No SAFETY: a\n    unsafe { g() };\n}\n", [("block", 3)]),
    "a string": ('fn f() {\n    a("// SAFETY: a");\n    unsafe { g() };\n}\n', [("block", 3)]),
    "of the one before": (
        "// SAFETY: a.\nunsafe impl Send for A {}\nunsafe impl Sync for A {}\n",
        [("impl", 3)],
    ),
    "an empty line between": (
        "fn f() {\n    // SAFETY: a.\n\n    unsafe { g() };\n}\n",
        [("block", 4)],
    ),
    "above the function": ("// SAFETY: a.\nfn f() {\n    unsafe { g() };\n}\n", [("block", 3)]),
    "a comment for a function": ("// SAFETY: a.\nunsafe fn f() {}\n", [("fn", 2)]),
    "documentation without it": ("/// It does.\nunsafe fn f() {}\n", [("fn", 2)]),
    "of the field before": (
        (
            "fn f() {\n    m!(B {\n        // SAFETY: a.\n"
            "        a: unsafe { g() },\n        b: unsafe { h() },\n    });\n}\n"
        ),
        [("block", 5)],
    ),
    "another lint allowed": ("#[allow(dead_code)]\nunsafe fn f() {}\n", [("fn", 2)]),
}


@pytest.mark.parametrize("name", SAID)
def test_safety_is_explained(name: str) -> None:
    assert _kinds(SAID[name])
    assert _unsaid(SAID[name]) == []


@pytest.mark.parametrize("name", UNSAID)
def test_safety_is_not_explained(name: str) -> None:
    text, expected = UNSAID[name]
    assert _unsaid(text) == expected


def test_what_is_not_unsafe_code() -> None:
    text = 'type F = unsafe extern "C" fn(i32);\nextern "C" {\n    fn f();\n}\n// unsafe { g() }\n'
    assert _kinds(text) == []


def _new(before: str, after: str) -> list[tuple[str, int]]:
    sides = (sites(Source.parse("a.rs", text)) for text in (before, after))
    return [(one.kind, one.line) for one in new_sites(*sides)]


ONE = "fn f() {\n    unsafe { g(1) };\n}\n"
TWO = "fn h() {\n    unsafe { g(2) };\n}\n"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (ONE + TWO, TWO + ONE, []),
        (ONE, "fn k() {\n    unsafe {\n        g(1,) // why\n    };\n}\n", []),
        (ONE, "fn f() {\n    unsafe { g(3) };\n}\n", []),
        (ONE, ONE + TWO, [("block", 5)]),
        (ONE, TWO, [("block", 2)]),
        (ONE, ONE + ONE.replace("f()", "l()"), [("block", 5)]),
        (ONE + TWO, ONE, []),
    ],
    ids=["swapped", "moved", "edited", "added", "elsewhere", "copied", "gone"],
)
def test_new_unsafe_code(before: str, after: str, expected: list[tuple[str, int]]) -> None:
    assert _new(before, after) == expected


API = """
pub struct Foo<T> {
    pub a: u32,
    b: T,
}
struct Hidden;
impl Hidden {
    pub fn not_public(&self) {}
}
impl<T: Copy> Foo<T> {
    /// New.
    pub const fn new(a: u32, b: T) -> Self {
        Self { a, b }
    }
    pub(crate) fn inner(&self) {}
    #[doc(hidden)]
    pub fn __macro_only() {}
}
impl<T> Drop for Foo<T> {
    fn drop(&mut self) {}
}
pub trait Ops {
    type Data;
    const N: usize = 1;
    fn must(&self);
    fn may(&self) {}
}
pub mod sub {
    pub const A: u32 = 1;
}
mod private {
    pub fn not_public() {}
}
pub(crate) fn ours() {}
pub enum E {
    A,
    B(u32),
}
pub use crate::error::Result;
#[macro_export]
macro_rules! mine {
    ($a:expr) => {
        $a
    };
}
"""


def _items(text: str, path: str = "rust/kernel/foo/mod.rs") -> dict[str, str]:
    return {one.name: one.text for one in items(Source.parse(path, text))}


def test_public_items_have_paths_and_signatures() -> None:
    assert _items(API) == {
        "kernel::foo::Foo": "pub struct Foo<T> { pub a: u32 }",
        "kernel::foo::Foo::new": "pub const fn new(a: u32, b: T) -> Self",
        "kernel::foo::impl<T> Drop for Foo<T>": "impl<T> Drop for Foo<T>",
        "kernel::foo::Ops": "pub trait Ops",
        "kernel::foo::Ops::Data": "type Data",
        "kernel::foo::Ops::N": "const N: usize",
        "kernel::foo::Ops::must": "fn must(&self)",
        "kernel::foo::Ops::may": "fn may(&self)",
        "kernel::foo::sub": "pub mod sub",
        "kernel::foo::sub::A": "pub const A: u32",
        "kernel::foo::E": "pub enum E { A, B(u32) }",
        "kernel::foo::crate::error::Result": "pub use crate::error::Result",
        "kernel::mine!": "macro($a: expr)",
    }


def test_modules_are_named_by_their_files() -> None:
    text = "pub fn f() {}"
    assert list(_items(text, "rust/kernel/lib.rs")) == ["kernel::f"]
    assert list(_items(text, "rust/kernel/io/mem.rs")) == ["kernel::io::mem::f"]


def _changes(before: str, after: str) -> list[tuple[Changed, str]]:
    return [(one.changed, one.name) for one in _compare(before, after)]


def _compare(before: str, after: str) -> tuple[ItemChange, ...]:
    path = "rust/kernel/foo.rs"
    return compare(items(Source.parse(path, before)), items(Source.parse(path, after)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Self { a, b }", "Self { a, b: c }"),
        ("a: u32, b: T) -> Self", "\n  x: u32, // one\n y: T,\n) -> Self"),
        ("/// New.", "/// Newer."),
        ("    b: T,\n", "    b: T,\n    c: T,\n"),
        ("A: u32 = 1", "A: u32 = 2"),
        ("fn may(&self) {}", "fn may(&self) { todo!() }"),
        ("pub fn __macro_only() {}", ""),
        ("pub fn not_public(&self) {}", ""),
    ],
)
def test_what_users_cannot_see_is_no_change(old: str, new: str) -> None:
    assert old in API
    assert _changes(API, API.replace(old, new)) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("a: u32, b: T)", "a: u64, b: T)", [(Changed.CHANGED, "Foo::new")]),
        ("impl<T: Copy> Foo", "impl<T: Clone> Foo", [(Changed.CHANGED, "Foo::new")]),
        ("pub a: u32", "a: u32", [(Changed.CHANGED, "Foo")]),
        ("    B(u32),\n", "", [(Changed.CHANGED, "E")]),
        ("fn must(&self);", "", [(Changed.CHANGED, "Ops"), (Changed.GONE, "Ops::must")]),
        (
            "fn may(&self) {}",
            "fn may(&self) {}\n    fn more(&self) {}",
            [(Changed.ADDED, "Ops::more")],
        ),
        ("pub use crate::error::Result;", "", [(Changed.GONE, "crate::error::Result")]),
        ("pub mod sub", "mod sub", [(Changed.GONE, "sub"), (Changed.GONE, "sub::A")]),
    ],
)
def test_changes_of_the_interface(old: str, new: str, expected: list[tuple[Changed, str]]) -> None:
    assert old in API
    found = _changes(API, API.replace(old, new))
    assert found == [(changed, f"kernel::foo::{name}") for changed, name in expected]


def test_a_change_has_both_signatures() -> None:
    (change,) = _compare(API, API.replace("a: u32, b: T)", "a: u64, b: T)"))
    assert change.before == "pub const fn new(a: u32, b: T) -> Self"
    assert change.after == "pub const fn new(a: u64, b: T) -> Self"
    assert (change.file, change.line) == ("rust/kernel/foo.rs", 12)


def test_text_that_is_no_rust_is_no_error() -> None:
    assert _items("\x00 pub fn {{{ \udcff", "rust/kernel/a.rs") == {}
    assert _unsaid("}}}\n unsafe {\n") in ([], [("block", 2)])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("//" + "x" * (1 << 20), "larger than 1024 KiB"),
        ("const A: u32 = 1" + " + 1" * 300 + ";", "nested deeper than 250 levels"),
    ],
    ids=["large", "deep"],
)
def test_a_file_made_to_keep_its_reader_busy_is_not_read(
    history: History, text: str, says: str
) -> None:
    history.commit({"drivers/b.rs": text})
    checks = (
        *_patch_checks(history),
        *judge_rust_series(load_policy(), history.repo, history.series()),
    )
    assert [one.outcome for one in checks] == [Outcome.UNKNOWN] * 4
    assert all(says in one.summary for one in checks)


@pytest.fixture
def history(tmp_path: Path) -> History:
    history = History(tmp_path / "linux")
    history.commit({"rust/kernel/foo.rs": API, "drivers/a.rs": ONE, "README": "x\n"})
    return history


def _patch_checks(history: History, policy: Policy | None = None) -> tuple[Check, ...]:
    return judge_rust(policy or load_policy(), history.repo, history.last)


def test_a_patch_without_rust_is_skipped(history: History) -> None:
    history.commit({"README": "y\n"})
    assert [one.outcome for one in _patch_checks(history)] == [Outcome.SKIP] * 2


def test_new_unsafe_code_without_a_reason_fails_with_its_place(history: History) -> None:
    history.commit({"drivers/a.rs": f"// Moved down.\n{ONE}", "drivers/b.rs": TWO})
    safety, api = _patch_checks(history)
    assert safety.outcome is Outcome.FAIL
    (found,) = safety.diagnostics
    assert (found.file, found.line, found.tool) == ("drivers/b.rs", 2, "kdrv")
    assert safety.policy == "preset default: unsafe.uncommented = 0"
    assert safety.reproducer == f"git show {history.last.commit} -- drivers/b.rs"
    assert api.outcome is Outcome.SKIP


def test_unsafe_code_that_moves_to_another_file_is_not_new(history: History) -> None:
    history.commit({"drivers/a.rs": "", "drivers/c.rs": ONE})
    safety, _ = _patch_checks(history)
    assert safety.outcome is Outcome.PASS


def test_a_reason_that_is_taken_away_is_missed(history: History) -> None:
    said = "fn f() {\n    // SAFETY: it is.\n    unsafe { g(1) };\n}\n"
    history.commit({"drivers/a.rs": said})
    assert _patch_checks(history)[0].outcome is Outcome.PASS
    history.commit({"drivers/a.rs": ONE})
    assert _patch_checks(history)[0].outcome is Outcome.FAIL


def test_vendored_code_and_links_are_not_judged(history: History) -> None:
    history.commit({"rust/syn/a.rs": TWO, "drivers/link.rs": Path("a.rs")})
    assert [one.outcome for one in _patch_checks(history)] == [Outcome.SKIP] * 2


def test_the_interface_is_told_and_judged_by_the_budget(history: History) -> None:
    changed = API.replace("a: u32, b: T)", "a: u64, b: T)") + "pub fn more() {}\n"
    history.commit({"rust/kernel/foo.rs": changed})
    _, told = _patch_checks(history)
    assert (told.outcome, told.summary) == (Outcome.PASS, "1 added, 1 changed")
    levels = {one.code: one.level for one in told.diagnostics}
    assert levels == {"api-changed": Level.WARNING, "api-added": Level.NOTE}
    _, judged = _patch_checks(history, load_policy(None, "driver"))
    assert judged.outcome is Outcome.WARN
    assert judged.policy == "preset driver: churn.public-api = 0"


def test_a_series_is_judged_from_base_to_tip(history: History, tmp_path: Path) -> None:
    toml = tmp_path / "kdrv.toml"
    toml.write_text("[policy.unsafe]\nnew = 1\n[policy.churn]\npublic-api = 0\n")
    policy = load_policy(toml)
    history.commit({"drivers/b.rs": TWO + TWO.replace("h()", "i()"), "rust/kernel/foo.rs": ""})
    history.commit({"drivers/b.rs": TWO, "rust/kernel/foo.rs": API})
    unsafe, api = judge_rust_series(policy, history.repo, history.series())
    assert (unsafe.outcome, unsafe.detail) == (Outcome.PASS, ("1 block in drivers/b.rs",))
    assert (api.outcome, api.diagnostics) == (Outcome.PASS, ())
    history.commit({"drivers/c.rs": ONE.replace("1", "4"), "rust/kernel/foo.rs": ""})
    unsafe, api = judge_rust_series(policy, history.repo, history.series())
    assert unsafe.outcome is api.outcome is Outcome.WARN
    assert unsafe.policy == "kdrv.toml:2: new = 1"
    assert unsafe.summary.startswith("2 of at most 1 new unsafe")
    assert api.summary == "13 of at most 0 public items changed or gone, 0 added"
