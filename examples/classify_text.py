"""Text by a Hugging Face model: is a review good or bad? MC dropout samples the transformer.

    pip install 'al_lightning[examples]'
    python examples/classify_text.py

For your own text take ``AutoModelForSequenceClassification.from_pretrained`` and its tokenizer.
"""

import random
from functools import partial

import lightning as L
import torch
from jsonargparse import CLI
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForSequenceClassification

from al_lightning import ActiveDataModule, ActiveLearningLoop

OPINIONS = [["dull", "poor", "slow", "grim"], ["great", "fine", "lovely", "bright"]]
OTHERS = ["the", "film", "was", "and", "its", "plot", "a", "very", "cast", "end", "music", "seen"]
WORDS = {word: n for n, word in enumerate(["<pad>", "not", *OPINIONS[0], *OPINIONS[1], *OTHERS])}


def review(seed, length=12):
    draw = random.Random(seed)
    label, is_turned = draw.randrange(2), draw.random() < 0.5
    text, opinion = draw.choices(OTHERS, k=draw.randrange(4, 10)), OPINIONS[label ^ is_turned]
    place = draw.randrange(len(text))
    text[place:place] = ["not"] * is_turned + [draw.choice(opinion)]
    ids = torch.tensor([WORDS[word] for word in text] + [0] * (length - len(text)))
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "label": label}


class LitText(L.LightningModule):
    def __init__(self):
        super().__init__()
        sizes = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96}
        # MC dropout samples the other layers; no layer of its own draws that of the attention.
        sizes |= {"num_hidden_layers": 2, "attention_probs_dropout_prob": 0.0}
        self.bert = BertForSequenceClassification(BertConfig(vocab_size=len(WORDS), **sizes))

    def forward(self, input_ids, attention_mask):
        return self.bert(input_ids, attention_mask)  # an output with .logits

    def training_step(self, batch, batch_idx):
        logits = self(batch["input_ids"], batch["attention_mask"]).logits
        self.log("train_loss", loss := cross_entropy(logits, batch["label"]), on_epoch=True)
        return loss

    def test_step(self, batch, batch_idx):
        logits = self(batch["input_ids"], batch["attention_mask"]).logits
        self.log("test_acc", (logits.argmax(-1) == batch["label"]).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def main(strategy: str = "bald", num_cycles: int = 5, run_dir: str = "runs/text"):
    L.seed_everything(42)
    rows = [review(seed) for seed in range(1400)]
    sizes = {"initial_labeled_size": 60, "batch_size": 16}
    data = ActiveDataModule(rows[:1000], test_set=rows[1000:], classes=["bad", "good"], **sizes)
    trainer = partial(L.Trainer, max_epochs=15, enable_progress_bar=False)
    options = {"strategy": strategy, "mc_samples": 10, "acquisition_size": 60}
    options |= {"num_cycles": num_cycles, "run_dir": run_dir}
    ActiveLearningLoop(LitText(), data, trainer=trainer, **options).run()


if __name__ == "__main__":
    CLI(main)
