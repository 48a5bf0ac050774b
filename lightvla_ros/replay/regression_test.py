"""Makes a small regression test of a recording: a bag of a few inferences, and a test of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lightvla_ros.errors import DemonstrationError
from lightvla_ros.files import whole_folder
from lightvla_ros.replay.recorded import Hold, Inference, Message, Recording

TEST = '''"""Made by `lightvla replay --to-test` from {name}: what the policy
answered there, it must answer again."""

from pathlib import Path

from lightvla_ros import cli

POLICY = {policy!r}


def test_{function}():
    recording = str(Path(__file__).parent / '{bag}')
    arguments = ['--policy', POLICY, '--engine', {engine!r}, '--tolerant']
    assert cli.main(['replay', recording, *arguments]) == 0
'''
BAG = 'observations'


class Choice:
    """Chooses the inferences that matter, as they come by.

    They are the first one, the last one before each hold (the newest holds count), and those whose
    answer is another one now.

    :param most: How many are chosen at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._first: Inference | None = None
        self._last: Inference | None = None
        self._holds: list[tuple[Inference, Message]] = []
        self._different: list[Inference] = []

    def see(self, recorded: Inference | Hold, different: bool = False) -> None:
        """Take note of an inference, or of a hold."""
        if isinstance(recorded, Hold):
            if self._last is not None:
                self._holds = [*self._holds, (self._last, recorded.message)][-self._most :]
            return
        self._first = self._first or recorded
        self._last = recorded
        if different and len(self._different) < self._most:
            self._different.append(recorded)

    @property
    def chosen(self) -> list[Inference]:
        """The chosen inferences, in the recording's order."""
        held = [each for each, _ in reversed(self._holds)]
        ranked = [*self._different[:1], *held, self._first, *self._different, self._last]
        by_number = {each.number: each for each in ranked if each is not None}
        return sorted(list(by_number.values())[: self._most], key=lambda each: each.number)

    def messages(self) -> list[Message]:
        """Return the messages to be written, each once, in the recording's order."""
        chosen = self.chosen
        held = [message for each, message in self._holds if each in chosen]
        found = [message for each in chosen for message in each.messages]
        return sorted(dict.fromkeys((*found, *held)), key=lambda each: each.received)


def write_test(
    folder: Path, recording: Recording, choice: Choice, policy: Path, engine: str
) -> list[Inference]:
    """Write a folder with ``test_replay_NAME.py`` and its bag, which is compressed.

    :param policy: Folder of the policy; a path into this repository may be given relative.
    :returns: The inferences in it.
    :raises DemonstrationError: When there are none.
    :raises OSError: When the folder is there already, or cannot be written.
    """
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    chosen = choice.chosen
    if not chosen:
        raise DemonstrationError(f'{recording.path}: has no inference to make a test of')
    name = ''.join(each if each.isalnum() else '_' for each in folder.name).lower()
    text = TEST.format(
        name=recording.path.name, function=name, bag=BAG, policy=str(policy), engine=engine
    )
    messages = choice.messages()
    if recording.parameter_message is not None:
        messages.insert(0, replace(recording.parameter_message, received=messages[0].received))
    with whole_folder(folder) as part:
        writer = Writer(part / BAG, version=9, storage_plugin=StoragePlugin.MCAP)
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with writer:
            connections = {}
            for message in messages:
                if message.topic not in connections:
                    connections[message.topic] = writer.add_connection(
                        message.topic, message.kind, typestore=recording.types
                    )
                writer.write(connections[message.topic], message.received, message.data)
        (part / f'test_replay_{name}.py').write_text(text)
    return chosen
