"""Runs in a real Jupyter kernel: one table in place, pictures, one bar, and no flood of lines."""

import base64
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
from nbclient import NotebookClient  # noqa: E402

ROOT = Path(__file__).parent.parent

PARTS = """
import lightning as L, torch, torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

x = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
y = x.flatten(1)[:, :3].argmax(1)
train_set, test_set = TensorDataset(x[:200], y[:200]), TensorDataset(x[200:], y[200:])

class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    def forward(self, x):
        return self.net(x)
    def training_step(self, batch, i):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss, on_epoch=True)
        return loss
    def test_step(self, batch, i):
        self.log("test_acc", (self(batch[0]).argmax(-1) == batch[1]).float().mean())
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)

model = Net()
"""
README = """
from functools import partial
import lightning as L
from al_lightning import ActiveDataModule, ActiveLearningLoop

data = ActiveDataModule(train_set, test_set=test_set, initial_labeled_size=100, batch_size=64)
loop = ActiveLearningLoop(model, data, trainer=partial(L.Trainer, max_epochs=10), strategy="margin",
                          acquisition_size=20, num_cycles=4, run_dir="runs/mine")
results = loop.run()
"""
COMPARE = """
from functools import partial
from al_lightning.compare import compare
def data(seed):
    return ActiveDataModule(train_set, test_set=test_set, initial_labeled_size=100, seed=seed)
try:
    compare(model=Net, data=data, trainer=partial(L.Trainer, max_epochs=1), out="runs/compared",
            strategies=["random", "margin"], seeds=[1, 2], acquisition_size=20, num_cycles=2)
except ValueError as error:
    print("refused:", error)
"""

DATA = """
from al_lightning import ActiveDataModule
def data(seed):
    return ActiveDataModule(train_set, test_set=test_set, initial_labeled_size=100, seed=seed)
"""
FROM_A_FILE = """
import parts
compare(model=parts.Net, data=parts.data, trainer=partial(L.Trainer, max_epochs=1), out="runs/two",
        strategies=["random", "margin"], seeds=[1], acquisition_size=20, num_cycles=2, jobs=1)
"""


def executed(cells, folder):
    """The cells of a notebook after a kernel has run them."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(book, timeout=200, resources={"metadata": {"path": str(folder)}}).execute()
    return book.cells


def html_of(output):
    return output.get("data", {}).get("text/html", "")


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    cells = [PARTS, README, "results", COMPARE, "loop.results[0].query", FROM_A_FILE]
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "parts.py").write_text(PARTS + DATA)
    return executed(cells, folder)


def test_a_run_is_one_table_with_its_pictures(cells):
    outputs = cells[1].outputs
    shown = [html_of(one) for one in outputs if html_of(one)]
    (table,) = [one for one in shown if "<table>" in one]
    assert len(re.findall("<tr>", table)) == 1 + 4  # grown in place, a row a cycle
    pictures = [base64.b64decode(one) for one in re.findall(r"base64,([^\"]+)", table)]
    assert len(pictures) == 2
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)


def test_nothing_else_stays_in_the_output(cells):
    outputs = cells[1].outputs
    text = "".join(one.get("text", "") for one in outputs)
    assert text.splitlines() == []
    others = [one for one in outputs if "<table>" not in html_of(one)]
    assert len(others) <= 1  # the place of the bar, which is empty by now
    assert all(html_of(one) == "" for one in others)


def test_results_are_shown_as_a_table(cells):
    (output,) = cells[2].outputs
    assert "<th>test_acc</th>" in html_of(output)
    assert len(re.findall("<tr>", html_of(output))) == 1 + 4


def test_a_comparison_of_parts_of_the_notebook_says_at_once_how(cells):
    text = "".join(one.get("text", "") for one in cells[3].outputs)
    assert text.startswith("refused:")
    assert "file" in text
    assert "ray" in text.lower()


def test_a_comparison_of_parts_in_a_file_is_shown_as_a_table(cells):
    (table,) = [html_of(one) for one in cells[5].outputs if html_of(one)]
    assert "<th>last test accuracy</th>" in table
    assert "mean of 1 seeds at 120 labels" in table


def test_a_query_is_shown_as_a_table(cells):
    (output,) = cells[4].outputs
    assert "cycle 1 asks for 20 rows" in html_of(output)
    assert len(re.findall("<tr>", html_of(output))) == 1 + 10


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(ROOT / "examples" / "mnist.ipynb", marks=pytest.mark.slow, id="mnist"),
        pytest.param(ROOT / "examples" / "own_project.ipynb", id="own_project"),
    ],
)
def test_the_notebooks_run(path, tmp_path, mnist_dir):
    book = nbformat.read(path, as_version=4)
    (tmp_path / "data").symlink_to(mnist_dir)
    cells = executed([cell.source for cell in book.cells if cell.cell_type == "code"], tmp_path)
    shown = [html_of(output) for cell in cells for output in cell.outputs]
    tables = [one for one in shown if "<table>" in one and "base64" in one]
    assert tables
    accuracies = [float(one) for one in re.findall(r"<td>(0\.\d{4}|1\.0000)</td>", tables[0])]
    assert max(accuracies) > 0.6


def test_a_notebook_has_no_outputs_that_could_be_out_of_date():
    books = sorted((ROOT / "examples").glob("*.ipynb"))
    assert len(books) == 2
    for book in books:
        assert all(not cell.get("outputs") for cell in nbformat.read(book, as_version=4).cells)
