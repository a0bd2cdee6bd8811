"""The journal: what was appended is read back, whatever was cut off its end."""

import json

import pytest

from al_lightning.journal import Journal

RECORDS = [{"cycle": 1, "text": 'a "quoted", {"crc": "no"}'}, {"cycle": 2, "values": [1.5, None]}]


@pytest.fixture
def path(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for fields in RECORDS:
        journal.append("fit", **fields)
    return journal.path


def test_what_is_appended_is_read_back(path):
    assert Journal(path).records == [{"event": "fit", **fields} for fields in RECORDS]
    assert all(json.loads(line)["crc"] for line in path.read_text().splitlines())


def test_find_and_of(path):
    journal = Journal(path)
    assert journal.find("fit", 2)["values"] == [1.5, None]
    assert journal.find("fit", 3) is None
    assert [record["cycle"] for record in journal.of("fit")] == [1, 2]
    assert journal.of("test") == []


def test_a_cut_at_every_byte_loses_the_torn_line_alone(path):
    content = path.read_bytes()
    first_line = content.index(b"\n") + 1
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        journal = Journal(path)
        assert len(journal.records) == (0 if cut < first_line else 1), cut
        journal.append("test", cycle=9)
        assert len(Journal(path).records) == len(journal.records)


def test_a_damaged_middle_line_is_named(path):
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"cycle": 1', b'"cycle": 7'))
    with pytest.raises(ValueError, match="damaged at line 1 of 2"):
        Journal(path)


def test_a_record_is_as_it_will_be_read_back():
    record = Journal().append("labels", indices=(1, 2))
    assert record == {"event": "labels", "indices": [1, 2]}


def test_nan_survives(tmp_path):
    Journal(tmp_path / "journal.jsonl").append("fit", loss=float("nan"))
    (record,) = Journal(tmp_path / "journal.jsonl").records
    assert record["loss"] != record["loss"]
