"""Sphinx settings of the documentation; ``make docs`` builds it, and docs.ros.org by rosdoc2."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

project = 'lightvla_ros'
author = 'the lightvla_ros developers'
copyright = author  # Sphinx wants this name
release = re.search(r"__version__ = '(.+)'", (ROOT / 'lightvla_ros/__init__.py').read_text())[1]
version = release

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.viewcode',
    'sphinxarg.ext',
    'sphinx_rtd_theme',
]
myst_enable_extensions = ['colon_fence']
myst_heading_anchors = 3
exclude_patterns = ['plan.md', '_build']
html_theme = 'sphinx_rtd_theme'
html_static_path = ['_static']
html_css_files = ['style.css']
html_show_copyright = False

autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
# The ROS wheels, the simulator and the engines are not needed to read docstrings.
autodoc_mock_imports = ['onnxruntime', 'tokenizers', 'simplejpeg']
suppress_warnings = ['myst.domains']  # sphinx-argparse's domain has no cross-references by text
