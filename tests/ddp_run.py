"""Run by test_ddp.py in processes of its own: ``python ddp_run.py DEVICES OUT_DIR``."""

import json
import sys
from functools import partial
from pathlib import Path

import lightning as L
from lightning.pytorch.utilities import rank_zero_only
from toys import QUIET, Plain, points_data

from al_lightning import ActiveLearningLoop, Strategy, by_score
from al_lightning.acquisition import margin
from al_lightning.inference import read_pool
from al_lightning.mc_dropout import MCDropout
from al_lightning.randomness import seeded
from al_lightning.trainers import quiet


def main(devices: int, out: Path) -> None:
    trainer = partial(
        L.Trainer,
        max_epochs=1,
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        **QUIET,
    )
    pools = {}
    for num_rows in (23, 120):  # pools of 3 and 100 rows
        with quiet():
            pool = read_pool(trainer(), Plain(), points_data(num_rows), by_score(margin))
        pools[num_rows] = {
            "indices": pool.indices.tolist(),
            "scores": pool.scores.tolist(),
            "predicted": pool.predicted.tolist(),
        }
    samples = Strategy(lambda pool, num, generator: pool.indices, needs=frozenset({"samples"}))
    with quiet(), seeded(0, "predict"):
        pool = read_pool(trainer(), MCDropout(Plain(), 4), points_data(57), samples)
    loop = ActiveLearningLoop(
        Plain(),
        points_data(121),
        trainer=trainer,
        acquisition_size=15,
        num_cycles=3,
        run_dir=out / "run",
    )
    results = loop.run()
    rank = rank_zero_only.rank
    state = {
        "pools": pools,
        "samples": pool.probs.tolist(),
        "asked": [result.query and result.query.indices for result in results],
        "labeled": loop.data.labeled_indices.tolist(),
    }
    (out / f"rank_{rank}.json").write_text(json.dumps(state))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
