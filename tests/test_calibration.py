"""Calibration error by a loop over bins, and the temperature that a model was spoiled by."""

import pytest
import torch

from al_lightning.statistics import calibration_error, temperature
from al_lightning.statistics.calibration import TEMPERATURES, sharpened


def by_bins(probs, labels, num_bins):
    total = 0.0
    for b in range(num_bins):
        inside = [
            (float(p.max()), int(p.argmax()) == int(y))
            for p, y in zip(probs, labels)
            if b / num_bins < float(p.max()) <= (b + 1) / num_bins
        ]
        if inside:
            confidence = sum(c for c, _ in inside) / len(inside)
            accuracy = sum(right for _, right in inside) / len(inside)
            total += len(inside) / len(labels) * abs(confidence - accuracy)
    return total


@pytest.mark.parametrize("num_bins", [1, 7, 15])
@pytest.mark.parametrize("N", [1, 40, 300])
def test_calibration_error_is_that_of_the_bins(N, num_bins):
    generator = torch.Generator().manual_seed(N)
    probs = (2 * torch.randn(N, 4, generator=generator, dtype=torch.float64)).softmax(1)
    labels = torch.randint(4, (N,), generator=generator)
    found = calibration_error(probs, labels, num_bins=num_bins)
    assert found == pytest.approx(by_bins(probs, labels, num_bins), abs=1e-12)


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_a_wrong_one(true):
    """Labels are drawn from the probabilities, which are then sharpened or flattened."""
    generator = torch.Generator().manual_seed(0)
    honest = (2 * torch.randn(20_000, 5, generator=generator)).softmax(1)
    labels = torch.multinomial(honest, 1, generator=generator)[:, 0]
    spoiled = sharpened(honest, 1 / true)
    assert temperature(spoiled, labels) == pytest.approx(true, rel=0.11)


def test_the_temperature_is_the_best_of_all_and_nearest_to_one():
    generator = torch.Generator().manual_seed(3)
    probs = (3 * torch.randn(50, 3, generator=generator)).softmax(1)
    labels = torch.randint(3, (50,), generator=generator)
    found = temperature(probs, labels)
    errors = {t: calibration_error(sharpened(probs, t), labels) for t in TEMPERATURES}
    assert errors[found] == min(errors.values())
    assert temperature(torch.eye(3), torch.arange(3)) == 1.0


def test_sharpened_is_the_softmax_of_divided_logits():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sharpened(logits.softmax(-1), 2.5), (logits / 2.5).softmax(-1))
    assert not sharpened(torch.tensor([[1.0, 0.0]]), 3.0).isnan().any()


@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        (torch.ones(2, 2) / 2, torch.zeros(3).long(), r"got \(2, 2\) and \(3,\)"),
        (torch.ones(0, 2), torch.zeros(0).long(), "N at least 1"),
        (torch.ones(1, 2) / 2, torch.tensor([2]), "whole numbers from 0 to 1"),
        (torch.ones(1, 2) / 2, torch.tensor([1.0]), "whole numbers from 0 to 1, got torch.float32"),
        (torch.tensor([[3.0, -2.0]]), torch.tensor([1]), "not logits"),
    ],
)
def test_bad_input_is_refused(probs, labels, message):
    for function in (calibration_error, temperature):
        with pytest.raises(ValueError, match=message):
            function(probs, labels)
