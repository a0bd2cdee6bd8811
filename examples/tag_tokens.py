"""A class for each token: a tiny transformer tags sentences of any length. A label is a list.

    python examples/tag_tokens.py

A tag follows from the word and the one before. The mask leaves the padding out of the scores.
"""

from functools import partial

import lightning as L
import torch
from jsonargparse import CLI
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from al_lightning import ActiveDataModule, ActiveLearningLoop

NUM_WORDS, NUM_TAGS, IGNORED = 60, 4, -100


def sentences(num, seed=0):
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, 20, (num,), generator=draw).tolist()
    words = [torch.randint(1, NUM_WORDS, (length,), generator=draw) for length in lengths]
    # A row is two tensors, words and tags; word 0 is padding.
    return [(one, (one + (one.roll(1) < 8)) % NUM_TAGS) for one in words]


def padded(rows):
    words, tags = zip(*rows, strict=True)
    return pad_sequence(words, True), pad_sequence(tags, True, padding_value=IGNORED)


class LitTagger(L.LightningModule):
    def __init__(self, width=32):
        super().__init__()
        self.words, self.places = nn.Embedding(NUM_WORDS, width), nn.Embedding(32, width)
        self.layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.1, batch_first=True)
        self.tags = nn.Linear(width, NUM_TAGS)

    def forward(self, words):
        x = self.words(words) + 0.3 * self.places(torch.arange(words.shape[1], device=words.device))
        return self.tags(self.layer(x, src_key_padding_mask=words == 0))  # (B, T, C)

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self(batch[0]).movedim(-1, 1), batch[1])
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def test_step(self, batch, batch_idx):
        hits = (self(batch[0]).argmax(-1) == batch[1])[batch[1] != IGNORED]
        self.log("test_acc", hits.float().mean(), batch_size=len(hits))

    def predict_step(self, batch, batch_idx):
        return {"logits": self(batch[0]), "mask": batch[0] != 0}

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def main(strategy: str = "margin", num_cycles: int = 5, run_dir: str = "runs/tags"):
    L.seed_everything(42)
    sizes = {"initial_labeled_size": 30, "batch_size": 8, "eval_collate_fn": padded}
    test_set = sentences(200, seed=1)
    data = ActiveDataModule(sentences(1000), test_set=test_set, collate_fn=padded, **sizes)
    trainer = partial(L.Trainer, max_epochs=15, enable_progress_bar=False)
    options = {"task": "dense", "strategy": strategy, "acquisition_size": 30}
    options |= {"num_cycles": num_cycles, "run_dir": run_dir}
    ActiveLearningLoop(LitTagger(), data, trainer=trainer, **options).run()


if __name__ == "__main__":
    CLI(main)
