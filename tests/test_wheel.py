"""The wheel has all that a user needs: its commands run from it alone, far from the source."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FAST = [
    *("--trainer.max_epochs", "1", "--trainer.limit_test_batches", "2"),
    *("--data.steps_per_epoch", "2", "--data.initial_labeled_size", "20"),
    *("--active.num_cycles", "2", "--active.acquisition_size", "10"),
    *("--active.candidate_size", "100", "--data.data_dir", str(ROOT / "data")),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Build the wheel from a copy of what git would commit, and install it by itself."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            copy = folder / "source" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "-q"]
    build = [*pip, "wheel", "--no-deps", "--wheel-dir", folder, folder / "source"]
    subprocess.run(build, check=True)
    [wheel] = folder.glob("al_lightning-*.whl")
    install = [*pip, "install", "--no-deps", "--target", folder / "site", wheel]
    subprocess.run(install, check=True)
    return folder / "site"


def run(site: Path, cwd: Path, *arguments: object, status: int = 0) -> str:
    program = "import sys; from al_lightning import __main__ as it; "
    program += "assert it.__file__.startswith(sys.argv[1]), it.__file__; it.main(sys.argv[2:])"
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", program, str(site), *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def test_it_holds_everything_and_nothing_else(site):
    [wheel] = site.parent.glob("*.whl")
    names = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    source = {
        path.relative_to(ROOT)
        for path in (ROOT / "al_lightning").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert source <= names
    assert {name.parts[0] for name in names} == {"al_lightning", "al_lightning-0.1.0.dist-info"}


def test_versions_agree(site):
    metadata = (site / "al_lightning-0.1.0.dist-info" / "METADATA").read_text(encoding="utf-8")
    version = re.search(r"^Version: (\S+)$", metadata, re.MULTILINE)[1]
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {version}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_mnist_runs_from_it(site, tmp_path):
    printed = run(site, tmp_path, "mnist", *FAST, "--active.run_dir", "runs/mine")
    assert "cycle 2/2" in printed
    assert (tmp_path / "runs" / "mine" / "metrics.csv").exists()


def test_strategies_are_compared_from_it(site, tmp_path):
    run(
        *(
            site,
            tmp_path,
            "compare",
            "--strategies",
            "random,margin",
            "--seeds",
            "1",
            "--jobs",
            "1",
        ),
        *("--out", "compared", *FAST),
    )
    assert (tmp_path / "compared" / "summary.md").exists()


def test_the_page_has_its_files(site, tmp_path):
    printed = run(site, tmp_path, "label", tmp_path / "nothing", status=2)
    assert re.search("error: .*nothing", printed)
    page = site / "al_lightning" / "label" / "page"
    assert {"page.html", "page.css", "page.js"} <= {path.name for path in page.iterdir()}
