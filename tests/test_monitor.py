"""Tables and pictures: what a run shows, looked at."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from test_loop import TRAINER
from torch.utils.data import TensorDataset
from toys import Plain, points_data

from al_lightning import ActiveDataModule, ActiveLearningLoop, CycleResult
from al_lightning.monitor.pictures import as_image, progress_figure, query_figure
from al_lightning.monitor.tables import metrics_table


class Flat(Plain):
    """Takes the points drawn as 2 x 2 images."""

    def forward(self, x):
        return super().forward(x.flatten(1))


def image_loop(run_dir=None, **arguments):
    points = points_data().sets.train.tensors
    images = TensorDataset(points[0].view(-1, 1, 2, 2), points[1])
    data = ActiveDataModule(images, initial_labeled_size=20, batch_size=16)
    return ActiveLearningLoop(
        Flat(), data, trainer=TRAINER, acquisition_size=7, num_cycles=2, run_dir=run_dir
    )


def test_the_query_picture_shows_the_rows_with_label_prediction_and_score():
    loop = image_loop()
    query = loop.ask()
    loop.tell(query.indices)
    figure = query_figure(loop, loop.results[0])
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 7
    for axes, index, score, predicted in zip(
        shown, query.indices, query.scores, query.predicted, strict=True
    ):
        expected = as_image(loop.data.sets.pool[index][0])
        np.testing.assert_allclose(axes.images[0].get_array(), expected)
        label = int(loop.data.sets.pool[index][1])
        assert axes.get_title().splitlines() == [
            f"row {index}",
            f"label {label}",
            f"predicted {predicted}",
            f"score {score:.3f}",
        ]


def test_labels_are_blank_until_they_are_told(tmp_path):
    loop = image_loop(tmp_path)
    query = loop.ask()

    def labels():
        with open(tmp_path / "queries" / "cycle_1.csv", newline="") as file:
            return [row["label"] for row in csv.DictReader(file)]

    assert labels() == [""] * 7
    loop.tell(query.indices[:3], [2, 1, 0])
    assert labels() == ["2", "1", "0", "", "", "", ""]


def test_rows_that_are_no_images_have_no_picture(tmp_path):
    loop = ActiveLearningLoop(
        Plain(), points_data(), trainer=TRAINER, acquisition_size=7, num_cycles=2, run_dir=tmp_path
    )
    loop.run()
    assert (tmp_path / "queries" / "cycle_1.csv").exists()
    assert not (tmp_path / "queries" / "cycle_1.png").exists()
    assert (tmp_path / "progress.png").exists()


def test_progress_has_three_panels_against_the_cycle():
    results = [
        CycleResult(cycle, 500 * cycle, {"test_acc": cycle / 4, "train_loss": 1 / cycle})
        for cycle in (1, 2, 3)
    ]
    panels = progress_figure(results).axes
    assert [axes.get_title() for axes in panels] == ["test accuracy", "train loss", "labeled rows"]
    for axes, expected in zip(
        panels, ([0.25, 0.5, 0.75], [1, 1 / 2, 1 / 3], [500, 1000, 1500]), strict=True
    ):
        x, y = axes.lines[0].get_data()
        assert list(x) == [1, 2, 3]
        assert list(y) == pytest.approx(expected)


def test_metrics_that_come_later_are_empty_cells_before():
    results = [
        CycleResult(1, 10, {"test_acc": 0.5}, {"fit": 1.0}),
        CycleResult(2, 20, {"test_acc": 0.6, "val_acc": 0.7, "train_loss": 0.1}),
    ]
    header, rows = metrics_table(results)
    first, second = (dict(zip(header, row, strict=True)) for row in rows)
    assert (first["val_acc"], second["val_acc"]) == ("", 0.7)
    assert (first["fit_seconds"], second["fit_seconds"]) == ("1.0000", "")
    assert header[-1] == "val_acc"


@pytest.mark.parametrize(
    ("inputs", "shape"),
    [
        (torch.rand(1, 5, 4), (5, 4)),
        (torch.rand(3, 5, 4), (5, 4, 3)),
        (torch.rand(5, 4), (5, 4)),
        (torch.randn(3, 5, 4) * 3, (5, 4, 3)),
        (torch.full((1, 5, 4), -2.0), (5, 4)),
        (Image.new("L", (4, 5)), (5, 4, 3)),
        (torch.rand(7), None),
        (torch.rand(2, 5, 4), None),
        ("text", None),
    ],
)
def test_as_image(inputs, shape):
    pixels = as_image(inputs)
    assert (None if pixels is None else pixels.shape) == shape
    if pixels is not None:
        assert 0 <= pixels.min() <= pixels.max() <= 1
