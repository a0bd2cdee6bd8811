"""``report.html``: all of a run on one page that asks for nothing else."""

import re
from functools import partial
from html.parser import HTMLParser

import lightning as L
import pytest
from toys import QUIET, Plain, points

from al_lightning import ActiveDataModule, ActiveLearningLoop
from al_lightning.__main__ import main
from al_lightning.monitor.report import report_of, write_report
from al_lightning.run.folder import records_of

NASTY = ["<script>alert(1)</script>", "a & b", '"quoted"']


class Checked(HTMLParser):
    """Notes what is open, what the page asks for, and its words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.asked, self.words = [], [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.asked += [v for k, v in attributes.items() if k in ("src", "href", "data")]
        assert tag != "script"
        if tag not in ("meta", "img", "path", "polyline", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)  # it is closed already

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def loop_in(folder, num_cycles=3):
    data = ActiveDataModule(
        points(80), test_set=points(20, seed=1), initial_labeled_size=10, seed=1, classes=NASTY
    )
    trainer = partial(L.Trainer, max_epochs=1, **QUIET)
    how = {"acquisition_size": 30, "num_cycles": num_cycles, "run_dir": folder}
    return ActiveLearningLoop(Plain(), data, trainer=trainer, strategy="margin", **how)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "mine"
    loop_in(folder).run()
    return folder


def test_a_finished_run_leaves_one_page_with_everything(run_dir):
    page = Checked((run_dir / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert all(one.startswith("data:image/png;base64,") for one in page.asked)
    for told in (
        "The run is over: 3 cycles are done. The last cycle had 70 labels.",
        *("test_acc", "train_loss", "Cycle 2, 40 labels: 30 rows asked", "strategy: margin"),
        *("The first 20 of 30 rows.", "torch", "Python", NASTY[0], NASTY[1]),
    ):
        assert told in page.words, told
    metrics = [line.split(",") for line in (run_dir / "metrics.csv").read_text().splitlines()]
    column = metrics[0].index("train_loss")
    assert all(f"{float(row[column]):.4f}" in page.words for row in metrics[1:])


def test_curves_have_a_point_for_each_cycle_and_the_right_heights(run_dir):
    page = report_of(run_dir, records_of(run_dir))
    figures = dict(re.findall(r"<figcaption>(\w+)</figcaption>(.*?)</figure>", page))
    results = loop_results(run_dir)
    assert {"test_acc", "train_loss"} <= figures.keys()
    for name, figure in figures.items():
        heights = [float(y) for y in re.findall(r"cy=([\d.]+)", figure)]
        values = [result.metrics[name] for result in results]
        order = sorted(range(3), key=lambda i: -heights[i])
        assert [values[i] for i in order] == sorted(values)


def loop_results(folder):
    data = loop_in(None).data
    trainer = partial(L.Trainer, max_epochs=1, **QUIET)
    return ActiveLearningLoop.resume(folder, Plain(), data, trainer=trainer, monitors=[]).results


def test_a_run_that_goes_on_is_reported_as_far_as_it_is(tmp_path, capsys):
    loop = loop_in(tmp_path / "run")
    loop.ask()
    assert not (tmp_path / "run" / "report.html").exists()
    main(["report", str(tmp_path / "run")])
    assert capsys.readouterr().out.endswith("report.html\n")
    page = Checked((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert "The run goes on: 1 cycle is done, and the last step was 'query'." in page.words
    assert "figcaption" not in page.open


def test_numbers_that_are_not_finite_are_shown_as_they_are(run_dir):
    records = [dict(record) for record in records_of(run_dir)]
    for record in records:
        if record["event"] == "fit" and record["cycle"] == 2:
            record["metrics"] = {"train_loss": float("nan"), "all_nan": float("inf")}
        elif record["event"] == "fit":
            record["metrics"] = {**record["metrics"], "all_nan": float("nan")}
    page = report_of(run_dir, records)
    assert "all_nan has no finite value." in page
    assert not re.search("[,=](nan|inf)", page)  # no place of a point
    assert "<td>nan</td>" in page


def test_missing_and_large_pictures_are_said(run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("al_lightning.monitor.report.MAX_PICTURE", 10)
    (run_dir / "queries" / "cycle_1.png").write_bytes(b"x" * 11)
    page = report_of(run_dir, records_of(run_dir))
    assert "The picture is larger than this page takes: cycle_1.png" in page
    (run_dir / "queries" / "cycle_1.png").unlink()
    assert "Its table is not there." in report_of(tmp_path, records_of(run_dir))


@pytest.mark.parametrize(
    ("journal", "message"),
    [(None, "holds no run to report on"), (b'{"event": "no"}\n{"a": 1}\n', "journal.jsonl")],
)
def test_a_folder_without_a_run_is_a_sentence(tmp_path, capsys, journal, message):
    if journal is not None:
        (tmp_path / "journal.jsonl").write_bytes(journal)
    with pytest.raises(SystemExit, match="2"):
        main(["report", str(tmp_path)])
    written = capsys.readouterr()
    assert (written.out, written.err.count("\n")) == ("", 1)
    assert re.search(f"al-lightning report: error: .*{message}", written.err)
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path)


def test_a_page_that_cannot_be_written_is_a_sentence(run_dir, tmp_path, capsys):
    (tmp_path / "journal.jsonl").write_bytes((run_dir / "journal.jsonl").read_bytes())
    (tmp_path / "report.html").mkdir()  # in its place
    with pytest.raises(SystemExit, match="2"):
        main(["report", str(tmp_path)])
    written = capsys.readouterr()
    assert (written.out, written.err.count("\n")) == ("", 1)
    assert "al-lightning report: error: " in written.err
