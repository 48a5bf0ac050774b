"""A real headless Chromium, driven through its DevTools protocol."""

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
FLAGS = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--no-first-run',
    # without these it would look for Google's servers
    '--disable-quic',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
]


class Tab:
    """One page in the browser."""

    def __init__(self, socket):
        self._socket = socket
        self._ids = itertools.count(1)
        self.problems = []  # what the page's console and its policies complain of
        for domain in ('Page', 'Runtime', 'Log'):
            self.call(f'{domain}.enable')

    def call(self, method, **parameters):
        number = next(self._ids)
        self._socket.send(json.dumps({'id': number, 'method': method, 'params': parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=20))
            if answer.get('id') == number:
                assert 'error' not in answer, answer['error']
                return answer['result']
            if answer.get('method') in ('Runtime.exceptionThrown', 'Log.entryAdded'):
                self.problems.append(answer['params'])

    def open(self, url, width=1320, height=860):
        self.call(
            'Emulation.setDeviceMetricsOverride',
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call('Page.navigate', url=url)
        self.until('document.readyState === "complete" && location.href !== "about:blank"')

    def run(self, script):
        """Evaluate JavaScript, wait for its promise, and return its value."""
        answer = self.call(
            'Runtime.evaluate', expression=script, awaitPromise=True, returnByValue=True
        )
        assert 'exceptionDetails' not in answer, answer
        return answer['result'].get('value')

    def until(self, condition, timeout=20.0):
        deadline = time.monotonic() + timeout
        while not self.run(condition):
            assert time.monotonic() < deadline, f'waited in vain for {condition}; {self.text()}'
            time.sleep(0.05)

    def text(self):
        return self.run('document.body.innerText')

    def click(self, selector):
        """Press the mouse in the middle of an element."""
        box = self.run(
            f'(() => {{ const b = document.querySelector({json.dumps(selector)})'
            '.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()'
        )
        for kind in ('mousePressed', 'mouseReleased'):
            self.call(
                'Input.dispatchMouseEvent',
                type=kind,
                x=box[0],
                y=box[1],
                button='left',
                clickCount=1,
            )

    def type(self, text):
        self.call('Input.insertText', text=text)

    def screenshot(self, path):
        data = self.call('Page.captureScreenshot', format='png')['data']
        Path(path).write_bytes(base64.b64decode(data))


@contextmanager
def browser():
    """Start the browser; yield a tab."""
    from websockets.sync.client import connect

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [CHROMIUM, *FLAGS, '--remote-debugging-port=0', f'--user-data-dir={folder}'],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            ready, deadline = Path(folder, 'DevToolsActivePort'), time.monotonic() + 30
            while not (ready.exists() and ready.read_text().count('\n')):
                assert time.monotonic() < deadline, 'Chromium did not start'
                time.sleep(0.05)
            port = ready.read_text().split()[0]
            targets = json.load(urlopen(f'http://127.0.0.1:{port}/json'))
            page = next(target for target in targets if target['type'] == 'page')
            with connect(page['webSocketDebuggerUrl'], max_size=None) as socket:
                yield Tab(socket)
        finally:
            process.terminate()
            process.wait(10)
