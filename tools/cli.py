"""The ``anondata`` command: finds sub-commands, and turns errors into one line and an exit code."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module

import click

import anondata
from anondata.errors import AnondataError, ArgumentError, PolicyError

OK, FAILURE, USAGE, SOME_WITHHELD, INTERRUPTED = 0, 1, 2, 3, 130

# Sub-command -> module in this room that holds it as `command`. A module is imported when it is asked for, and none
# of them imports torch at its top: `anondata --help` answers at once.
COMMANDS: Mapping[str, str] = {
    "anonymize": "anonymize",
    "audit": "audit",
    "calibrate": "calibrate",
    "card": "card",
    "doctor": "doctor",
    "gallery": "gallery",
    "policy": "policy",
    "preview": "preview",
    "publish": "publish",
    "quota": "quota",
    "request": "request",
    "shards": "shards",
    "verify": "verify",
    "weights": "weights",
}


class LazyGroup(click.Group):
    """A group that imports a sub-command's module when the sub-command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"anondata.tools.{COMMANDS[cmd_name]}").command
        return command


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 all is well, 1 failure, 2 usage, 3 some samples were withheld, 130 interrupted.",
)
@click.version_option(anondata.__version__, prog_name="anondata", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, envvar="ANONDATA_DEBUG", help="Show tracebacks; they may hold file names.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Anonymizes photos and checks every face with a second network before anything is written."""
    ctx.ensure_object(dict)["debug"] = debug


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command and exits with its code."""
    sys.exit(run(sys.argv[1:] if args is None else args))


def run(args: Sequence[str]) -> int:
    """Runs the command and returns its exit code; errors are printed on stderr, never raised."""
    state: dict[str, bool] = {"debug": bool(os.environ.get("ANONDATA_DEBUG"))}
    try:
        with _warnings_shown():
            return cli.main(args=list(args), prog_name="anondata", obj=state, standalone_mode=False) or OK
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.ClickException as error:
        return _say(error, error.format_message(), USAGE, debug=state["debug"], hint=_hint(error))
    except click.Abort as error:
        return _say(error, "interrupted", INTERRUPTED, debug=state["debug"])
    except (ArgumentError, PolicyError) as error:
        return _say(error, str(error), USAGE, debug=state["debug"])
    except AnondataError as error:
        return _say(error, str(error), FAILURE, debug=state["debug"])
    except BrokenPipeError:
        # Whoever read our output has left; Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except Exception as error:  # noqa: BLE001 - the last stop: a traceback of a user's machine can hold names
        return _say(error, _unforeseen(error), FAILURE, debug=state["debug"])


class _OnStderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=True)


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """What the library warns of is shown on stderr while the context lasts."""
    log, handler = logging.getLogger("anondata"), _OnStderr(logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _say(error: BaseException, message: str, code: int, *, debug: bool, hint: str = "") -> int:
    if debug:
        traceback.print_exception(error)
    click.echo(f"error: {message}{hint}", err=True)
    return code


def _hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"\n`{context.command_path} --help` tells how it is used." if context else ""


def _unforeseen(error: Exception) -> str:
    """What can be said of an error of a library without quoting it: its text could hold a name."""
    if isinstance(error, OSError) and error.strerror:
        return f"the system says: {error.strerror}. `anondata --debug …` shows where"
    return f"unforeseen {type(error).__name__}; `anondata --debug …` shows where. Please report it"


if __name__ == "__main__":
    main()
