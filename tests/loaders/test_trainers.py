"""Libraries that train take our loaders as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from anondata import Anonymizer
from anondata.loaders.torch import AnonymizedLoader


def loader() -> AnonymizedLoader:
    """Grey pictures, whose shade is to be learnt."""
    photos: Any = [(np.full((24, 24, 3), shade, np.uint8), float(shade)) for shade in range(8)]
    return AnonymizedLoader.from_dataloader(
        DataLoader(photos, batch_size=4),
        Anonymizer("faces", device="cpu"),
        fields={0: "image"},
        keep=1,
        transform=lambda sample: (torch.as_tensor(sample[0]) / 255.0, sample[1]),
    )


def net() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(24 * 24 * 3, 1))


def loss_of(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    images, shades = batch
    return (model(images)[:, 0] - shades).square().mean()


def test_a_model_is_trained_with_accelerate() -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    accelerator, made = accelerate.Accelerator(cpu=True), net()
    model, optimizer = accelerator.prepare(made, torch.optim.SGD(made.parameters(), lr=1e-4))
    safe, losses = loader(), []
    for _ in range(3):
        for batch in safe:
            loss = loss_of(model, accelerate.utils.send_to_device(batch, accelerator.device))
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            losses.append(loss.item())
    assert sum(losses[-2:]) < sum(losses[:2])


@pytest.mark.filterwarnings("default")  # its own, of what it calls in torch
def test_a_model_is_trained_with_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")
    losses = []

    class Shades(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def train_dataloader(self) -> AnonymizedLoader:
            return loader()

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            loss = loss_of(self.net, batch)
            losses.append(loss.item())
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e-4)

    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    lightning.Trainer(max_epochs=3, accelerator="cpu", default_root_dir=tmp_path, **silent).fit(Shades())
    assert len(losses) == 6
    assert sum(losses[-2:]) < sum(losses[:2])


def test_what_a_trainer_asks_of_a_loader_is_there() -> None:
    seen = ("sampler", "batch_sampler", "batch_size", "state_dict", "load_state_dict", "__len__", "__iter__")
    assert all(hasattr(loader(), name) for name in seen)
    assert not hasattr(loader(), "dataset")
