"""The option of every command that reads a policy."""

from __future__ import annotations

import click

own_code_option = click.option(
    "--own-code",
    metavar="MODULE",
    multiple=True,
    help="Module whose classes the policy may name, and which is then run; may be given several times.",
)
