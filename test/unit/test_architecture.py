"""The floors of the house: imports go down only (``.importlinter``); what the rooms are for."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / 'lightvla_ros'
# The face of the whole and the commands have their own lists: ``__all__`` and `lightvla --help`.
OTHERWISE = {PACKAGE, PACKAGE / 'cli'}
PACKAGES = sorted({path.parent for path in PACKAGE.rglob('__init__.py')} - OTHERWISE)


def lint_imports(root):
    command = [str(Path(sys.executable).with_name('lint-imports')), '--no-logo', '--no-cache']
    # the package of this folder, and not the one that happens to be installed
    return subprocess.run(
        command, cwd=root, env={'PYTHONPATH': str(root)}, capture_output=True, text=True
    )


def test_imports_go_down_only():
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ('module', 'line', 'contract'),
    [
        ('vla/norms_of_nobody.py', 'import lightvla_ros.policy.policy', 'Each floor'),
        ('contract/libero.py', 'def late():\n    import lightvla_ros.sim.arm', 'Each floor'),
        ('evaluate/rates.py', 'import rclpy', 'Only nodes knows ROS'),
        ('runtime/inbox.py', 'import torch', 'A robot needs no PyTorch'),
        (
            'contract/manifest.py',
            'def late():\n    import lightvla_ros.contract.libero',
            'No circle',
        ),
        (
            'sim/expert/grasps.py',
            'from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n'
            '    import lightvla_ros.sim.expert.script',
            'No circle',
        ),
    ],
    ids=['upwards', 'lazily', 'ros', 'torch', 'circle', 'circle of types'],
)
def test_a_planted_import_is_found(tmp_path, module, line, contract):
    shutil.copy(ROOT / '.importlinter', tmp_path)
    copy = shutil.copytree(ROOT / 'lightvla_ros', tmp_path / 'lightvla_ros')
    with (copy / module).open('a') as file:
        file.write(f'\n{line}\n')
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    broken = [line for line in result.stdout.splitlines() if 'BROKEN' in line]
    assert any(line.startswith(contract) for line in broken), result.stdout


@pytest.mark.parametrize('package', PACKAGES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_package_says_what_each_of_its_modules_is_for(package):
    modules = [path.stem for path in package.glob('*.py') if path.stem != '__init__']
    modules += [path.parent.name for path in package.glob('*/__init__.py')]
    said = ast.get_docstring(ast.parse((package / '__init__.py').read_text()))
    assert re.findall(r'^- ``(\w+)``: \S', said, re.MULTILINE) == sorted(modules)
