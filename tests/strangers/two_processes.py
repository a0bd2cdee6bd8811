"""Run by test_contract.py: carries out all styles with one or two processes."""

import json
import sys
from functools import partial
from pathlib import Path

import torch
from styles import STYLES

from al_lightning import ActiveLearningLoop
from al_lightning.training.trainers import quiet

ALONE = ("compiled", "lazy layers", "stock callbacks")
"""Lightning refuses lazy weights under DDP, and the others would need other arguments of it."""


def main(out: Path, devices: int) -> None:
    strategy = {"strategy": "ddp_find_unused_parameters_true"} if devices > 1 else {}
    given = {"acquisition_size": 6, "num_cycles": 2, "monitors": []}
    found, rank = {}, 0
    for name, style in STYLES.items():
        if name in ALONE:
            continue
        parts = style.parts()
        trainer = partial(parts.pop("trainer"), devices=devices, **strategy)
        again = {**style.parts(), "trainer": partial(trainer, limit_train_batches=0)}
        with quiet():
            trained = ActiveLearningLoop(**parts, trainer=trainer, **given, **style.options)
            untrained = ActiveLearningLoop(**again, **given, **style.options)
            rank = trained._example.global_rank
            found[name] = {
                "trained": [r.num_labeled for r in trained.run() if r.num_labeled],
                "labeled": trained.data.labeled_indices.tolist(),
                "untrained": [r.query and r.query.indices for r in untrained.run()],
            }
    (out / f"{devices}_of_{rank}.json").write_text(json.dumps(found))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
