"""The page of the policy node in a real browser: what people see, and what their clicks do."""

import time

import pytest
from browser import CHROMIUM, browser
from lightvla_ros.msg import VlaStatus
from rig import rig

from lightvla_ros.files import resource

pytest.importorskip('websockets', reason='the browser is driven through it')
pytestmark = pytest.mark.skipif(not CHROMIUM, reason='needs Chromium: apt install chromium')

VIEW = {
    'view': True,
    'view_port': 0,
    'replan_steps': 1,
    'max_image_age': 5.0,  # a busy machine is late
    'max_silence': 5.0,
}
HOSTILE = 'pick up <img src=x onerror="document.title = 1"><b>milk</b>'


@pytest.fixture(scope='module')
def tab():
    with browser() as opened:
        yield opened


def shown(tab, selector):
    return tab.run(f'document.querySelector("{selector}").textContent')


def test_people_see_the_robot_and_hold_it(bundled_policy, tab, tmp_path):
    calibration = str(resource('config/calibration/libero_floor.yaml'))
    with rig(bundled_policy, **VIEW, view_calibration=calibration) as r:
        r.matched()
        r.robot.destroy_publisher(r.robot.instruction_publisher)
        r.robot.feeding = True
        tab.open(r.node.view.url)
        tab.until('document.querySelector("#state").textContent === "WAITING"')
        tab.until('document.querySelector("#reason").textContent === "no_instruction"')

        tab.click('#text')
        tab.type('pick up the milk')
        tab.click('#send')
        tab.until('document.querySelector("#state").textContent === "RUNNING"')
        assert shown(tab, '#current') == 'pick up the milk'
        tab.until('document.querySelector(".camera h2 span").textContent.includes("2 of 64")')
        tab.until('document.querySelector("#kept").textContent === "4 now"')
        assert tab.run('document.querySelector("#way").hidden') is False
        # kept patches are bright and the others dimmed: patch 1 of the first row, and patch 3
        bright, dimmed = tab.run("""(() => {
            const canvas = document.querySelector('.camera canvas');
            const pen = canvas.getContext('2d');
            const mean = (column) => {
                const side = canvas.width * Math.sqrt(0.9) / 8;
                const left = canvas.width * (1 - Math.sqrt(0.9)) / 2;
                const at = [left + side * (column + 0.2), left + side * 0.2];
                const data = pen.getImageData(...at, side * 0.6, side * 0.6).data;
                return data.reduce((sum, value, i) => sum + (i % 4 < 3) * value, 0);
            };
            return [mean(1), mean(3)];
        })()""")
        assert bright > 2 * dimmed > 0
        tab.screenshot(tmp_path / 'running.png')

        tab.click('#hold')
        r.until_state(VlaStatus.HOLDING, 'paused')
        tab.until('document.querySelector("#state").textContent === "HOLDING"')
        moved = len(r.robot.moves())
        tab.click('#hold')  # twice in a hurry: still a hold
        tab.until('!document.querySelector("#release").disabled')
        assert len(r.robot.moves()) == moved
        tab.click('#release')
        r.until(lambda: len(r.robot.moves()) > moved, 'motion')

        tab.click('#text')
        tab.type(HOSTILE)
        tab.click('#send')
        tab.until(f'document.querySelector("#current").textContent === {HOSTILE!r}')
        assert tab.run('document.querySelectorAll("#current *").length') == 0
        assert tab.run('document.title') == 'LightVLA'

        tab.click('#reset')
        r.until_state(VlaStatus.WAITING, 'no_instruction')
        tab.until('document.querySelector("#current").textContent === "none"')
    # the node has gone: nobody may take the last picture for the present one
    tab.until('document.querySelector("#state").textContent === "LOST"')
    # the only complaint is of the connection to the node
    found = [p for p in tab.problems if p.get('entry', {}).get('level') != 'warning']
    assert not [problem for problem in found if 'ERR_' not in str(problem)], found


def test_fault_a_page_of_another_site_in_the_same_browser(bundled_policy, tab):
    """It can neither give an order nor look, whatever way it tries."""
    with rig(bundled_policy, **VIEW) as r:
        r.run()
        url = r.node.view.url
        tab.open('data:text/html,<title>evil</title>')
        for attempt in (
            f'fetch("{url}orders/hold", {{method: "POST", mode: "no-cors", body: "{{}}"}})',
            f'fetch("{url}orders/hold", {{method: "POST", body: "{{}}", '
            'headers: {"Content-Type": "application/json"}})',
            f'fetch("{url}watch").then((answer) => answer.text())',
        ):
            tab.run(f'{attempt}.then(() => "went", () => "failed")')
        tab.run(
            f'(() => {{ const form = document.createElement("form"); form.method = "post";'
            f'form.action = "{url}orders/hold"; form.enctype = "text/plain";'
            'document.body.append(form); form.submit(); })()'
        )
        time.sleep(0.5)
        r.settle()
        assert not r.node.runner.supervisor.paused
