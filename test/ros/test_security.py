"""The policy of SROS 2: its form, who may speak on which topic, and that real nodes fit it.

The PyPI wheels have no security plugins, so nothing is enforced here. What is tested with security
on is that a node without usable keys does not start.
"""

import fnmatch
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from executor_rig import executor_rig
from rig import rig

ROOT = Path(__file__).parents[2]
POLICY = ROOT / 'security' / 'policy.xml'
CHILDREN = {  # of the schema policy.xsd, version 0.2.0
    'policy': {'enclaves'},
    'enclaves': {'enclave'},
    'enclave': {'profiles'},
    'profiles': {'profile'},
    'profile': {'topics', 'services', 'actions'},
    'topics': {'topic'},
    'services': {'service'},
    'actions': {'action'},
}
ATTRIBUTES = {
    'policy': {'version'},
    'enclave': {'path'},
    'profile': {'ns', 'node'},
    'topics': {'publish', 'subscribe'},
    'services': {'reply', 'request'},
    'actions': {'call', 'execute'},
}
ENCLAVES = ('/lightvla', '/chunk_executor', '/operator', '/robot')
SPEAKERS = {  # of everything that leads to motion
    'lightvla/action_chunk': '/lightvla',
    'lightvla/status': '/lightvla',
    'target_pose': '/chunk_executor',
    'servo_node/pose_target_cmds': '/chunk_executor',
    'servo_node/delta_twist_cmds': '/chunk_executor',
    'instruction': '/operator',
    'enable': '/operator',
    'stop': '/operator',
    'ee_pose': '/robot',
    'gripper_state': '/robot',
    'third_person/image': '/robot',
    'wrist/image/compressed': '/robot',
    'servo_node/status': '/robot',
    'target_joint': None,
    'target_wrench': None,
    'servo_node/delta_joint_cmds': None,
}
CALLERS = {
    'servo_node/switch_command_type': '/chunk_executor',
    'franka_gripper/move/_action/send_goal': '/chunk_executor',
    'franka_gripper/grasp/_action/send_goal': '/chunk_executor',
    'franka_gripper/gripper_action/_action/send_goal': '/chunk_executor',
    'lightvla/reset': '/operator',
    'lightvla/pause': '/operator',
    'lightvla/judge_run': '/operator',
    'lightvla/run_instruction/_action/send_goal': '/operator',
    'lightvla/run_instruction/_action/cancel_goal': '/operator',
    'lightvla/change_state': '/operator',
    'chunk_executor/reset': '/operator',
    'chunk_executor/change_state': '/operator',
}


class Permissions:
    """What the enclaves of a policy may do; names are resolved as sros2 does it."""

    def __init__(self, path):
        self._allowed = []
        for enclave in ElementTree.parse(path).iter('enclave'):
            for profile in enclave.iter('profile'):
                for group in profile:
                    names = [self._resolved(each.text, profile) for each in group]
                    for deed, value in group.items():
                        assert value == 'ALLOW', 'a DENY also denies the other direction in Cyclone'
                        self._allowed.append((deed, enclave.get('path'), names))

    def enclaves_that(self, deed, name):
        """Return the enclaves that may do this with a topic, service or action's service."""
        found = set()
        for allowed, enclave, names in self._allowed:
            if deed == 'request' and allowed == 'call':
                names = [f'{each}/_action/{part}' for each in names for part in PARTS]
            elif allowed != deed:
                continue
            if any(fnmatch.fnmatchcase(name, each) for each in names):
                found.add(enclave)
        return found

    @staticmethod
    def _resolved(name, profile):
        start = profile.get('ns').rstrip('/') + '/'
        if name.startswith('/'):
            return name
        if name.startswith('~'):
            return start + profile.get('node') + name[1:]
        return start + name


PARTS = ('send_goal', 'cancel_goal', 'get_result')


def made(folder, *arguments):
    """Run make_keys.sh with a `ros2` that notes its arguments; return them and the result."""
    tool = folder / 'bin' / 'ros2'
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$@" >>{folder}/calls\n')
    tool.chmod(0o755)
    run = subprocess.run(
        [ROOT / 'tools' / 'make_keys.sh', *arguments],
        env=os.environ | {'PATH': f'{tool.parent}:{os.environ["PATH"]}'},
        capture_output=True,
        text=True,
    )
    calls = folder / 'calls'
    return run, calls.read_text().splitlines() if calls.exists() else []


def test_the_policy_has_the_form_that_sros2_reads():
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    root = ElementTree.parse(POLICY, parser).getroot()
    assert (root.tag, root.get('version')) == ('policy', '0.2.0')
    for element in root.iter():
        if element.tag is ElementTree.Comment:
            continue
        children = [each.tag for each in element if each.tag is not ElementTree.Comment]
        assert set(children) <= CHILDREN.get(element.tag, set())
        assert set(element.keys()) <= ATTRIBUTES.get(element.tag, set())
        if element.tag in ('topics', 'services', 'actions'):
            assert children
            assert element.items()
        if element.tag in ('topic', 'service', 'action'):
            assert element.text
            assert element.text == element.text.strip()
    # sros2 takes a comment beside the enclaves for an enclave without a path
    assert [each.tag for each in root.find('enclaves')] == ['enclave'] * len(ENCLAVES)
    assert tuple(each.get('path') for each in root.iter('enclave')) == ENCLAVES


@pytest.mark.parametrize('namespace', ['', 'left', 'cell/left'])
def test_each_command_has_one_speaker(namespace, tmp_path):
    keystore = tmp_path / 'keystore'
    run, calls = made(tmp_path, keystore, *([namespace] if namespace else []))
    assert run.returncode == 0, run.stderr
    policy = keystore / 'policy.xml'
    assert calls == ['security -h', f'security generate_artifacts -k {keystore} -p {policy}']
    permissions = Permissions(policy)
    start = f'/{namespace}' if namespace else ''
    for deed, table in (('publish', SPEAKERS), ('request', CALLERS)):
        for name, enclave in table.items():
            expected = {start + enclave} if enclave else set()
            assert permissions.enclaves_that(deed, f'{start}/{name}') == expected, name
            if start and not name.startswith('/'):
                assert not permissions.enclaves_that(deed, f'/{name}'), name


def test_no_keys_without_the_tool_or_for_a_bad_namespace(tmp_path):
    command = ROOT / 'tools' / 'make_keys.sh'
    environment = os.environ | {'PATH': '/usr/bin:/bin'}
    run = subprocess.run([command, tmp_path], env=environment, capture_output=True, text=True)
    assert run.returncode == 1
    assert 'sros2' in run.stderr
    run, calls = made(tmp_path, tmp_path / 'keystore', 'left|x')
    assert run.returncode == 2
    assert 'not a ROS namespace' in run.stderr
    assert not calls


def test_the_policy_node_does_only_what_its_enclave_may(policy_dir, tmp_path):
    with rig(policy_dir) as r:
        r.until(lambda: r.robot.statuses, 'the node')
        run, _ = made(tmp_path, tmp_path / 'keystore', r.namespace)
        assert run.returncode == 0, run.stderr
        check_node(Permissions(tmp_path / 'keystore' / 'policy.xml'), r.robot, 'lightvla')


@pytest.mark.parametrize(
    ('controller', 'gripper', 'package'),
    [
        ('crisp', 'none', 'std_msgs'),
        ('crisp', 'franka', 'franka_msgs'),
        ('crisp', 'gripper_command', 'control_msgs'),
        ('servo_twist', 'none', 'moveit_msgs'),
    ],
)
def test_the_executor_does_only_what_its_enclave_may(controller, gripper, package, tmp_path):
    pytest.importorskip(package)
    with executor_rig(controller=controller, gripper=gripper) as r:
        r.until(lambda: r.arm.statuses, 'the node')
        run, _ = made(tmp_path, tmp_path / 'keystore', r.namespace)
        assert run.returncode == 0, run.stderr
        check_node(Permissions(tmp_path / 'keystore' / 'policy.xml'), r.arm, 'chunk_executor')


def check_node(permissions, onlooker, name):
    """Compare the endpoints of a real node with what its enclave may do."""
    namespace = onlooker.get_namespace()
    me = (name, namespace)
    published = dict(onlooker.get_publisher_names_and_types_by_node(*me))
    served = dict(onlooker.get_service_names_and_types_by_node(*me))
    called = dict(onlooker.get_client_names_and_types_by_node(*me))
    assert f'{namespace}/{name}/status' in published
    assert f'{namespace}/{name}/reset' in served
    for deed, names in (('publish', published), ('reply', served), ('request', called)):
        for each in names:
            assert f'{namespace}/{name}' in permissions.enclaves_that(deed, each), (deed, each)


@pytest.mark.parametrize('keys', ['empty', 'missing'])
def test_a_node_without_usable_keys_does_not_start(keys, tmp_path):
    if keys == 'empty':
        (tmp_path / 'enclaves' / 'lightvla').mkdir(parents=True)
    security = {
        'ROS_SECURITY_ENABLE': 'true',
        'ROS_SECURITY_STRATEGY': 'Enforce',
        'ROS_SECURITY_KEYSTORE': str(tmp_path),
    }
    run = subprocess.run(
        [sys.executable, '-m', 'lightvla_ros.nodes.policy_node']
        + ['--ros-args', '--enclave', '/lightvla'],
        env=os.environ | security,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 1
    assert 'Traceback' not in run.stderr
    assert '[FATAL]' in run.stderr
