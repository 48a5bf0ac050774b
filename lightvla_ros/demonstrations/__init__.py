"""Demonstrations: LIBERO's HDF5 files, and recordings of any robot through a data YAML.

- ``bag_messages``: what a bag's messages hold: stamps and numbers
- ``bag_writer``: messages written into a row of MCAP bags that are whole after every flush
- ``chunk_commands``: what a policy node commanded, in runs between two holds
- ``cut_off_mcap``: an MCAP file whose end is missing, read as far as it goes
- ``episode_arrays``: an episode's arrays, read from its file
- ``frames``: frames in memory, and where an episode lies
- ``hdf5``: HDF5 files opened, with errors that name the file
- ``index``: what one file holds, checked, without the frames
- ``inspection``: a look at demonstrations before they are trained on
- ``lerobot``: LeRobot data sets, versions 2.1 and 3.0
- ``lerobot_writer``: demonstrations, written as a LeRobot data set of version 3.0
- ``loader``: chosen episodes' frames, read into arrays that are allocated once
- ``mapped``: recordings through a data YAML: states, actions, pairs and pictures
- ``mapping``: the data YAML: what a recording's own names mean in the contract
- ``observation_order``: whether a row's observation was made before or after its action
- ``own_hdf5``: HDF5 files of other layouts
- ``pairs``: which observation goes with which actions
- ``reader``: demonstrations of several files: the entrance to all of this
- ``reading``: what episodes hold, with or without a data YAML
- ``reading_process``: a process of its own for reading, which a damaged file may end
- ``recording``: what every recording gives: columns of numbers, and pictures
- ``rosbag``: bags of rosbag2, whose messages become rows
- ``rotations``: rotations of many rows at once
- ``statistics``: bounds of actions and states, and the normalisation by them
- ``videos``: pictures of a video by their times
- ``writer``: demonstrations, written in LIBERO's layout
"""
