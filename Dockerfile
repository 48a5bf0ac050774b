# The nodes on ROS 2 Jazzy. Not built here: docs/how-to/systems.md says what was tried.
#
#   docker build -t lightvla_ros .
#   docker run --rm --net host --ipc host lightvla_ros
FROM ros:jazzy-ros-base-noble

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /opt/lightvla_ros
COPY . .

# What package.xml asks for, and the environment of tools/setup_ubuntu.sh
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rosdep install -y --from-paths . --ignore-src \
    && rm -rf /var/lib/apt/lists/* \
    && tools/setup_ubuntu.sh /opt/lightvla_ws

ENTRYPOINT ["/bin/bash", "-c", ". /opt/lightvla_ws/env.bash && exec \"$@\"", "lightvla"]
CMD ["ros2", "launch", "lightvla_ros", "franka_panda.launch.py"]
