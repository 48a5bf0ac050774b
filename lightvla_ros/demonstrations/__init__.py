"""Demonstrations in the layout of LIBERO's HDF5 files.

- ``episode_arrays``: an episode's arrays, read from its file
- ``frames``: frames in memory, and where an episode lies
- ``hdf5``: HDF5 files opened, with errors that name the file
- ``index``: what one file holds, checked, without the frames
- ``loader``: chosen episodes' frames, read into arrays that are allocated once
- ``observation_order``: whether a row's observation was made before or after its action
- ``pairs``: which observation goes with which actions
- ``reader``: demonstrations of several files: the entrance to all of this
- ``reading_process``: a process of its own for reading, which a damaged file may end
- ``statistics``: bounds of actions and states, and the normalisation by them
- ``writer``: demonstrations, written in LIBERO's layout
"""
