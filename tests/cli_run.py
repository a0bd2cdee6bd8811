"""train.py on the small files in ``data``: ``python cli_run.py`` with its flags."""

from pathlib import Path

from al_lightning import ActiveCLI, ActiveMNISTDataModule, LitSimpleCNN
from al_lightning.mnist import datamodule

if __name__ == "__main__":
    datamodule.ensure_mnist = lambda data_dir: data_dir
    config = Path(__file__).parent.parent / "configs" / "mnist.yaml"
    ActiveCLI(LitSimpleCNN, ActiveMNISTDataModule, config_file=config)
