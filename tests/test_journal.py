"""The journal: what was appended is read back, whatever was cut off its end."""

import errno
import json
import os
import random
import zlib

import pytest

from al_lightning.run.journal import Journal, read_records

RECORDS = [
    {"event": "start", "format": 2, "text": 'a "quoted", {"crc": "no"}\n'},
    {"event": "fit", "cycle": 1, "values": [1.5, None]},
    {"event": "test", "cycle": 1},
    {"event": "query", "cycle": 1, "indices": [3, 1]},
    {"event": "labels", "cycle": 1, "indices": [3], "labels": ["é"]},
    {"event": "fit", "cycle": 2},
]


@pytest.fixture
def path(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for record in RECORDS:
        journal.append(**record)
    return journal.path


def test_what_is_appended_is_read_back(path):
    assert Journal(path).records == read_records(path) == RECORDS
    assert all(json.loads(line)["crc"] for line in path.read_text().splitlines())
    assert read_records(path.with_name("none")) == []


def test_find_and_of(path):
    journal = Journal(path)
    assert journal.find("fit", 1)["values"] == [1.5, None]
    assert journal.find("fit", 3) is None
    assert [record["cycle"] for record in journal.of("fit")] == [1, 2]
    assert journal.of("end") == []


def test_a_cut_at_every_byte_loses_the_torn_line_alone(path):
    content = path.read_bytes()
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        whole = RECORDS[: content[:cut].count(b"\n")]
        assert read_records(path) == whole, cut
        assert path.stat().st_size == cut
        journal = Journal(path)
        assert journal.records == whole, cut
        journal.append(**RECORDS[len(whole)])
        assert path.read_bytes() == b"".join(content.splitlines(True)[: len(whole) + 1])


def test_a_damaged_line_is_named_whichever_it_is(path):
    lines = path.read_bytes().splitlines(keepends=True)
    for number in range(len(lines)):
        damaged = lines.copy()
        damaged[number] = damaged[number].replace(b'"event"', b'"evemt"')
        path.write_bytes(b"".join(damaged))
        with pytest.raises(ValueError, match=f"damaged at line {number + 1} of 6: its checksum"):
            Journal(path)


@pytest.mark.parametrize(
    "changed", [[0, 2, 3, 4, 5], [0, 1, 1, 2, 3, 4, 5], [0, 1, 3, 2, 4, 5], [1, 2, 3, 4, 5]]
)
def test_lines_taken_out_repeated_or_moved_are_noticed(path, changed):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[number] for number in changed))
    with pytest.raises(ValueError, match="its checksum is wrong"):
        Journal(path)


@pytest.mark.parametrize(
    ("before", "event", "cycle"),
    [
        (0, "fit", 1),
        (1, "fit", 2),
        (1, "test", 1),
        (2, "query", 1),
        (5, "fit", 1),
        (6, "labels", 2),
    ],
)
def test_events_out_of_order_are_noticed(path, before, event, cycle):
    path.unlink()
    journal = Journal(path)
    for record in RECORDS[:before]:
        journal.append(**record)
    journal.append(event, cycle=cycle)
    with pytest.raises(ValueError, match=f"damaged at line {before + 1} .*out of order"):
        read_records(path)


@pytest.mark.parametrize("fails", ["write", "fsync"])
def test_a_full_disk_leaves_the_file_as_it_was(path, monkeypatch, fails):
    content = path.read_bytes()
    journal = Journal(path)
    write, room = os.write, [7]

    def nearly_full(file, *line):
        if not line or not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, line[0][: room.pop()])

    with monkeypatch.context() as patch:
        patch.setattr(os, fails, nearly_full)
        with pytest.raises(OSError, match="No space left"):
            journal.append("test", cycle=2)
    assert path.read_bytes() == content
    assert journal.records == RECORDS
    journal.append("test", cycle=2)
    assert len(read_records(path)) == len(RECORDS) + 1


def test_a_line_is_on_the_disk_before_append_returns(path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file)), fsync(file)))
    Journal(path).append("test", cycle=2)
    assert [(one.st_ino, one.st_size) for one in synced] == [
        (path.stat().st_ino, path.stat().st_size)
    ]


def test_a_second_writer_is_noticed(path):
    first, second = Journal(path), Journal(path)
    first.append("test", cycle=2)
    with pytest.raises(RuntimeError, match="must have one writer"):
        second.append("test", cycle=2)
    assert len(read_records(path)) == len(RECORDS) + 1


def test_a_record_is_as_it_will_be_read_back():
    record = Journal().append("labels", indices=(1, 2))
    assert record == {"event": "labels", "indices": [1, 2]}


def test_history_tells_journals_apart(path):
    journal = Journal(path)
    copy = Journal.in_memory(journal.records)
    assert copy.history == journal.history
    copy.append("test", cycle=2, metrics={"a": 1})
    journal.append("test", cycle=2, metrics={"a": 2})
    assert copy.history != journal.history


def test_nan_survives(tmp_path):
    Journal(tmp_path / "journal.jsonl").append("start", loss=float("nan"))
    (record,) = read_records(tmp_path / "journal.jsonl")
    assert record["loss"] != record["loss"]


def test_another_versions_file_is_said_to_be_one(path):
    body = json.dumps({"event": "start", "config": {}})
    path.write_text(f'{body[:-1]}, "crc": "{zlib.crc32(body.encode()):08x}"}}\n')
    with pytest.raises(ValueError, match="of format 2, found None: another version"):
        read_records(path)


# ---- a file that others write to -----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_following_a_file_is_reading_it_anew(tmp_path, seed):
    draw = random.Random(seed)
    path = tmp_path / "journal.jsonl"
    writer, follower = Journal(path), Journal.watched(path)
    writer.append("start", config={})
    events = ["fit", "test", "query", "answers", "undo", "labels"]
    cycle = 1
    for number in range(40):
        event = events[number % len(events)]
        writer.append(event, cycle=cycle, note="é" * draw.randrange(4))
        if draw.random() < 0.3:
            writer.append("settings", cycle=writer.last["cycle"], changes={})
        cycle += event == "labels"
        if draw.random() < 0.4:
            known = len(follower.records)
            new = follower.follow()
            assert follower.records == writer.records
            assert follower.records[known:] == new
            assert follower.last == writer.last
            assert follower.history == writer.history == Journal(path).history
            assert follower.follow() == []
        if draw.random() < 0.2:  # and it may go on itself
            follower.follow()
            follower.append("settings", cycle=writer.last["cycle"], changes={"by": "the other"})
            writer.follow()


def test_following_notices_what_reading_notices(tmp_path):
    path = tmp_path / "journal.jsonl"
    writer = Journal(path)
    writer.append("start", config={})
    follower = Journal.watched(path)
    whole = path.read_bytes()
    writer.append("fit", cycle=1)
    line = path.read_bytes()[len(whole) :]
    path.write_bytes(whole + line.replace(b'"cycle": 1', b'"cycle": 2'))
    with pytest.raises(ValueError, match="damaged at line 2 of 2: its checksum is wrong"):
        follower.follow()
    path.write_bytes(whole + line)
    assert [record["event"] for record in follower.follow()] == ["fit"]
    before = path.read_bytes()
    writer.append("test", cycle=1)
    writer.append("fit", cycle=2)  # out of order
    with pytest.raises(ValueError, match="damaged at line 4 of 4: its event is out of order"):
        follower.follow()
    path.write_bytes(before + b'{"torn')
    assert follower.follow() == []
    assert path.read_bytes().endswith(b'{"torn')
    assert follower.follow(as_writer=True) == []
    assert path.read_bytes() == before
    path.write_bytes(before[:-10])
    with pytest.raises(ValueError, match="must only grow, found"):
        follower.follow()
