"""Active learning on MNIST: train a small CNN, ask for the labels it is least sure of, repeat.

python train.py                                         # the default recipe: 1000 to 3000 labels
python train.py --config configs/tutorial.yaml          # the tutorial, as it was written
python train.py --active.strategy margin --trainer.accelerator gpu
python train.py --active.run_dir runs/mnist/version_0 --active.resume true
"""

from al_lightning import ActiveCLI, ActiveMNISTDataModule, LitSimpleCNN
from al_lightning.mnist import RECIPE

if __name__ == "__main__":
    ActiveCLI(
        LitSimpleCNN,
        ActiveMNISTDataModule,
        runs_dir="runs/mnist",
        config_file=RECIPE,
    )
