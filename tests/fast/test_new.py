"""The command line of ``kdrv new``: with and without a terminal."""

import json
import re

import pytest
from click.testing import CliRunner

from kdrv.cli import new as command
from kdrv.core.errors import UsageError
from kdrv.core.process import Command, Completed
from kdrv.core.project import load_project
from kdrv.scaffold.catalog import bus_names
from kdrv.scaffold.identity import git_author
from kdrv.scaffold.names import Author


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty directory to work in, and git's configuration out of the way."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kdrv.scaffold.identity.git_author", lambda _: None)
    return tmp_path


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(command, "_terminal", lambda: True)


def kdrv_new(*arguments, answers=""):
    return CliRunner().invoke(
        command.new, arguments, input=answers, catch_exceptions=False, standalone_mode=False
    )


def test_a_project_is_made_and_the_next_commands_are_told(place):
    result = kdrv_new("my-widget", "--bus", "misc")
    assert load_project(place / "my-widget").driver.module == "my_widget"
    for file in ("my_widget.rs", "tests/test_my_widget.py", "kdrv.toml"):
        assert file in result.output
    assert "cd my-widget\n  kdrv test --qemu\n" in result.output


def test_options_are_passed_on(place):
    kdrv_new("w", "--bus", "misc", "-o", "capacity=64", "--option", "ioctl=no")
    assert load_project(place / "w").scaffold.options == {"capacity": 64, "ioctl": False}


def test_the_result_as_json(place):
    data = json.loads(kdrv_new("w", "--bus", "faux", "--json").output)
    assert data["path"] == str(place / "w")
    assert (data["bus"], data["module"], data["options"]) == ("faux", "w", {"debugfs": True})
    assert "w.rs" in data["files"]


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ((), "kdrv new my-driver --bus misc"),
        (("w",), "kdrv new w --bus misc"),
        (("--bus", "faux"), "kdrv new my-driver --bus faux"),
    ],
)
def test_without_a_terminal_nothing_is_asked(place, arguments, remedy):
    with pytest.raises(UsageError) as error:
        kdrv_new(*arguments, answers="w\nmisc\n\n\n")
    assert error.value.exit_code == 2
    assert error.value.remedy == remedy
    assert list(place.iterdir()) == []


@pytest.mark.usefixtures("terminal")
def test_on_a_terminal_what_is_missing_is_asked_for(place):
    answers = ["Bad Name", "w", "isa", "misc", "lots", "64", "n", "Zoë", "zoe@example.org"]
    result = kdrv_new(answers="\n".join(answers) + "\n")
    assert load_project(place / "w").scaffold.options == {"capacity": 64, "ioctl": False}
    assert "Zoë <zoe@example.org>" in (place / "w/w.rs").read_text()
    for name in bus_names():
        assert re.search(rf"^  {name} ", result.output, re.M)


@pytest.mark.usefixtures("terminal")
def test_given_options_are_not_asked_for(place):
    result = kdrv_new("w", "-o", "capacity=64", answers="misc\n\n\n\n")
    assert load_project(place / "w").scaffold.options == {"capacity": 64, "ioctl": True}
    assert "capacity" not in result.output


@pytest.mark.usefixtures("terminal")
def test_enter_takes_every_default(place):
    kdrv_new("w", answers="platform\n\n\n\n\n\n\n")
    assert load_project(place / "w").scaffold.options == {
        "compatible": "example,w",
        "acpi": "",
        "registers": 4096,
        "clock": 25000000,
    }


@pytest.mark.usefixtures("terminal")
def test_with_name_and_bus_only_the_author_is_asked_for(place):
    kdrv_new("w", "--bus", "misc", "--author", "Me", "--email", "me@example.org")
    assert "Me <me@example.org>" in (place / "w/w.rs").read_text()


@pytest.mark.parametrize("option", ["capacity", "=3", ""])
def test_an_option_without_a_value_is_refused(option):
    with pytest.raises(UsageError, match="no option"):
        kdrv_new("w", "--bus", "misc", "-o", option)


def test_an_unknown_author_is_told(place):
    assert "Your Name <you@example.org>" in kdrv_new("w", "--bus", "faux").stderr
    assert "Your Name <you@example.org>" in (place / "w/w.rs").read_text()
    result = kdrv_new("v", "--bus", "faux", "--author", "Me", "--email", "me@example.org")
    assert result.stderr == ""


def test_two_places_are_refused(place):
    with pytest.raises(UsageError, match="both"):
        kdrv_new("w", "--bus", "misc", "-C", str(place), "--in-tree", str(place))


def test_another_directory(place):
    (place / "there").mkdir()
    result = kdrv_new("w", "--bus", "misc", "-C", "there")
    assert load_project(place / "there/w").project.name == "w"
    assert "cd there/w\n" in result.output


def test_the_list_shows_every_bus_and_option():
    result = kdrv_new("--list")
    for words in ("misc:", "faux:", "platform:", "-o capacity=INT [4096]", "-o acpi=ACPI-ID []"):
        assert words in result.output
    for device in "edu", "testdev", "ringdev":
        assert f"pci --device {device}: " in result.output


def test_the_list_as_json():
    buses = {bus["name"]: bus for bus in json.loads(kdrv_new("--list", "--json").output)}
    assert set(buses) == set(bus_names())
    (ioctl,) = [option for option in buses["misc"]["option"] if option["name"] == "ioctl"]
    assert (ioctl["type"], ioctl["default"]) == ("bool", True)


class Git:
    """Answers for git config."""

    def __init__(self, status, name="", email=""):
        self.status = status
        self.answers = {"user.name": name, "user.email": email}

    def run(self, command: Command, **_):
        return Completed(command, self.status, self.answers[command.argv[-1]] + "\n", 0.0)


def test_git_knows_the_author():
    assert git_author(Git(0, "Zoë", "z@example.org")) == Author("Zoë", "z@example.org")


@pytest.mark.parametrize(
    "git", [Git(1), Git(0, "", ""), Git(0, 'a "b"', "z@example.org"), Git(128, "fatal: ...", "x")]
)
def test_what_git_knows_is_used_only_when_it_is_good(git):
    assert git_author(git) is None


def test_a_device_of_the_bus_and_a_twin(place):
    result = kdrv_new("w", "--bus", "pci", "--device", "ringdev", "--c-twin")
    project = load_project(place / "w")
    assert (project.scaffold.device, project.driver.twin) == ("ringdev", "w_c")
    assert project.machine.devices()[0].kind == "ringdev"
    assert "w_c.c" in result.output


@pytest.mark.parametrize("arguments", [("--device", "edu"), ("--c-twin",)])
def test_what_a_bus_does_not_have_is_refused(place, arguments):
    with pytest.raises(UsageError, match="misc"):
        kdrv_new("w", "--bus", "misc", *arguments)
    assert list(place.iterdir()) == []


@pytest.mark.usefixtures("terminal")
def test_on_a_terminal_a_bus_with_devices_asks_for_one(place):
    result = kdrv_new("w", answers="pci\nfloppy\ntestdev\n\n\n")
    assert load_project(place / "w").scaffold.device == "testdev"
    assert re.search(r"^  ringdev ", result.output, re.M)
