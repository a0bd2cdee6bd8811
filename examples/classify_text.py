"""Text by Hugging Face: is a review good or bad? MC dropout samples the transformer.

    pip install -e '.[examples]'
    python examples/classify_text.py

For your own text take ``load_dataset``, ``AutoTokenizer`` and
``AutoModelForSequenceClassification.from_pretrained``; nothing else changes.
"""

import random
from functools import partial

import lightning as L
import torch
from datasets import ClassLabel, Dataset, Features, Value
from jsonargparse import CLI
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
)

from al_lightning import ActiveDataModule, ActiveLearningLoop

OPINIONS = [["dull", "poor", "slow", "grim"], ["great", "fine", "lovely", "bright"]]
OTHERS = ["the", "film", "was", "and", "its", "plot", "a", "very", "cast", "end", "music", "seen"]
WORDS = {word: n for n, word in enumerate(["[PAD]", "not", *OPINIONS[0], *OPINIONS[1], *OTHERS])}


def review(seed):
    draw = random.Random(seed)
    label, is_turned = draw.randrange(2), draw.random() < 0.5
    text, opinion = draw.choices(OTHERS, k=draw.randrange(4, 10)), OPINIONS[label ^ is_turned]
    place = draw.randrange(len(text))
    text[place:place] = ["not"] * is_turned + [draw.choice(opinion)]
    return {"text": " ".join(text), "label": label}


class LitText(L.LightningModule):
    def __init__(self):
        super().__init__()
        sizes = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96}
        # MC dropout samples the other layers; no layer of its own draws that of the attention.
        sizes |= {"num_hidden_layers": 2, "attention_probs_dropout_prob": 0.0}
        self.bert = BertForSequenceClassification(BertConfig(vocab_size=len(WORDS), **sizes))

    def forward(self, **batch):
        return self.bert(**batch)  # an output with .logits

    def training_step(self, batch, batch_idx):
        self.log("train_loss", loss := self(**batch).loss, on_epoch=True)
        return loss

    def test_step(self, batch, batch_idx):
        right = self(**batch).logits.argmax(-1) == batch["labels"]
        self.log("test_acc", right.float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def main(strategy: str = "bald", num_cycles: int = 5, run_dir: str = "runs/text"):
    L.seed_everything(42)
    words = Tokenizer(models.WordLevel(WORDS))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]")
    columns = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    rows = Dataset.from_list([review(seed) for seed in range(1400)], features=columns)
    rows = rows.map(lambda row: tokenizer(row["text"]), remove_columns="text")
    pad = DataCollatorWithPadding(tokenizer)
    train_set, test_set = rows.select(range(1000)), rows.select(range(1000, 1400))
    how = {"initial_labeled_size": 60, "batch_size": 16, "collate_fn": pad, "eval_collate_fn": pad}
    data = ActiveDataModule(train_set, test_set=test_set, **how)
    trainer = partial(L.Trainer, max_epochs=15, enable_progress_bar=False)
    options = {"strategy": strategy, "mc_samples": 10, "acquisition_size": 60}
    options |= {"num_cycles": num_cycles, "run_dir": run_dir}
    ActiveLearningLoop(LitText(), data, trainer=trainer, **options).run()


if __name__ == "__main__":
    CLI(main)
