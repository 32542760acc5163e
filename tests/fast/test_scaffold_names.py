import pytest

from kdrv.core.errors import UsageError
from kdrv.scaffold.names import MAX_NAME, MAX_TYPE, Author, Names


def test_all_names_come_from_the_one_that_was_typed():
    names = Names.parse("my-2nd_widget")
    assert names == Names("my-2nd_widget", "my_2nd_widget", "My2ndWidget", "MY_2ND_WIDGET")


def test_the_longest_name_has_a_short_type():
    names = Names.parse("a" * MAX_NAME)
    assert len(names.module) == MAX_NAME
    assert len(names.type) == MAX_TYPE


@pytest.mark.parametrize(
    "name",
    [
        *["", "My-widget", "2fast", "-x", "x-", "x_", "a--b", "a b", "a/b", "../x", "a.b"],
        *["wídget", "a" * (MAX_NAME + 1), "x\n", "x\0", "{{ name }}", "$(id)"],
    ],
)
def test_what_no_module_can_be_called_is_refused(name):
    with pytest.raises(UsageError) as error:
        Names.parse(name)
    suggestion = error.value.remedy.removeprefix("kdrv new ")
    assert Names.parse(suggestion).name == suggestion


@pytest.mark.parametrize(
    "name",
    [
        *["struct", "match", "volatile", "async", "kernel", "core", "alloc", "std", "macros"],
        *["bindings", "pin-init", "pin_init", "test", "modules", "vmlinux"],
        *["workqueue", "virtio-pci"],
    ],
)
def test_keywords_and_the_kernels_own_names_are_refused(name):
    with pytest.raises(UsageError) as error:
        Names.parse(name)
    Names.parse(error.value.remedy.removeprefix("kdrv new "))


def test_an_author_is_folded_to_ascii_for_the_module():
    assert Author.parse("Zoë Müller", "z@example.org").for_module == "Zoe Muller <z@example.org>"
    assert Author.parse("王芳", "w@example.org").for_module == "w@example.org"
    assert Author.parse("Łukasz", "l@example.org").for_module == "l@example.org"


@pytest.mark.parametrize("name", ["", "  ", 'a"b', "a\\b", "a\nb", "a <b>", "a\x1b[1mb"])
def test_an_author_that_would_break_the_sources_is_refused(name):
    with pytest.raises(UsageError):
        Author.parse(name, "you@example.org")


@pytest.mark.parametrize("email", ["", "you", "you@", "@example.org", 'a"@x.org', "a b@x.org"])
def test_what_is_no_address_is_refused(email):
    with pytest.raises(UsageError):
        Author.parse("You", email)


def test_the_twin_has_names_of_its_own():
    twin = Names.parse("my-widget").twin
    assert (twin.module, twin.symbol) == ("my_widget_c", "MY_WIDGET_C")


def test_a_name_must_leave_room_for_the_twin():
    longest = "w" * (MAX_NAME - 2)
    assert len(Names.parse(longest).twin.module) == MAX_NAME
    with pytest.raises(UsageError) as error:
        _ = Names.parse(longest + "w").twin
    assert error.value.remedy == f"kdrv new {longest}"
