"""MC dropout with and without sharing what comes before the first dropout.

Two sides over the same batches of ``MCDropout(LitSimpleCNN(dropout=0.5), K)`` on a CPU: the package
as it is, and the same with every layer run in every sample. The time is the process's own, so other
programs disturb it little. The promise: the first takes at most 0.8 of the time of the second.

python benchmarks/mc_dropout.py --threads 1
"""

import time
from unittest import mock

import torch
from common import arguments, header, ratio_line
from torch import Tensor

from al_lightning import LitSimpleCNN, MCDropout
from al_lightning.prediction.shared_prefix import SharedPrefix


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--samples", type=int, default=20, help="K")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(header(), flush=True)
    sampler = MCDropout(LitSimpleCNN(dropout=0.5), args.samples).eval()
    images = torch.rand(128, 1, 28, 28)
    shared, alone = [], []
    for _ in range(args.repeats):
        shared.append(seconds(sampler, images))
        with mock.patch.object(SharedPrefix, "forwards", return_value={}):
            alone.append(seconds(sampler, images))
    print(ratio_line(f"shared / each sample alone, K={args.samples}", shared, alone, at_most=0.8))


def seconds(sampler: MCDropout, images_B1HW: Tensor) -> float:
    """Processor time of one batch."""
    begin = time.process_time()
    with torch.inference_mode():
        sampler.predict_step((images_B1HW, None), 0)
    return time.process_time() - begin


if __name__ == "__main__":
    main()
