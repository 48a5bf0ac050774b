"""The ring and the budget of a recording, and files whose end is missing."""

import itertools

import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from lightvla_ros.demonstrations import bag_writer
from lightvla_ros.demonstrations.bag_writer import BagWriter, Kept, RecordingError
from lightvla_ros.demonstrations.cut_off_mcap import damage_of
from lightvla_ros.demonstrations.rosbag import bags_in, opened

KIND = 'std_msgs/msg/String'
SECOND = 10**9


def text(number, size=10_000):
    """A std_msgs/String in CDR."""
    data = f'{number:06d}'.ljust(size, '.').encode() + b'\0'
    return b'\0\1\0\0' + len(data).to_bytes(4, 'little') + data


def numbers(*paths):
    """The numbers of the texts on /text in bags, in their order."""
    found = []
    for path in paths:
        with opened(path) as reader:
            for connection, _, data in reader.messages():
                if connection.topic == '/text':
                    found.append(int(reader.deserialize(data, KIND).data[:6]))
    return found


@pytest.fixture
def clock(monkeypatch):
    """The steady clock of the writer, which goes on by a second with each look."""
    monkeypatch.setattr(bag_writer.time, 'monotonic', itertools.count(0.0, 1.0).__next__)


def test_a_ring_keeps_its_length_and_what_is_latched(tmp_path, clock):
    writer = BagWriter(tmp_path, Kept(80.0, 10**9), {})
    writer.write('/latched', KIND, 1 * SECOND, text(7), latched=True)
    for number in range(300):
        writer.write('/text', KIND, number * SECOND, text(number))
    writer.close()
    pieces = bags_in(writer.folder)
    kept = numbers(*pieces)
    assert kept == list(range(kept[0], 300))
    # each message is looked at once or twice in a second of this clock
    assert 40 <= len(kept) <= 100
    assert len(pieces) <= bag_writer.PIECES + 2
    for piece in pieces:
        with opened(piece) as reader:
            assert next(reader.messages())[0].topic == '/latched'


def test_a_budget_shortens_a_ring_and_ends_a_whole_recording(tmp_path):
    old = tmp_path / 'old/old.mcap'
    old.parent.mkdir()
    old.write_bytes(bytes(500_000))
    ring = BagWriter(tmp_path, Kept(3600.0, 1_500_000), {})
    for number in range(1000):
        ring.write('/text', KIND, number * SECOND, text(number))
        if not number % 10:
            ring.flush()
    ring.close()
    files = [file for file in tmp_path.rglob('*') if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 1_600_000
    kept = numbers(*bags_in(ring.folder))
    assert kept == list(range(kept[0], 1000))
    assert len(kept) > 60
    assert old.stat().st_size == 500_000
    whole = BagWriter(tmp_path, Kept(0.0, 1_900_000), {})
    written = []

    def fill():
        while True:
            whole.write('/text', KIND, SECOND, text(len(written)))
            written.append(len(written))

    with pytest.raises(RecordingError, match='holds 0.00 GB, and record_budget is 0.00 GB; remove'):
        fill()
    whole.close()
    assert numbers(*bags_in(whole.folder)) == written


def test_a_file_is_whole_after_every_flush(tmp_path):
    writer = BagWriter(tmp_path, Kept(0.0, 10**9), {})
    for number in range(5):
        writer.write('/text', KIND, number * SECOND, text(number))
        writer.flush()
        [file] = writer.folder.rglob('*.mcap')
        assert damage_of(file) == []
        with AnyReader([file]) as reader:  # as it lies there
            assert reader.message_count == number + 1
    writer.close()
    assert numbers(*bags_in(writer.folder)) == list(range(5))


def test_a_clock_that_goes_back_begins_a_new_piece(tmp_path):
    writer = BagWriter(tmp_path, Kept(0.0, 10**9), {})
    for number, second in enumerate((10, 11, 10.5, 3, 4)):
        writer.write('/text', KIND, round(second * SECOND), text(number))
    writer.close()
    assert [numbers(piece) for piece in bags_in(writer.folder)] == [[0, 1, 2], [3, 4]]


def test_a_file_that_is_cut_off_anywhere_is_read_up_to_there(tmp_path):
    writer = BagWriter(tmp_path, Kept(0.0, 10**9), {})
    for number in range(12):
        writer.write('/text', KIND, number * SECOND, text(number, 300))
        writer.flush()
    writer.close()
    [file] = writer.folder.rglob('*.mcap')
    data, counts = file.read_bytes(), []
    cut = tmp_path / 'cut.mcap'
    for length in np.linspace(1000, len(data) - 1, 60).astype(int).tolist():
        cut.write_bytes(data[:length])
        [line] = damage_of(cut)
        assert line.startswith(f'{cut}: its end is missing; ')
        found = numbers(cut)
        assert found == list(range(len(found)))
        counts.append(len(found))
    assert counts == sorted(counts)
    assert counts[-1] == 12


def test_fault_damage_in_the_middle_is_passed_over_in_silence(tmp_path):
    """Zeros look like records to readers: they lost messages, and said nothing."""
    writer = BagWriter(tmp_path, Kept(0.0, 10**9), {})
    for number in range(40):
        writer.write('/text', KIND, number * SECOND, text(number, 300))
        if number % 10 == 9:
            writer.flush()
    writer.close()
    [file] = writer.folder.rglob('*.mcap')
    data, damaged = file.read_bytes(), tmp_path / 'damaged.mcap'
    records = data.index(b'000000')  # the first message
    last = data.index(b'000039')
    for begin in np.linspace(records, last - 800, 60).astype(int).tolist():
        # longer than a message, so that the beginning of one is within
        damaged.write_bytes(data[:begin] + bytes(800) + data[begin + 800 :])
        [line] = damage_of(damaged)
        assert line.startswith(f'{damaged}: is damaged behind byte ')
