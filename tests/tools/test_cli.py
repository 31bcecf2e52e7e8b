"""The command as a whole: it starts fast, and every error is one line and an exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

import anondata
from anondata.errors import PolicyError, WeightsError
from anondata.tools import cli


def test_help_of_every_command_loads_no_network_library() -> None:
    code = (
        "import sys; from anondata.tools import cli\n"
        "for args in [['--help'], *([name, '--help'] for name in cli.COMMANDS), ['--version']]:\n"
        "    assert cli.run(args) == 0, args\n"
        "found = {'torch', 'onnxruntime', 'faiss', 'PIL', 'kornia', 'fsspec', 'rich.progress'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, stdout=subprocess.DEVNULL)


INSTALLED, MODULE = (Path(sys.executable).with_name("anondata"),), (sys.executable, "-m", "anondata.tools.cli")


@pytest.mark.parametrize("command", [INSTALLED, MODULE])
def test_the_command_says_its_version(command: tuple[str | Path, ...]) -> None:
    done = subprocess.run([*command, "--version"], check=True, capture_output=True, text=True)
    assert done.stdout == f"anondata {anondata.__version__}\n"


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_has_help_that_says_what_it_does(anondata, name):
    shown = anondata(name, "--help")
    assert shown.code == 0
    assert len(shown.out.splitlines()) > 5


def test_every_option_has_a_help_text():
    for name in cli.COMMANDS:
        group = cli.cli.get_command(click.Context(cli.cli), name)
        commands = [group, *(group.commands.values() if isinstance(group, click.Group) else [])]
        for command in commands:
            assert command.help, command.name
            options = [p for p in command.params if isinstance(p, click.Option) and p.name != "out"]
            assert all(option.help for option in options), command.name


def test_no_arguments_show_the_help_as_usage(anondata):
    shown = anondata()
    assert shown.code == 2
    assert "Commands:" in shown.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["anonymise"], "error: No such command 'anonymise'"),
        (["anonymize"], "error: Missing argument 'SRC...'"),
        (["anonymize", "x.jpg"], "error: Missing option '--out'"),
        (["anonymize", "x.jpg", "--out", "y", "--fast"], "error: No such option"),
        (["anonymize", "x.jpg", "--out", "y", "--limit", "0"], "error: Invalid value for '--limit'"),
    ],
)
def test_usage_errors_say_what_is_wrong_and_exit_2(anondata, args, message):
    shown = anondata(*args)
    assert shown.code == 2
    assert message in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (WeightsError("no such file. Do this."), 1, "error: no such file. Do this.\n"),
        (PolicyError("unknown key"), 2, "error: unknown key\n"),
        (click.Abort(), 130, "error: interrupted\n"),
        (PermissionError(13, "Permission denied", "/secret/alice.jpg"), 1, "the system says: Permission denied"),
        (KeyError("alice.jpg"), 1, "unforeseen KeyError"),
    ],
)
def test_errors_become_one_line_without_names(anondata, monkeypatch, error, code, message):
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "main", fail)
    shown = anondata("doctor")
    assert shown.code == code
    assert message in shown.err
    assert "alice" not in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize("by", ["option", "environment"])
def test_debug_shows_the_traceback(anondata, monkeypatch, by):
    if by == "environment":
        monkeypatch.setenv("ANONDATA_DEBUG", "1")
    args = ["--debug"] if by == "option" else []
    shown = anondata(*args, "weights", "pull", "centreface")
    assert shown.code == 1
    assert "Traceback" in shown.err
    assert shown.err.endswith("shows all of them\n")
