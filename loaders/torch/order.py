"""The order in which a loader reads samples: where it began, how far it went, and how to go on from there."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Generator

from anondata.errors import PolicyError

States: TypeAlias = Mapping[str, str]
"""States of generators by name, in base64, so that they fit into JSON."""

_GLOBAL = "global"
_CHANGED = (
    "the sampler gives other samples than when the state was saved: give the same dataset, sampler, seed and "
    "set_epoch, or begin anew without the state"
)


@dataclass(frozen=True)
class Start:
    """Where to begin an epoch.

    batches: how many to leave out. order: a digest of which samples they held. at_iter, at_first: what the generators
    were when the sampler was asked for an iterator, and when that was asked for the first batch; empty: as they are.
    """

    batches: int = 0
    order: str = ""
    at_iter: States = field(default_factory=dict)
    at_first: States = field(default_factory=dict)


class Order:
    """A sampler or batch sampler in front of the user's own; the same draws at the same times.

    The global generator of torch is left as it was found where an epoch begins in the middle: it is the user's, who
    saves and restores it. Generators that were given to the loader or a sampler go on from where they would be.
    """

    def __init__(self, sampler: Iterable[Any], generators: Mapping[str, Generator]) -> None:
        self.sampler = sampler
        self.generators = dict(generators)
        self.start = Start()
        self.epoch: Epoch | None = None

    def __iter__(self) -> Epoch:
        self.epoch = Epoch(self, self.start)
        return self.epoch

    def begin_at(self, start: Start) -> None:
        """Where the next epoch begins. A DataLoader with workers asks for an iterator twice, and draws in between."""
        if not start.batches:
            for name, state in self.own(start.at_iter).items():
                _unpack(self.generators[name], state)
            start = replace(start, at_iter={})
        self.start = start

    def now(self) -> States:
        """The states of the generators that the loader or a sampler was given."""
        return {name: _pack(generator) for name, generator in self.generators.items()}

    def own(self, states: States) -> States:
        """Those of them that are not the global generator's."""
        return {name: state for name, state in states.items() if name in self.generators}

    def all_now(self) -> States:
        return {**self.now(), _GLOBAL: _pack(torch.default_generator)}

    @contextmanager
    def as_it_was(self, states: States) -> Iterator[None]:
        """Sets generators for what is drawn within; the global one only for that."""
        if not states:
            yield
            return
        found = torch.default_generator.get_state()
        for name, generator in (*self.generators.items(), (_GLOBAL, torch.default_generator)):
            if name in states:
                _unpack(generator, states[name])
        try:
            yield
        finally:
            if _GLOBAL in states:
                torch.default_generator.set_state(found)


class Epoch(Iterator[Any]):
    """One pass over a sampler. Nothing is drawn before a DataLoader would draw it.

    orders: for each batch that was given out and not yet taken back, a digest of all samples up to it.
    """

    def __init__(self, order: Order, start: Start) -> None:
        self._order, self._start, self._first = order, start, True
        self.at_iter: States = {**order.all_now(), **start.at_iter}
        self.at_first: States = start.at_first
        with order.as_it_was(start.at_iter):
            self._left = iter(order.sampler)
        self._digest = hashlib.blake2b(digest_size=16)
        self.orders: deque[str] = deque()

    def __next__(self) -> Any:
        if self._first:
            self._first = False
            self.at_first = self._start.at_first or self._order.all_now()
            with self._order.as_it_was(self._start.at_first):
                self._skip()
                return self._draw()
        return self._draw()

    def _skip(self) -> None:
        for _ in range(self._start.batches):
            try:
                self._draw()
            except StopIteration:
                raise PolicyError(_CHANGED) from None
        self.orders.clear()
        if self._start.batches and self._digest.hexdigest() != self._start.order:
            raise PolicyError(_CHANGED)

    def _draw(self) -> Any:
        keys = next(self._left)
        self._digest.update(repr(keys).encode(errors="surrogatepass"))
        self.orders.append(self._digest.hexdigest())
        return keys


class Passed:
    """How far an iteration went. order: None for a stream, where batches are only counted."""

    def __init__(self, start: Start, order: Order | None, *, persistent: bool) -> None:
        self._start, self._order, self._persistent = start, order, persistent
        self._epoch = order.epoch if order else None
        self._read, self._digest = start.batches, start.order
        self._given: Start | None = start if start.batches else None
        self._ended = False

    def skip(self, batches: Iterator[Any]) -> None:
        """Reads what a stream gave before; a sampler leaves it out by itself.

        Raises:
            PolicyError: the stream ends before.
        """
        for _ in range(0 if self._order else self._start.batches):
            if next(batches, self) is self:
                raise PolicyError("the stream is shorter than when the state was saved; begin anew without the state")

    def read(self) -> None:
        """Another batch has come from the workers."""
        self._read += 1
        self._digest = self._epoch.orders.popleft() if self._epoch else ""

    def give(self) -> None:
        """The consumer gets what was read last."""
        states = (self._epoch.at_iter, self._epoch.at_first) if self._epoch else ({}, {})
        self._given = Start(self._read, self._digest, *states)

    def end(self) -> None:
        self._ended = True

    def place(self) -> Start:
        """Where to go on. An epoch that has ended, or given nothing, is begun from its own generators alone."""
        if self._order is None or self._epoch is None:
            return Start() if self._ended or self._given is None else self._given
        if self._ended:  # persistent workers are not seeded again, so nothing is drawn before the first batch
            now = self._order.now()
            return Start(at_iter=now, at_first=now if self._persistent else {})
        if self._given is not None:
            return self._given
        return Start(at_iter=self._order.own(self._epoch.at_iter), at_first=self._order.own(self._epoch.at_first))


def start_of(state: Mapping[str, Any]) -> Start:
    """The place that a state holds.

    Raises:
        PolicyError: it holds none.
    """
    try:
        batches, order = state["batches"], state["order"]
        at_iter, at_first = dict(state["at_iter"]), dict(state["at_first"])
        sound = type(batches) is int and batches >= 0 and isinstance(order, str)
        if not sound or not all(isinstance(packed, str) for packed in (*at_iter.values(), *at_first.values())):
            raise TypeError
    except (KeyError, TypeError, ValueError) as error:
        raise PolicyError("this is not the state of an anonymized loader; give what state_dict() returned") from error
    return Start(batches, order, at_iter, at_first)


def generators_of(loader: Any) -> dict[str, Generator]:
    """The generators that a DataLoader's order is drawn from, each once, by where they were found."""
    batches = loader.batch_sampler
    places = {
        "loader": loader,
        "sampler": loader.sampler,
        "batch_sampler": batches,
        "batch_sampler.sampler": getattr(batches, "sampler", None),
    }
    found: dict[str, Generator] = {}
    for name, place in places.items():
        generator = getattr(place, "generator", None)
        known = (torch.default_generator, *found.values())
        if isinstance(generator, Generator) and all(generator is not other for other in known):
            found[name] = generator
    return found


def _pack(generator: Generator) -> str:
    return base64.b64encode(generator.get_state().numpy().tobytes()).decode()


def _unpack(generator: Generator, state: str) -> None:
    generator.set_state(torch.frombuffer(bytearray(base64.b64decode(state)), dtype=torch.uint8))
