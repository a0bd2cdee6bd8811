"""What TensorBoard finds in a run folder: the run to compare with others, and no noise."""

from functools import partial

import lightning as L
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import (
    parse_experiment_plugin_data,
    parse_session_start_info_plugin_data,
)
from toys import Plain, points_data

from al_lightning import ActiveLearningLoop

TRAINER = partial(L.Trainer, max_epochs=2, enable_progress_bar=False, enable_checkpointing=False)


class Saved(Plain):
    def __init__(self, width=3):
        super().__init__()
        self.save_hyperparameters()


def run_in(folder, **options):
    options = {"strategy": "margin", "acquisition_size": 10, "num_cycles": 2} | options
    data = points_data(initial_labeled_size=20)
    loop = ActiveLearningLoop(Saved(), data, trainer=TRAINER, run_dir=folder, **options)
    return loop.run()


def read(folder):
    return EventAccumulator(str(folder)).Reload()


def hparams_of(events):
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    found = parse_session_start_info_plugin_data(content).hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in found.items()}


def metrics_of(events):
    content = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    return {info.name.tag for info in parse_experiment_plugin_data(content).metric_infos}


def test_a_run_has_its_options_and_its_last_metrics_to_compare(tmp_path):
    results = run_in(tmp_path / "run")
    events = read(tmp_path / "run")
    options = hparams_of(events)
    assert options["active.strategy"] == "margin"
    assert (options["active.acquisition_size"], options["active.warm_start"]) == (10, False)
    assert options["model.width"] == 3
    assert "active.target" not in options  # there is none
    metrics = metrics_of(events)
    assert metrics == {f"active/{name}" for name in results[-1].metrics}
    for tag in metrics:
        last = events.Scalars(tag)[-1]
        assert last.step == results[-1].num_labeled
        assert abs(last.value - results[-1].metrics[tag.removeprefix("active/")]) < 1e-6


def test_a_finished_run_that_is_looked_at_again_writes_nothing_more(tmp_path):
    run_in(tmp_path / "run")
    [file] = (tmp_path / "run").glob("events*")
    before = file.read_bytes()
    data = points_data(initial_labeled_size=20)
    ActiveLearningLoop.resume(tmp_path / "run", Saved(), data, trainer=TRAINER).run()
    assert file.read_bytes() == before


def test_a_cycle_has_curves_and_no_noise(tmp_path):
    run_in(tmp_path / "run")
    for cycle in (1, 2):
        tags = read(tmp_path / "run" / f"cycle_{cycle}").Tags()["scalars"]
        assert any("loss" in tag for tag in tags)
        assert not {"epoch", "hp_metric"} & set(tags)
    assert "hp_metric" not in read(tmp_path / "run").Tags()["scalars"]
