"""The page of the policy node, over plain HTTP: what it serves, what it refuses, what it costs."""

import base64
import gc
import http.client
import json
import re
import socket
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
import pytest
import simplejpeg
from lightvla_ros.msg import VlaStatus
from rclpy.node import Node
from rig import rig
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String
from visualization_msgs.msg import Marker, MarkerArray

from lightvla_ros.contract import Camera
from lightvla_ros.errors import LightVLAError
from lightvla_ros.files import resource
from lightvla_ros.nodes.parameters import ParameterError
from lightvla_ros.nodes.view.pictures import patch_area
from lightvla_ros.nodes.view.server import MOST_WATCHERS

JSON = {'Content-Type': 'application/json'}


@contextmanager
def viewed(folder, **parameters):
    # how old pictures may be is not tested here, and a busy machine is late
    late = {'max_image_age': 5.0, 'max_silence': 5.0}
    with rig(folder, view=True, view_port=0, replan_steps=1, **late, **parameters) as r:
        yield r


def ask(r, method, path, body=None, headers=None):
    """Send a request; return status, headers and content."""
    connection = http.client.HTTPConnection(urlsplit(r.node.view.url).netloc, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def order(r, name, headers=JSON, **content):
    status, _, answer = ask(r, 'POST', f'/orders/{name}', json.dumps(content), headers)
    return status, json.loads(answer)['message']


@contextmanager
def watching(r, query=''):
    """Yield a function that returns the next event."""
    connection = http.client.HTTPConnection(urlsplit(r.node.view.url).netloc, timeout=10)
    connection.request('GET', f'/watch{query}')
    answer = connection.getresponse()

    def following():
        while not (line := answer.readline()).startswith(b'data: '):
            assert line, f'the stream has ended with {answer.status}'
        return json.loads(line[6:])

    try:
        yield following
    finally:
        connection.close()
        answer.close()


def until(following, condition, events=100):
    """Return the first event that fulfils the condition."""
    for _ in range(events):
        event = following()
        if condition(event):
            return event
    raise AssertionError(f'not in {events} events; the last was {str(event)[:500]}')


def test_the_page_is_served_whole_and_may_load_nothing_from_elsewhere(bundled_policy):
    with viewed(bundled_policy) as r:
        for path, kind in (('/', 'html'), ('/page.css', 'css'), ('/page.js', 'javascript')):
            status, headers, content = ask(r, 'GET', path)
            assert (status, kind in headers['Content-Type']) == (200, True)
            assert "default-src 'self'" in headers['Content-Security-Policy']
            assert headers['X-Frame-Options'] == 'DENY'
            assert b'http' not in content, 'no address of another site'
        assert ask(r, 'GET', '/../live_view.py')[0] == 404
        assert ask(r, 'GET', '/page')[0] == 404


def test_the_stream_tells_pictures_patches_and_numbers(bundled_policy):
    calibration = resource('config/calibration/libero_floor.yaml')
    with viewed(bundled_policy, view_calibration=str(calibration)) as r, watching(r) as following:
        waiting = until(following, lambda event: event['state'] == 'WAITING')
        assert waiting['reason'] == 'camera_missing:third_person,wrist'
        assert waiting['meaning'].startswith('no image has come from these cameras yet')
        r.run()
        event = until(following, lambda event: 'chunk' in event)
        assert event['instruction'] == 'pick up the milk'
        assert event['policy'].startswith('libero-tiny')
        assert event['points'][-1]['kept'] == [2, 2]
        assert set(event['points'][-1]['stages']) == {
            'preprocess',
            'encode',
            'act',
            'postprocess',
            'node',
        }
        chunk = event['chunk']
        assert chunk['kept'] == {'third_person': [1, 5], 'wrist': [6, 26]}
        path = chunk['paths']['third_person']
        assert (path['aspect'], len(path['places'])) == (1.0, 9)
        # the fake engine's chunk goes along x, to this camera, so down and larger in its picture
        assert np.diff([place[1] for place in path['places']]).min() > 0
        shown = until(following, lambda event: 'jpeg' in event['cameras'][1])['cameras'][1]
        picture = simplejpeg.decode_jpeg(base64.b64decode(shown['jpeg']))
        assert picture.shape == (96, 96, 3)
        assert shown['area'] == [0, 0, 1, 1], 'this policy sees the whole picture'


def test_the_pictures_that_the_policy_saw(bundled_policy):
    with viewed(bundled_policy) as r:
        r.run()
        assert order(r, 'hold')[0] == 200
        r.until_state(VlaStatus.HOLDING, 'paused')
        with watching(r, '?seen') as following:
            first = until(following, lambda event: 'jpeg' in event['cameras'][0])
            ages = [following()['cameras'][0] for _ in range(5)]
        assert all('jpeg' not in camera for camera in ages), 'the same picture is sent once'
        assert ages[-1]['age'] > first['cameras'][0]['age']


def test_hold_lasts_until_release_whatever_else_comes(bundled_policy):
    with viewed(bundled_policy) as r:
        r.run()
        assert order(r, 'hold') == (200, 'paused')
        r.until_state(VlaStatus.HOLDING, 'paused')
        moved = len(r.robot.moves())
        assert order(r, 'instruct', text='pick up the salad dressing') == (200, 'sent')
        assert order(r, 'hold')[0] == 200
        r.settle()
        assert (r.robot.state, len(r.robot.moves())) == ((VlaStatus.HOLDING, 'paused'), moved)
        assert order(r, 'release')[0] == 200
        r.until(lambda: len(r.robot.moves()) > moved, 'motion')
        assert r.robot.moves()[-1].instruction == 'pick up the salad dressing'
        assert order(r, 'reset') == (200, 'waiting for an instruction')
        r.until_state(VlaStatus.WAITING, 'no_instruction')


def test_an_instruction_goes_through_the_topic_of_all(bundled_policy):
    """So the rule of one publisher holds for it as well, and nothing of it stays behind."""
    with viewed(bundled_policy) as r:
        r.matched()
        r.robot.feeding = True
        r.robot.destroy_publisher(r.robot.instruction_publisher)
        heard = []
        topic = f'{r.namespace}/instruction'
        r.robot.create_subscription(String, topic, lambda said: heard.append(said.data), 10)
        assert order(r, 'instruct', text='pick up the milk') == (200, 'sent')
        r.until(r.robot.moves, 'the first chunk')
        r.until(lambda: heard == ['pick up the milk'], 'the same instruction on the topic')
        r.until(lambda: r.robot.count_publishers(topic) == 0, 'its publisher to go')


def test_fault_an_instruction_that_is_none(bundled_policy):
    with viewed(bundled_policy) as r:
        for text, message in (
            ('', 'sent, but it will be refused: '),
            ('x' * 600, 'sent, but it will be refused: '),
            (7, 'an instruction must be text'),
            ('\ud800', 'UnicodeEncodeError'),
        ):
            status, answer = order(r, 'instruct', text=text)
            assert status in (409, 500)
            assert message in answer
            assert '\n' not in answer


def test_fault_an_order_that_the_node_refuses(bundled_policy):
    with viewed(bundled_policy, autostart=False) as r:
        assert order(r, 'hold') == (
            409,
            'the node is not active: nothing moves, and the pause is not stored',
        )


def test_fault_another_page_gives_orders(bundled_policy):
    with viewed(bundled_policy) as r:
        r.run()
        for headers, status in (
            ({**JSON, 'Host': 'evil.example:8642'}, 403),  # DNS rebinding
            ({**JSON, 'Host': 'localhost.evil.example'}, 403),
            ({**JSON, 'Host': ''}, 403),
            ({**JSON, 'Origin': 'https://evil.example'}, 403),
            ({**JSON, 'Origin': 'http://localhost:1'}, 403),  # another program's page
            ({**JSON, 'Origin': 'null'}, 403),
            ({**JSON, 'Sec-Fetch-Site': 'cross-site'}, 403),
            ({'Content-Type': 'text/plain'}, 415),  # what a form of any page may send
            ({}, 415),
        ):
            assert order(r, 'hold', headers)[0] == status, headers
            assert not r.node.runner.supervisor.paused
            if status == 403:
                assert ask(r, 'GET', '/watch', headers=headers)[0] == 403, headers


def test_own_names_of_the_computer(bundled_policy):
    with viewed(bundled_policy) as r:
        for host in ('localhost', 'localhost:9000', '127.0.0.1:8642', '[::1]:8642'):
            assert ask(r, 'GET', '/', headers={'Host': host})[0] == 200
            origin = {'Host': host, 'Origin': f'http://{host}', **JSON}
            assert order(r, 'reset', origin)[0] == 200


def test_fault_an_order_that_makes_no_sense(bundled_policy):
    with viewed(bundled_policy) as r:
        for path, body, headers, status in (
            ('/orders/hold', b'[]', JSON, 400),
            ('/orders/hold', b'{', JSON, 400),
            ('/orders/hold', b'[' * 8000, JSON, 400),
            ('/orders/hold', b' ' * 9000, JSON, 413),
            ('/orders/hold', b'{}', {**JSON, 'Content-Length': '-1'}, 411),
            ('/orders/stop', b'{}', JSON, 404),
            ('/hold', b'{}', JSON, 404),
        ):
            assert ask(r, 'POST', path, body, headers)[0] == status, (path, body[:10])


def test_fault_too_many_who_look(bundled_policy):
    """The last one is told; when one leaves, another may look."""
    with viewed(bundled_policy) as r:
        r.run()
        streams = [watching(r) for _ in range(MOST_WATCHERS)]
        for stream in streams:
            stream.__enter__()()
        assert ask(r, 'GET', '/watch')[0] == 503
        assert order(r, 'hold')[0] == 200, 'who cannot look can hold'
        for stream in streams:
            stream.__exit__(None, None, None)

        def free():
            with watching(r) as following:
                try:
                    return following()
                except AssertionError:
                    return None

        r.until(free, 'a place')


def test_fault_who_connects_and_says_nothing(bundled_policy):
    """Connections without a request take neither the page nor the node."""
    with viewed(bundled_policy) as r:
        place = urlsplit(r.node.view.url)
        silent = [socket.create_connection((place.hostname, place.port)) for _ in range(30)]
        r.run()
        for connection in silent:
            connection.close()
        r.until(lambda: _answers(r), 'the page')


def _answers(r):
    try:
        return ask(r, 'GET', '/')[0] == 200
    except OSError:
        return False


def test_nothing_is_encoded_while_nobody_looks(bundled_policy):
    with viewed(bundled_policy) as r:
        r.run()
        r.settle()
        assert not r.node.view._small._kept
        threads = threading.active_count()
        with watching(r) as following:
            until(following, lambda event: 'jpeg' in event['cameras'][0])
            assert r.node.view._small._kept
        r.until(lambda: threading.active_count() <= threads, 'the thread of the stream to end')


def test_fault_a_picture_that_cannot_be_shown(bundled_policy):
    with viewed(bundled_policy, image_transport='compressed') as r:
        publisher = r.robot.create_publisher(CompressedImage, 'wrist/image/compressed', 1)
        r.until(publisher.get_subscription_count, 'the node')
        with watching(r) as following:
            message = CompressedImage(format='jpeg', data=b'\xff\xd8 and no more')
            message.header.stamp = r.robot.get_clock().now().to_msg()
            publisher.publish(message)
            event = until(following, lambda event: 'error' in event['cameras'][1])
        assert event['cameras'][1]['error'].startswith('bad_data: ')


def test_fault_a_page_that_cannot_be_served(bundled_policy, tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(ParameterError, match=f'view_port {port}: Address already in use'),
            rig(bundled_policy, view=True, view_port=port),
        ):
            pass
    for name, value, message in (
        ('view_address', 'robot', 'it must be an IP address'),
        ('view_calibration', str(tmp_path / 'none.yaml'), 'cannot be read: No such file'),
    ):
        with (
            pytest.raises(ParameterError, match=message),
            rig(bundled_policy, view=True, view_port=0, **{name: value}),
        ):
            pass


@pytest.mark.parametrize('what', ['view', 'record'])
def test_fault_a_node_that_is_refused_lives_on(bundled_policy, tmp_path, what):
    """Its services were there until garbage was collected."""
    (tmp_path / 'file').write_text('')
    gc.disable()  # a reference that the exception holds must not matter, either
    try:
        with socket.create_server(('127.0.0.1', 0)) as other:
            port = other.getsockname()[1]
            parameters = {
                'view': {'view': True, 'view_port': port},
                'record': {'record': True, 'record_folder': str(tmp_path / 'file')},
            }[what]
            with pytest.raises(LightVLAError) as refused, rig(bundled_policy, **parameters):
                pass
        looking = Node('looking')
        try:
            time.sleep(0.5)  # discovery
            offered = [name for name, _ in looking.get_service_names_and_types()]
            assert not [name for name in offered if name.endswith('/lightvla/pause')], refused
        finally:
            looking.destroy_node()
    finally:
        gc.enable()


def test_the_page_goes_with_the_node(bundled_policy):
    with viewed(bundled_policy) as r, watching(r) as following:
        following()
        place = urlsplit(r.node.view.url)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((place.hostname, place.port))
    assert not [thread for thread in threading.enumerate() if thread.name in ('page', 'orders')]


def test_the_chunk_as_markers(bundled_policy):
    with rig(bundled_policy) as r:
        seen = []
        r.robot.create_subscription(MarkerArray, 'lightvla/debug/chunk_markers', seen.append, 10)
        r.run()
        r.until(lambda: len(seen) >= 2, 'markers')
        line, needles, balls = seen[-1].markers
        assert {marker.header.frame_id for marker in seen[-1].markers} == {'panda_link0'}
        assert (line.type, len(line.points), len(line.colors)) == (Marker.LINE_STRIP, 9, 9)
        # eight steps of 0.1 x 0.05 m along x, of which a spring reaches 0.26
        assert line.points[-1].x == pytest.approx(8 * 0.26 * 0.1 * 0.05, rel=0.05)
        assert (needles.type, len(needles.points)) == (Marker.LINE_LIST, 18)
        assert needles.points[1].z == pytest.approx(-0.03), 'the hand points down'
        assert line.colors[0].b > line.colors[-1].b, 'blue comes first'
        assert balls.action in (Marker.ADD, Marker.DELETE)
        assert line.lifetime.sec == 1


@pytest.mark.parametrize(
    ('fit', 'area'),
    [
        ('stretch', (0.1, 0.1, 0.8, 0.8)),
        ('crop', (0.2, 0.1, 0.6, 0.8)),  # of 640 px the middle 480
        ('pad', (0.1, -1 / 30, 0.8, 16 / 15)),  # black above and below
    ],
)
def test_where_the_patches_are_in_a_wide_picture(fit, area):
    camera = Camera('wrist', (224, 224), 0, False, aspect=1.0, fit=fit)
    assert patch_area(640, 480, camera, 0.64) == pytest.approx(area)


def test_the_layout_for_foxglove_names_what_the_node_has(bundled_policy):
    layout = json.loads(resource('config/foxglove.json').read_text())
    panels = layout['configById']
    text = json.dumps(layout['layout'])
    assert all(f'"{panel}"' in text for panel in panels)
    names = set(re.findall(r'"(/[a-z_/]+)', json.dumps(panels)))
    assert len(names) > 8
    with rig(bundled_policy) as r:
        r.matched()
        topics = {name for name, _ in r.node.get_topic_names_and_types()}
        services = {name for name, _ in r.node.get_service_names_and_types()}
        missing = {name for name in names if r.namespace + name not in topics | services}
    assert not missing
