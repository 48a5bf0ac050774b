"""Rendering without a screen: which OpenGL is used, and how dear a frame is."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

from lightvla_ros.errors import RenderingError

RENDER_SETTINGS = ('standard', 'cheap')
BACK_ENDS = ('egl', 'osmesa')
PACKAGES = 'libosmesa6 libegl1 libegl-mesa0 libgl1-mesa-dri libgles2'

# A failed import of OpenGL cannot be undone in its process, so each back end is tried in a child.
_PROBE = """
import mujoco
context = mujoco.GLContext(16, 16)
context.make_current()
from OpenGL import GL
print(GL.glGetString(GL.GL_RENDERER).decode())
context.free()
"""


def choose_renderer() -> str:
    """Pick the first OpenGL back end that works, set ``MUJOCO_GL`` to it and return its name.

    Call it before robosuite is imported, which loads OpenGL at once. ``MUJOCO_GL``, where set, is
    the only one tried.

    :returns: Such as ``egl (llvmpipe (LLVM 15.0.6, 256 bits))``.
    :raises RenderingError: When none works.
    """
    asked = os.environ.get('MUJOCO_GL', '').lower()
    found = os.environ.get('LIGHTVLA_RENDERER', '')
    if found and found.split(' ')[0] == asked:  # by an earlier call, or by a parent process
        return found
    failures = []
    for name in (asked,) if asked else BACK_ENDS:
        environment = {**os.environ, 'MUJOCO_GL': name, 'PYOPENGL_PLATFORM': name}
        probe = subprocess.run(
            [sys.executable, '-c', _PROBE], env=environment, capture_output=True, text=True
        )
        if probe.returncode == 0:
            os.environ['MUJOCO_GL'] = os.environ['PYOPENGL_PLATFORM'] = name
            os.environ['LIGHTVLA_RENDERER'] = f'{name} ({probe.stdout.strip()})'
            return os.environ['LIGHTVLA_RENDERER']
        failures.append(f'{name}: {(probe.stderr.strip().splitlines() or ["no output"])[-1]}')
    advice = f'install {PACKAGES}' + (', or unset MUJOCO_GL' if asked else '')
    raise RenderingError(f'cannot render without a screen ({"; ".join(failures)}); {advice}')


def make_cheap(xml: str) -> str:
    """Change a MuJoCo model so that software rendering is 2 to 3 times faster.

    No multisampling, no reflections, a smaller shadow map; ``decimation.py`` does the rest.
    Pictures differ by a few grey levels in the mean, so a policy should be trained and run with the
    same setting.
    """
    root = ElementTree.fromstring(xml)
    visual = root.find('visual')
    if visual is None:
        visual = ElementTree.SubElement(root, 'visual')
    quality = visual.find('quality')
    if quality is None:
        quality = ElementTree.SubElement(visual, 'quality')
    quality.set('offsamples', '0')
    quality.set('shadowsize', '512')
    for material in root.iter('material'):
        material.attrib.pop('reflectance', None)
    return ElementTree.tostring(root, encoding='unicode')
