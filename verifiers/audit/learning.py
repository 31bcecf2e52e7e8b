"""What attackers learn from other people: how results differ from photos, and how to undo that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from anondata.verifiers.audit.evidence import FOLDS, Evidence, euclidean
from anondata.verifiers.audit.metrics import Bools, Floats, Integers

SHRINK = 0.3  # of a covariance towards a ball: there are fewer people than cells
FLOOR = (1.0 / 255) ** 2  # variance of a cell that is below one grey level: writing pictures as JPEG leaves as much
COMPONENTS = 30
HIDDEN = 64
STEPS = 60
RATE, DECAY = 0.02, 0.1
NO_ANGLE = 1e-6  # length of what is mapped to nothing but for rounding, beside some units
MIN_PAIRS = 6  # of other people; with fewer nothing is learnt


def whitened(after: Floats, model: Floats, evidence: Evidence, *, floor: float = FLOOR) -> Floats:
    """``(F, F)`` distances from features of results to those of photos, as a matched filter measures them.

    after, model: ``(F, D)``. Contrast that was lost is undone, and what differs between a result and the model of
    another photo of the same person is whitened away, both as other people's pairs show.

    Source: Turin (1960), doi 10.1109/TIT.1960.1057571, for matched filters; Ledoit, Wolf (2004) for shrinking.
    """
    out = np.full((len(evidence), len(evidence)), np.nan)
    for fold in range(FOLDS):
        test, train = evidence.folds == fold, (evidence.folds != fold) & (evidence.other_photo >= 0)
        if not test.any():
            continue
        out[test] = _filtered(after, model, test, np.flatnonzero(train), evidence.other_photo, floor)
    return out


def _filtered(after: Floats, model: Floats, test: Bools, train: Integers, other: Integers, floor: float) -> Floats:
    if len(train) < MIN_PAIRS or not after.shape[1]:
        return euclidean(after[test] - after.mean(axis=0), model - model.mean(axis=0))
    y, x = after[train], model[other[train]]
    middle_y, middle_x = y.mean(axis=0), x.mean(axis=0)
    y, x = y - middle_y, x - middle_x
    power = (x * x).mean(axis=0)
    whole = power.mean() + 1e-12
    gain = (x * y).mean() / whole
    gains = ((x * y).mean(axis=0) + gain * whole) / (power + whole)  # of each cell, shrunk to that of all
    rest = y - gains * x
    _, spread, axes = np.linalg.svd(rest / np.sqrt(len(rest)), full_matrices=False)
    ball = SHRINK * float((spread**2).sum()) / after.shape[1] + floor
    along = 1 / np.sqrt((1 - SHRINK) * spread**2 + ball) - 1 / np.sqrt(ball)

    def white(rows: Floats) -> Floats:
        straight: Floats = rows / np.sqrt(ball) + (rows @ axes.T * along) @ axes
        return straight

    return euclidean(white(after[test] - middle_y), white(gains * (model - middle_x)))


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is learnt from and tried on. train: rows to learn from; tried: rows to try on, of none of these photos."""

    train: Bools
    tried: Bools


def lessons(evidence: Evidence) -> Iterator[Lesson]:
    """One for each part of the people, and for every other round of their photos.

    The attacker learns on all photos of other people, and on photos of the same people that are not looked for.
    """
    rounds = evidence.table.rounds
    parities = (0, 1) if evidence.table.labelled and (rounds >= 0).any() else (None,)
    for fold in range(FOLDS):
        for parity in parities:
            tried = evidence.folds == fold
            if parity is not None:
                tried &= np.where(rounds >= 0, rounds % 2, 0) == parity
            if tried.any() and (~tried).sum() >= MIN_PAIRS:
                yield Lesson(~tried, tried)


def identity_targets(clear: Floats, owners: Integers, train: Bools) -> tuple[Floats, Floats]:
    """What photos are to be mapped to: ``(n, K)`` for the rows of ``train``, and ``(F, K)`` of every photo.

    The first components of clear photos, all of one spread; a person's photos are mapped to their mean.
    """
    middle = clear[train].mean(axis=0)
    _, spread, axes = np.linalg.svd(clear[train] - middle, full_matrices=False)
    kept = spread > 1e-6 * max(float(spread[:1].sum()), 1e-12)
    axes, spread = axes[kept][:COMPONENTS], spread[kept][:COMPONENTS]
    places = (clear - middle) @ axes.T / np.maximum(spread, 1e-12) * np.sqrt(train.sum())
    _, index = np.unique(owners[train], return_inverse=True)
    sums = np.zeros((int(index.max()) + 1, places.shape[1]))
    np.add.at(sums, index, places[train])
    return (sums / np.bincount(index)[:, None])[index], places


def ridge(x: Floats, y: Floats, tried: Floats, *, strength: float = 1.0) -> Floats:
    """Least squares with a penalty, relative to the mean power of a feature: what ``tried`` is mapped to."""
    middle, centre = x.mean(axis=0), y.mean(axis=0)
    x, tried, y = x - middle, tried - middle, y - centre
    penalty = strength * max(float((x * x).sum()) / len(x), 1e-12)
    if x.shape[1] <= len(x):  # the same, by whichever matrix is smaller
        weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    else:
        weights = x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y)
    mapped: Floats = tried @ weights + centre
    return mapped


def small_network(x: Floats, y: Floats, tried: Floats) -> Floats:
    """The same by a network with one hidden layer, drawn from a generator of its own."""
    scale = x.std(axis=0).mean() + 1e-9
    inputs, targets, asked = (
        torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))
        for rows in ((x - x.mean(axis=0)) / scale, y, (tried - x.mean(axis=0)) / scale)
    )
    drawn = torch.Generator().manual_seed(0)
    sizes = [(x.shape[1], HIDDEN), (HIDDEN, y.shape[1])]
    weights = [torch.randn(a, b, generator=drawn) / a**0.5 for a, b in sizes]
    for weight in weights:
        weight.requires_grad_()

    def mapped(rows: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.tanh(rows @ weights[0]) @ weights[1]
        return out

    mean, power = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    for step in range(1, STEPS + 1):
        loss = 1 - torch.nn.functional.cosine_similarity(mapped(inputs), targets).mean()
        slopes = torch.autograd.grad(loss, weights)
        with torch.no_grad():  # Adam (Kingma, Ba 2015) by hand: torch's own loads its compiler, which takes 7 s
            for weight, slope, m, v in zip(weights, slopes, mean, power, strict=True):
                m.lerp_(slope, 0.1)
                v.lerp_(slope.square(), 0.01)
                pace = RATE * (1 - 0.99**step) ** 0.5 / (1 - 0.9**step)
                weight.mul_(1 - RATE * DECAY).sub_(pace * m / (v.sqrt() + 1e-8))
    with torch.no_grad():
        found: Floats = mapped(asked).double().numpy()
    return found


def by_angle(mapped: Floats, places: Floats) -> Floats:
    """``(P, G)`` one less the cosine."""
    a, b = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), NO_ANGLE) for rows in (mapped, places))
    found: Floats = 1 - a @ b.T
    return found
