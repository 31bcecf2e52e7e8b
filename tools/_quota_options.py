"""Options of the commands that charge what they write."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from anondata.loaders.quota import Quota

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--client", metavar="NAME", help="Charge what is written to this client; needs --ledger."),
    click.option(
        "--ledger",
        metavar="URL",
        envvar="ANONDATA_LEDGER",
        help="Where quotas are kept: a file, or postgresql://user@host/database.  [env var: ANONDATA_LEDGER]",
    ),
    click.option(
        "--dataset-name", metavar="NAME", help="What limits call the dataset.  [default: unnamed, so limits on all]"
    ),
)


def quota_options(function: F) -> F:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def quota_of(client: str | None, ledger: str | None, dataset_name: str | None) -> Quota:
    """Keywords of :class:`anondata.loaders.quota.Quota`; none where no client is named.

    Raises: click.UsageError for options that belong together.
    """
    if client is None:
        if dataset_name is not None:
            raise click.UsageError("--dataset-name needs --client")
        return {}  # the variable may be set for other commands
    if ledger is None:
        raise click.UsageError("--client needs --ledger, or the variable ANONDATA_LEDGER")
    quota: Quota = {"client": client, "ledger": ledger}
    return quota if dataset_name is None else {**quota, "dataset_name": dataset_name}
