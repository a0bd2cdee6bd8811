"""Real processes over gloo: each answers as one alone does, and all hold the same split."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from al_lightning.run.journal import Journal

with socket.socket() as free:
    free.bind(("", 0))
    PORT = free.getsockname()[1]
SCRIPT = Path(__file__).parent / "ddp_run.py"


# As after seed_everything(7); and with as many threads as several processes have each.
ENVIRONMENT = {**os.environ, "PL_GLOBAL_SEED": "7", "OMP_NUM_THREADS": "1"}


def run(*commands):
    """What the programs printed that ran side by side."""
    running = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        for command in commands
    ]
    printed = [process.communicate(timeout=240) for process in running]
    for process, (_, errors) in zip(running, printed):
        assert process.returncode == 0, errors[-3000:]
    return "".join(out for out, _ in printed)


def check_ranks(out, alone, num_ranks):
    ranks = [json.loads((out / f"rank_{rank}.json").read_text()) for rank in range(num_ranks)]
    of_training = {
        "run",
        "labeled",
        "means",
        "answered",
        "best of a project",
        "steered",
    }  # on batches of twice the size, or thrice
    for name in alone.keys() - of_training - {"labels of its own", "unlabeled"}:
        assert ranks[0][name] == alone[name], name  # the first rank alone gathers the pool
    shares = [rank["unlabeled"][0] for rank in ranks]
    assert [len(share) for share in shares] == [3 * 7] * num_ranks
    assert len({tuple(share) for share in shares}) == num_ranks
    for rank in ranks:
        assert rank["test"] == alone["test"]
        for name in of_training:
            assert rank[name] == ranks[0][name], name
        assert [metrics["val_acc"] for metrics, _ in rank["best of a project"][:2]] == [0, 0]
        assert "got 3 answers for 4 rows" in rank["refused"]
        *cycles, reason = rank["steered"]
        assert (reason, len(cycles), len(cycles[-1][3])) == ("max_labels", 4, 40)
        assert {"stop_kappa", "stop_uncertainty"} <= cycles[-1][0].keys()
        assert "must have the same split, ranks [1" in rank["labels of its own"]
        assert rank["query of its own"] == [0, 1, 2, 3]
    assert len(ranks[0]["labeled"]) == 20 + 2 * 15
    labels, skipped, invalid = ranks[0]["answered"]
    assert (labels, len(skipped), len(invalid)) == ([[0, 2], [0, 2]], 2, 2)
    events = [r["event"] for r in Journal(out / "run" / "journal.jsonl").records]
    assert events == ["start", *["fit", "test", "query", "labels"] * 2, "fit", "test", "end"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    run([sys.executable, SCRIPT, out, "1"])
    return json.loads((out / "rank_0.json").read_text())


@pytest.mark.parametrize("devices", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_answer_as_one_alone_and_agree(tmp_path, alone, devices):
    printed = run([sys.executable, SCRIPT, tmp_path, str(devices)])
    check_ranks(tmp_path, alone, devices)
    assert printed.count("cycle 1/3") == 1


def torchrun(node, address, *arguments):
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--nnodes=2", "--nproc-per-node=1", f"--node-rank={node}"),
        *(f"--master-addr={address}", f"--master-port={PORT}"),
        *(SCRIPT, *arguments),
    ]


@pytest.mark.slow
def test_two_nodes_under_torchrun(tmp_path, alone):
    run(*(torchrun(node, "127.0.0.1", tmp_path, "1", "2") for node in (0, 1)))
    check_ranks(tmp_path, alone, 2)


@pytest.fixture
def two_machines():
    """Names of two network namespaces, each with an address of its own, joined by one cable."""
    names = ("al_node_0", "al_node_1")

    def ip(*arguments):
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip(
            "link",
            "add",
            "al_0",
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "al_1",
            "netns",
            names[1],
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces need root: {error}")
    try:
        for node, name in enumerate(names):
            ip("-n", name, "address", "add", f"10.97.0.{node + 1}/24", "dev", f"al_{node}")
            for device in ("lo", f"al_{node}"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            ip("netns", "delete", name)


@pytest.mark.slow
def test_two_machines_with_addresses_of_their_own(tmp_path, alone, two_machines):
    run(
        *(
            [
                *("ip", "netns", "exec", name, "env", f"GLOO_SOCKET_IFNAME=al_{node}"),
                *torchrun(node, "10.97.0.1", tmp_path, "1", "2"),
            ]
            for node, name in enumerate(two_machines)
        )
    )
    check_ranks(tmp_path, alone, 2)
