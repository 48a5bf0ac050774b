"""The Python in the documentation runs as it is written."""

import re

import numpy as np
import pytest

from lightvla_ros import RobotState

PAGES = ('README.md', 'docs/tutorials/python.md')


@pytest.mark.parametrize('page', PAGES)
def test_the_programs_of_a_page_run(page, pytestconfig, monkeypatch):
    monkeypatch.chdir(pytestconfig.rootpath)
    programs = re.findall(
        r'```python\n(.*?)```', (pytestconfig.rootpath / page).read_text(), re.DOTALL
    )
    assert programs
    picture = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    moved = []
    for program in programs:
        # what a page leaves to its reader: a robot's pictures, state and controller
        given = {
            'front': picture,
            'wrist': picture.copy(),
            'move': lambda *step: moved.append(step),
        }
        fingers = np.array([0.04, -0.04])
        given['state'] = RobotState(np.array([0, 0, 0.3]), np.array([1.0, 0, 0, 0]), fingers)
        exec(compile(program, page, 'exec'), given)
        assert len(given['chunk']) == 8
    assert page != 'README.md' or len(moved) == 8


def test_every_page_with_a_program_is_run(pytestconfig):
    root = pytestconfig.rootpath
    pages = [root / 'README.md', *root.glob('docs/**/*.md')]
    found = {str(p.relative_to(root)) for p in pages if '```python' in p.read_text()}
    assert found == set(PAGES)
