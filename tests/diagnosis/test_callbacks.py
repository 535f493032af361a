"""The callbacks in the real trainers: they measure, report, and leave the training as it was."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import resalign_utils as ra


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        branches = [nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 8)) for _ in range(3)]
        blocks = [ra.ResidualBlock(branch, skip=1.0, post=False) for branch in branches]
        return ra.ResNet(nn.Linear(6, 8), blocks, nn.Linear(8, 3))


def examples():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(40, 6, generator=generator), torch.randint(0, 3, (40,), generator=generator)


def check(alone, watched, monitor, steps):
    for one, other in zip(alone.values(), watched.values(), strict=True):
        assert torch.equal(one, other)
    assert [m.step for m in monitor.history] == steps
    assert monitor.history[0].fresh
    assert len({m.alignment for m in monitor.history}) == len(steps)


def test_lightning(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.loggers import CSVLogger

    from resalign_utils.diagnosis.lightning import AlignmentCallback

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()

        def training_step(self, batch, _):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.01)

    x, y = examples()

    def fit(*callbacks, logger=False):
        torch.manual_seed(3)
        module = Module()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on workers, and on libraries of its own
            trainer = lightning.Trainer(
                max_epochs=2,
                accelerator="cpu",
                accumulate_grad_batches=2,
                callbacks=list(callbacks),
                logger=logger,
                default_root_dir=tmp_path,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                log_every_n_steps=1,
            )
            trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True))
        return module.net.state_dict()

    callback = AlignmentCallback(x[:4], network=lambda module: module.net, every=3, refresh=2)
    logger = CSVLogger(tmp_path)
    with torch.random.fork_rng():
        check(fit(), fit(callback, logger=logger), callback.monitor, [0, 3, 6])  # 8 batches are 4 steps of an epoch
    logged = [row for row in logger.experiment.metrics if "alignment/alignment" in row]
    kept = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    assert "alignment/alignment" in kept[0]
    assert len(kept) - 1 + len(logged) >= 3
    assert callback.monitor.steps == 8


def test_hugging_face_trainer(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from resalign_utils.diagnosis.transformers import AlignmentCallback

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x, labels=None):
            logits = self.net(x)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    x, y = examples()
    rows = [{"x": image, "labels": label} for image, label in zip(x, y, strict=True)]

    def fit(*callbacks):
        model = Classifier()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pinned memory without a GPU
            arguments = transformers.TrainingArguments(
                output_dir=str(tmp_path),
                num_train_epochs=2,
                per_device_train_batch_size=10,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                logging_steps=1,
                disable_tqdm=True,
                seed=3,
            )
            trainer = transformers.Trainer(model, arguments, train_dataset=rows, callbacks=list(callbacks))
            trainer.train()
        return model.state_dict(), trainer.state.log_history

    callback = AlignmentCallback(x[:4], network=lambda model: model.net, every=3, refresh=2)
    with torch.random.fork_rng():
        alone, losses = fit()
        watched, history = fit(callback)
    check(alone, watched, callback.monitor, [0, 3, 6])
    taken = [row for row in history if "alignment/alignment" in row]
    assert [row["step"] for row in taken] == [0, 3, 6]
    assert [row["alignment/alignment"] for row in taken] == [m.alignment for m in callback.monitor.history]
    assert [row["loss"] for row in history if "loss" in row] == [row["loss"] for row in losses if "loss" in row]
