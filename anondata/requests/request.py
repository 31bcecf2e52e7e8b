"""A client asks for samples of a dataset, and gets a publication of its own, charged once.

::

    result = request("catalog.yaml", client="acme", dataset="portraits", where={"label": "dancing"}, n=500, out="out")

The client may ask for it, and enough is left → rows are chosen and drawn → each is anonymized and verified, by
stronger techniques until it passes; what does not is replaced by another → all of it is attacked, against its
originals → a card, a manifest, insights → charged → put in place. Whatever fails before the charge costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anondata.errors import AnondataError, LedgerError, OutputError, RequestError, UnknownClientError
from anondata.requests.result import RequestResult

if TYPE_CHECKING:
    from anondata.ledger import Ledger, Scope
    from anondata.randomness import RunKey
    from anondata.requests.catalog import Catalog
    from anondata.requests.terms import Terms

Show = Callable[[str, int, int], None]
"""Takes what is being done, how far it is, and of how much."""


@dataclass(frozen=True)
class Plan:
    """What a request would do.

    Args:
        policy: the policy in words, a line each.
        content_type: what is delivered.
        granted: how many samples the client would get.
        left: how many samples the client may still receive; None means any number.
        candidates: how many samples match.
    """

    policy: tuple[str, ...]
    content_type: str
    granted: int
    left: int | None
    candidates: int


def request(
    catalog: str | os.PathLike[str] | Catalog,
    *,
    client: str,
    dataset: str,
    n: int,
    out: str | os.PathLike[str],
    content_type: str | None = None,
    where: Mapping[str, str] | None = None,
    ledger: str | Path | Ledger | None = None,
    run_key: RunKey | bytes | None = None,
    own_code: Iterable[str] = (),
    insights: bool = True,
    as_many_as_there_are: bool = False,
    device: str = "auto",
    show: Show = lambda what, done, total: None,
) -> RequestResult:
    """Delivers ``n`` anonymized samples of a dataset to a client, in the layout of ``anondata publish``.

    The delivery is made beside ``out``, audited as a whole, charged once, and put in place in one rename. After an
    interruption the same call goes on, and charges nothing twice. Called again when all is done, it changes nothing.

    Args:
        catalog: the datasets and who may ask for them; see :mod:`anondata.requests.catalog`.
        client: who asks, and is charged.
        dataset: the catalog's name for the dataset.
        n: how many samples. Fewer come if no more pass; the result says so.
        out: a folder that does not exist yet, or is empty.
        content_type: may be left out if the dataset has only one.
        where: values of kept columns; a sample must have all of them.
        ledger: where quotas are kept; by default the catalog's.
        run_key: decides which samples are drawn; by default one that is kept for ``out``.
        own_code: modules whose classes the catalog's policies may name.
        insights: adds a column of texts on what anonymization took away.
        as_many_as_there_are: takes what the quota leaves, if that is less than ``n``.
        device: ``"auto"``, or a torch device.
        show: called with what is being done, how far it is, and of how much.

    Returns:
        What was delivered.

    Raises:
        CatalogError, PolicyError: what the operator wrote cannot be used.
        RequestError: the client may not ask for this, nothing matches, or an attacker names too many people.
        QuotaExceeded, UnknownClientError: the client may not receive so much.
        LedgerError: the ledger cannot be read or written.
        UnreadableSourceError, UndeclaredFieldError, WithheldError, OutputError: samples cannot be read or written.

    After any of these nothing was delivered.
    """
    from anondata.anonymizer import choose_device
    from anondata.requests.catalog import load_catalog
    from anondata.requests.delivery import Delivery
    from anondata.requests.terms import Asked, terms_of
    from anondata.requests.workfolder import WorkFolder

    _check_packages()
    asked = Asked(client, dataset, n, content_type, _texts_of(where), insights, as_many_as_there_are)
    terms = terms_of(load_catalog(_path(catalog)), asked, own_code)
    place = Path(out)
    _check_place(place, terms)
    key = terms.key(_key(place, run_key))
    with _opened(terms.catalog, ledger) as book, _disk(), WorkFolder(place, key) as work:
        return Delivery(terms, key, book, work, str(choose_device(device)), show).make()


def plan(
    catalog: str | os.PathLike[str] | Catalog,
    *,
    client: str,
    dataset: str,
    n: int,
    content_type: str | None = None,
    where: Mapping[str, str] | None = None,
    ledger: str | Path | Ledger | None = None,
    as_many_as_there_are: bool = False,
    own_code: Iterable[str] = (),
) -> Plan:
    """What :func:`request` would do, and whether it may. Anonymizes, writes and charges nothing.

    The arguments and errors are those of :func:`request`.
    """
    from anondata.policy_words import in_words
    from anondata.requests.catalog import load_catalog
    from anondata.requests.source import candidates, check_place, loaded, quiet
    from anondata.requests.terms import Asked, grant, left_for, terms_of

    _check_packages()
    asked = Asked(client, dataset, n, content_type, _texts_of(where), as_many_as_there_are=as_many_as_there_are)
    terms = terms_of(load_catalog(_path(catalog)), asked, own_code)
    with quiet():  # before the ledger is asked: what is wrong with the catalog is told first
        check_place(terms)
        found = candidates(terms, loaded(terms))
    with _opened(terms.catalog, ledger) as book:
        granted, left = grant(book, terms.scope, asked), left_for(book, terms.scope)
    return Plan(tuple(in_words(terms.policy)), terms.content_type, granted, left, len(found))


@dataclass(frozen=True)
class Offer:
    """A dataset that a client may ask for.

    Args:
        dataset: the catalog's name for it.
        title: its title.
        left: how many samples the client may still receive, by content type; None means any number.
    """

    dataset: str
    title: str
    left: Mapping[str, int | None]


def offers(
    catalog: str | os.PathLike[str] | Catalog, *, client: str, ledger: str | Path | Ledger | None = None
) -> list[Offer]:
    """Lists the datasets of a catalog that a client may ask for.

    Raises:
        CatalogError: the catalog cannot be used.
        LedgerError: the ledger cannot be read.
        LimitError: no client can have this name.
    """
    from anondata.ledger import Scope
    from anondata.requests.catalog import load_catalog

    Scope(client, "any", "any")
    known = load_catalog(_path(catalog))
    return [
        Offer(
            name,
            entry.title or name,
            {kind: _left(known, ledger, Scope(client, name, kind)) for kind in entry.content_types},
        )
        for name, entry in known.open_to(client).items()
    ]


def _left(catalog: Catalog, ledger: str | Path | Ledger | None, scope: Scope) -> int | None:
    from anondata.requests.terms import left_for

    try:
        with _opened(catalog, ledger) as book:
            return left_for(book, scope)
    except UnknownClientError:
        return 0


def _texts_of(where: Mapping[str, str] | None) -> dict[str, str]:
    return {str(name): str(value) for name, value in (where or {}).items()}


def _path(catalog: str | os.PathLike[str] | Catalog) -> Any:
    return os.fspath(catalog) if isinstance(catalog, str | os.PathLike) else catalog


def _check_packages() -> None:
    from anondata.publishing.publish import check_packages

    check_packages()


def _check_place(out: Path, terms: Terms) -> None:
    """Raises :class:`RequestError` for a place among the originals, which the next request would take for some."""
    from anondata.requests.source import local_place

    source = local_place(terms.catalog, terms.entry)
    if not out.name:
        raise RequestError("OUT must be a folder with a name, such as delivery/")
    if source is not None and out.resolve().is_relative_to(source.resolve()):
        raise RequestError("OUT lies in the dataset itself; choose another place")


def _key(out: Path, given: RunKey | bytes | None) -> RunKey:
    from anondata.keys import run_key
    from anondata.randomness import RunKey

    key = RunKey(given) if isinstance(given, bytes) else given or run_key(out, None)
    if key is None:  # pragma: no cover - it is made when it is not there
        raise OutputError("there is no run key")
    return key


@contextmanager
def _opened(catalog: Catalog, ledger: str | Path | Ledger | None) -> Iterator[Ledger]:
    from anondata.ledger import Ledger

    if isinstance(ledger, Ledger):
        yield ledger
        return
    place = ledger or catalog.ledger
    if place is None:
        raise LedgerError("no ledger says what the client may receive; name one with --ledger, or in the catalog")
    book = Ledger(place)
    try:
        yield book
    finally:
        book.close()


@contextmanager
def _disk() -> Iterator[None]:
    """Errors of the disk, in words that name no file."""
    try:
        yield
    except OSError as error:
        if isinstance(error, AnondataError):
            raise
        said = error.strerror or type(error).__name__
        raise OutputError(
            f"the request cannot be met: {said}; nothing was delivered. The same command goes on when that is mended"
        ) from error


__all__ = ["Offer", "Plan", "offers", "plan", "request"]
