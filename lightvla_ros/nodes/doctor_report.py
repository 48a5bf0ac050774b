"""Judges what a doctor's node has heard: first the graph, then streams, pictures and state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rclpy.qos import QoSCompatibility, qos_check_compatible
from rosgraph_msgs.msg import Clock

from lightvla_ros.contract import Camera
from lightvla_ros.doctor.findings import PASS, Finding, failed, passed, warned
from lightvla_ros.doctor.picture_sheet import write_picture_sheet
from lightvla_ros.doctor.pictures import judge_pictures
from lightvla_ros.doctor.policy_folder import WITHOUT_PICTURES
from lightvla_ros.doctor.robot_state import judge_gripper, judge_pose
from lightvla_ros.doctor.streams import judge_clocks, judge_skews, judge_stream
from lightvla_ros.errors import ImageError, InstructionError, quoted
from lightvla_ros.msg import ActionChunk, VlaStatus
from lightvla_ros.nodes.doctor_node import DoctorNode, Heard
from lightvla_ros.nodes.launch_arguments import parameter, remapping
from lightvla_ros.nodes.policy_parameters import freshness_from
from lightvla_ros.nodes.topic_graph import Topic, TopicGraph, names_of
from lightvla_ros.policy.golden import References
from lightvla_ros.policy.preprocessor import fitted
from lightvla_ros.policy.prompt import PromptEncoder, check_instruction

MOST_FAULTS = 3  # kinds of unusable messages of a source that are named
READ = 'docs/reference/nodes.md says what the node takes'


@dataclass(frozen=True)
class Question:
    """What is asked besides the topics.

    :param policy_dir: The policy folder.
    :param references: What it has recorded; None if nothing.
    :param hand: How the hand stands, as the user sees it: ``open``, ``closed`` or None.
    :param sheet: Where the pictures are written to.
    """

    policy_dir: Path
    references: References | None
    hand: str | None
    sheet: Path


def judge_live(node: DoctorNode, question: Question) -> list[Finding]:
    """Judge all that was heard, and write the sheet of pictures.

    :raises OSError: When the sheet cannot be written.
    """
    freshness = freshness_from(node.values)
    period = node.manifest.action.control_period
    heard = node.cameras | node.states
    found = [*_graph(node), *_clock_topic(node)]
    for name, each in heard.items():
        found += _faults(name, each)
        if each.arrivals:
            found += judge_stream(name, each.arrivals, freshness, period)
    cameras, states = (
        {name: each.arrivals for name, each in group.items() if each.arrivals}
        for group in (node.cameras, node.states)
    )
    found += judge_skews(cameras, states, freshness)
    found += judge_clocks(cameras | states)
    found += _frames(node)
    found += _pictures(node, question)
    found += _state(node, question)
    found += _instruction(node, question)
    return found


def _graph(node: DoctorNode) -> Iterator[Finding]:
    """Judge publishers, types and QoS of the inputs, and other nodes on the outputs."""
    graph = TopicGraph(node, [each.wanted.topic for each in node.heard.values()])
    for name, each in node.heard.items():
        yield _publishers(node, graph, name, each)
    outputs = (('action_chunk', ActionChunk), ('status', VlaStatus))
    for name, kind in outputs:
        topic = Topic.of(node, name, f'~/{name}', f'~/{name}', kind)
        right, _ = graph.publishers(topic)
        if len(right) > 1:
            text = f'{len(right)} publishers on {topic.name}: {names_of(right)}'
            yield failed(name, text, 'end one of the nodes, or give one another namespace')


def _publishers(node: DoctorNode, graph: TopicGraph, name: str, heard: Heard) -> Finding:
    topic = heard.wanted.topic
    right, wrong = graph.publishers(topic)
    where = f'{topic.name} ({topic.kind})'
    if not right and name == 'instruction' and not wrong:
        return passed(name, f'{where}: nobody publishes yet; it is needed for the first motion')
    if not right:
        text, _, cure = graph.advice(topic).partition(': ')[2].rpartition('pass ')
        start = f'start its driver, or pass {remapping(topic.relative, "ITS_TOPIC")}'
        return failed(name, text.rstrip(' :;') or cure, f'pass {cure}' if cure else start)
    text = f'{where} from {names_of(right)}'
    qos = heard.subscription.qos_profile
    for each in right:
        compatible, why = qos_check_compatible(each.qos_profile, qos)
        if compatible == QoSCompatibility.ERROR:
            cure = f'publish it so, or set qos_overrides.{topic.name} ({READ})'
            return failed(name, f'{text}: QoS does not match: {why.strip()}', cure)
    if len(right) > 1 and not node.values.allow_several_publishers:
        cure = f'end one of them, or set {parameter("allow_several_publishers")}'
        return failed(name, f'{len(right)} publishers: {text}', cure)
    if wrong:
        cure = 'end it, or give it another topic'
        return warned(name, f'{text}; {names_of(wrong)} publishes another type there', cure)
    if name != 'instruction' and not heard.arrivals:
        return failed(name, f'{text}: no message came', 'look at its log: is it running?')
    return passed(name, text)


def _clock_topic(node: DoctorNode) -> Iterator[Finding]:
    topic = Topic.of(node, 'clock', '/clock', '/clock', Clock)
    right, _ = TopicGraph(node, [topic]).publishers(topic)
    if node.simulated and not right:
        cure = 'start the simulation, or leave use_sim_time out'
        yield failed('clock', 'use_sim_time is true and nobody publishes /clock', cure)
    elif right and not node.simulated:
        cure = 'pass use_sim_time:=true if the robot is simulated or replayed; else end that node'
        yield warned('clock', f'{names_of(right)} publishes /clock, use_sim_time is false', cure)


def _faults(name: str, heard: Heard) -> Iterator[Finding]:
    for text, count in list(heard.faults.items())[:MOST_FAULTS]:
        yield failed(name, f'{count} messages cannot be used: {text}', READ)


def _frames(node: DoctorNode) -> Iterator[Finding]:
    """Judge the frames: that of the pose is checked by the node, too."""
    pose = node.states.get('ee_pose')
    if pose is not None and pose.arrivals:
        frames = sorted({each.frame for each in pose.arrivals})
        shown, base = ', '.join(map(quoted, frames)), node.values.base_frame
        if frames == [base]:
            yield passed('frames', f'ee_pose is in {shown}, as base_frame says')
        else:
            cure = f'transform the pose into base_frame, or set {parameter("base_frame")}'
            yield failed('frames', f'ee_pose is in {shown}, but base_frame is {base!r}', cure)
    owners: dict[str, list[str]] = {}
    for name, each in node.cameras.items():
        for frame in {arrival.frame for arrival in each.arrivals}:
            owners.setdefault(frame, []).append(name)
    for frame, names in owners.items():
        if frame and len(names) > 1:
            text = f'{" and ".join(names)} both name the frame {quoted(frame)}'
            yield warned('frames', text, 'is one camera connected under two names? See the PNG')


def _pictures(node: DoctorNode, question: Question) -> Iterator[Finding]:
    images: dict[str, np.ndarray] = {}
    decoded: dict[str, np.ndarray] = {}
    for camera in node.manifest.cameras:
        heard = node.cameras[camera.name]
        try:
            parts = [_picture(node, camera, each, decoded) for each in heard.contents]
        except ImageError as error:
            text, _, cure = f'{error.code}: {error}'.rpartition('; ')
            yield failed(f'{camera.name} view', text or cure, cure if text else READ)
            continue
        if parts:
            decoded[camera.name] = parts[-1]
            images[camera.name] = np.array([fitted(each, camera) for each in parts])
    if question.references is None:
        text = 'the policy folder has no recorded pictures, so views are not compared'
        yield warned('pictures', text, WITHOUT_PICTURES)
        return
    found = list(judge_pictures(images, question.references.pictures))
    yield from found
    lines = {camera: ', '.join(_verdicts(camera, found)) for camera in images}
    write_picture_sheet(images, question.references.pictures, lines, question.sheet)
    yield passed('pictures', f'{question.sheet}: look at it: left what arrives, right what should')


def _verdicts(camera: str, found: list[Finding]) -> Iterator[str]:
    """Yield a camera's findings, short enough for a line above its pictures."""
    for each in found:
        if each.subject.startswith(f'{camera} '):
            what = each.subject.removeprefix(camera)
            why = '' if each.level == PASS else f': {each.text.partition("; likeness")[0]}'
            yield f'{each.level}{what}{why}'


def _picture(
    node: DoctorNode, camera: Camera, content: object, others: dict[str, np.ndarray]
) -> np.ndarray:
    return node.pictures.decode(camera, content, others)


def _state(node: DoctorNode, question: Question) -> Iterator[Finding]:
    spec, references = node.manifest.proprio, question.references
    recorded = None if references is None else references.states
    for name, heard in node.states.items():
        if heard.contents and name == 'ee_pose':
            yield from judge_pose(spec, heard.contents, recorded)
        elif heard.contents:
            yield from judge_gripper(spec, heard.contents, question.hand)


def _instruction(node: DoctorNode, question: Question) -> Iterator[Finding]:
    """Judge the last instruction that came, if one came."""
    if not node.instruction.contents:
        return
    text = node.instruction.contents[-1]
    manifest = node.manifest
    encode = PromptEncoder(manifest.prompt, question.policy_dir / manifest.prompt.tokenizer)
    cure = 'use the words of the training data'
    try:
        checked = check_instruction(text)
        encode(checked)
        unknown = encode.unknown_words(checked)
    except InstructionError as error:
        yield failed('instruction', f'{quoted(text)}: {error}', cure)
        return
    if unknown:
        listed = quoted(' '.join(unknown))
        yield warned('instruction', f'{quoted(text)}: the policy does not know {listed}', cure)
    else:
        yield passed('instruction', f'{quoted(text)}: the policy knows its words')
