import pytest

from kdrv.core.errors import UsageError
from kdrv.scaffold.api import ScaffoldRequest, create
from kdrv.scaffold.intree import add_object, add_source, edits, find_spot
from kdrv.scaffold.names import Author, Names

KCONFIG = """\
# SPDX-License-Identifier: GPL-2.0-only
menu "Misc devices"

config AD525X_DPOT
	tristate "Analog Devices"
	help
\t  If you say yes here, you get support.
\t  menu items and
\t  if in doubt say N.

if PCI
source "drivers/misc/zoo/Kconfig"
endif

source "drivers/misc/c2port/Kconfig"
source "drivers/misc/eeprom/Kconfig"
source "drivers/misc/uacce/Kconfig"
endmenu
"""

MAKEFILE = """\
# SPDX-License-Identifier: GPL-2.0
obj-$(CONFIG_AD525X_DPOT)	+= ad525x_dpot.o
obj-$(CONFIG_DUMMY_IRQ)		+= dummy-irq.o
obj-$(CONFIG_ICS932S401)	+= \\
	ics932s401.o
ifdef CONFIG_X
obj-$(CONFIG_ZZZ)		+= zzz.o
endif

targets += foo
"""


def added(before, after):
    """The one line that is new, and the line before it."""
    old = before.splitlines()
    new = after.splitlines()
    (at,) = [i for i in range(len(new)) if new[:i] + new[i + 1 :] == old][:1]
    return new[at - 1], new[at]


class TestKconfig:
    def test_the_line_goes_in_its_place_among_the_others(self):
        after = add_source(KCONFIG, "drivers/misc/my_widget/Kconfig")
        assert added(KCONFIG, after) == (
            'source "drivers/misc/eeprom/Kconfig"',
            'source "drivers/misc/my_widget/Kconfig"',
        )

    def test_the_last_one_stays_in_the_block(self):
        after = add_source(KCONFIG, "drivers/misc/zap/Kconfig")
        assert after.endswith('source "drivers/misc/zap/Kconfig"\nendmenu\n')

    def test_unsorted_ones_get_it_behind_the_last(self):
        jumbled = KCONFIG.replace("eeprom", "vmw")
        before, _ = added(jumbled, add_source(jumbled, "drivers/misc/my_widget/Kconfig"))
        assert before == 'source "drivers/misc/uacce/Kconfig"'

    def test_twice_is_once(self):
        once = add_source(KCONFIG, "drivers/misc/my_widget/Kconfig")
        assert add_source(once, "drivers/misc/my_widget/Kconfig") == once

    def test_without_others_it_goes_to_the_end_of_the_block(self):
        text = "menuconfig SAMPLES\n\tbool\n\nif SAMPLES\n\nconfig A\n\tbool\n\nendif # SAMPLES\n"
        after = add_source(text, "samples/rust/w/Kconfig")
        assert after == text.replace("endif #", 'source "samples/rust/w/Kconfig"\n\nendif #')

    def test_without_a_block_it_goes_to_the_end(self):
        text = "config A\n\tbool\n"
        after = add_source(text, "drivers/x/w/Kconfig")
        assert after == text + '\nsource "drivers/x/w/Kconfig"\n'

    def test_a_block_before_the_end_is_not_the_place(self):
        text = "if X\nconfig A\n\tbool\nendif\n\nconfig B\n\tbool\n"
        after = add_source(text, "drivers/x/w/Kconfig")
        assert after == text + '\nsource "drivers/x/w/Kconfig"\n'


class TestMakefile:
    def test_the_line_goes_in_its_place_and_is_aligned(self):
        after = add_object(MAKEFILE, "ETHER", "ether/")
        assert added(MAKEFILE, after) == (
            "obj-$(CONFIG_DUMMY_IRQ)\t\t+= dummy-irq.o",
            "obj-$(CONFIG_ETHER)\t\t+= ether/",
        )

    def test_the_last_one_goes_behind_a_continued_line_and_outside_of_conditions(self):
        after = add_object(MAKEFILE, "MY_WIDGET", "my_widget/")
        assert added(MAKEFILE, after) == (
            "\tics932s401.o",
            "obj-$(CONFIG_MY_WIDGET)\t\t+= my_widget/",
        )

    def test_unsorted_ones_get_it_behind_the_last(self):
        text = "obj-$(CONFIG_B) += b.o\nobj-$(CONFIG_A) += a.o\n"
        assert add_object(text, "AB", "ab/") == text + "obj-$(CONFIG_AB) += ab/\n"

    def test_a_long_symbol_keeps_one_space(self):
        text = "obj-$(CONFIG_A)\t+= a.o\n"
        assert add_object(text, "LONGER_THAN_THAT", "x/").endswith(
            "obj-$(CONFIG_LONGER_THAN_THAT) += x/\n"
        )

    def test_twice_is_once(self):
        once = add_object(MAKEFILE, "MY_WIDGET", "my_widget/")
        assert add_object(once, "MY_WIDGET", "my_widget/") == once

    def test_an_empty_one_gets_the_line(self):
        assert add_object("", "W", "w/") == "obj-$(CONFIG_W) += w/\n"


@pytest.fixture
def tree(tmp_path):
    tree = tmp_path / "linux"
    misc = tree / "drivers/misc"
    misc.mkdir(parents=True)
    (tree / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\n")
    (tree / "Kconfig").write_text('source "drivers/misc/Kconfig"\n')
    (misc / "Kconfig").write_text(KCONFIG)
    (misc / "Makefile").write_text(MAKEFILE)
    (tree / "docs").mkdir()
    return tree


ME = Author.parse("Me", "me@example.org")


def request(tree, name="my-widget", **fields):
    return ScaffoldRequest(name, "misc", in_tree=tree, **fields)


def contents(tree):
    return {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def test_a_driver_in_the_tree_gets_its_directory_and_two_lines(tree):
    before = contents(tree)
    result = create(request(tree))
    misc = tree / "drivers/misc"
    assert result.path == misc / "my_widget"
    assert set(result.edited) == {misc / "Kconfig", misc / "Makefile"}
    changed = {path for path, text in contents(tree).items() if before.get(path) != text}
    assert changed == {*result.edited, *(result.path / file for file in result.files)}
    assert 'source "drivers/misc/my_widget/Kconfig"\n' in (misc / "Kconfig").read_text()
    assert "obj-$(CONFIG_MY_WIDGET)\t\t+= my_widget/\n" in (misc / "Makefile").read_text()


def test_lines_that_are_there_already_are_not_added_again(tree):
    result = create(request(tree))
    for file in result.files:
        (result.path / file).unlink()
    for folder in (result.path / "tests", result.path):
        folder.rmdir()
    before = contents(tree)
    again = create(request(tree))
    assert again.edited == ()
    assert before.items() <= contents(tree).items()


def test_a_kbuild_file_comes_before_a_makefile(tree):
    misc = tree / "drivers/misc"
    (misc / "Kbuild").write_text("obj-$(CONFIG_A) += a.o\n")
    spot = find_spot(tree, "drivers/misc", Names.parse("w"))
    assert set(edits(spot, "W")) == {misc / "Kconfig", misc / "Kbuild"}


def test_a_linked_file_is_changed_where_it_is(tree):
    misc = tree / "drivers/misc"
    (misc / "Makefile").rename(misc / "real.mk")
    (misc / "Makefile").symlink_to("real.mk")
    create(request(tree))
    assert (misc / "Makefile").is_symlink()
    assert "my_widget/" in (misc / "real.mk").read_text()


@pytest.mark.parametrize(
    "subdir", ["..", "/etc", "drivers/../..", "drivers/none", ".", "docs", "drivers/misc/Kconfig"]
)
def test_a_place_that_is_none_is_refused(tree, subdir):
    before = contents(tree)
    with pytest.raises(UsageError):
        create(request(tree, subdir=subdir))
    assert contents(tree) == before


def test_a_link_out_of_the_tree_is_refused(tree, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("Kconfig", "Makefile"):
        (outside / name).write_text("")
    (tree / "drivers/out").symlink_to(outside)
    with pytest.raises(UsageError):
        create(request(tree, subdir="drivers/out"))


@pytest.mark.parametrize("name", ["ad525x-dpot", "ad525x_dpot", "dummy-irq", "ics932s401"])
def test_a_name_the_tree_has_already_is_refused(tree, name):
    before = contents(tree)
    with pytest.raises(UsageError, match="already"):
        create(request(tree, name))
    assert contents(tree) == before


def test_what_is_no_kernel_tree_is_refused(tmp_path):
    with pytest.raises(UsageError):
        create(request(tmp_path))


def test_a_tree_that_is_too_old_is_refused(tree):
    (tree / "Makefile").write_text("VERSION = 6\nPATCHLEVEL = 12\n")
    with pytest.raises(UsageError, match=r"6\.12"):
        create(request(tree))


def test_a_newer_tree_gets_a_note(tree):
    (tree / "Makefile").write_text("VERSION = 8\nPATCHLEVEL = 0\n")
    (note,) = create(request(tree, author=ME)).notes
    assert "8.0" in note


def test_the_series_of_the_tree_cannot_be_contradicted(tree):
    with pytest.raises(UsageError):
        create(request(tree, kernel="7.2"))


def test_a_subdirectory_without_a_tree_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--subdir"):
        create(ScaffoldRequest("w", "misc", directory=tmp_path, subdir="drivers/misc"))
