"""LightVLA on ROS 2: a vision-language-action policy that prunes its own visual tokens."""

from pkgutil import extend_path

__version__ = '0.1.0'

# The generated messages (lightvla_ros.msg) are installed elsewhere than the sources. Python started
# in the repository, or an editable install, finds the sources first; this adds the other half.
__path__ = extend_path(__path__, __name__)
