"""Two real processes over gloo: the pool reads as on one, and every rank holds the same split."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from al_lightning.journal import Journal


def run(devices, out):
    out.mkdir()
    script = Path(__file__).parent / "ddp_run.py"
    done = subprocess.run(
        [sys.executable, script, str(devices), out],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PL_GLOBAL_SEED": "7"},  # as after seed_everything(7)
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((out / f"rank_{rank}.json").read_text()) for rank in range(devices)], done


def test_two_processes_read_the_pool_as_one_and_agree(tmp_path):
    (one,), _ = run(1, tmp_path / "one")
    ranks, done = run(2, tmp_path / "two")
    for rank in ranks:
        for num_rows, pool in one["pools"].items():
            assert rank["pools"][num_rows]["indices"] == pool["indices"]
            assert rank["pools"][num_rows]["predicted"] == pool["predicted"]
            assert rank["pools"][num_rows]["scores"] == pytest.approx(pool["scores"], abs=1e-6)
        # Dropout masks are the same on every rank: a sample is one network for the whole pool.
        assert torch.tensor(one["samples"]).shape == (37, 4, 3)
        torch.testing.assert_close(torch.tensor(rank["samples"]), torch.tensor(one["samples"]))
    assert ranks[0] == ranks[1]
    assert len(ranks[0]["labeled"]) == 20 + 2 * 15
    events = [r["event"] for r in Journal(tmp_path / "two" / "run" / "journal.jsonl").records]
    assert events == ["start", *["fit", "test", "query", "labels"] * 2, "fit", "test", "end"]
    assert done.stdout.count("cycle 1/3") == 1
