"""Turns an observation into an action chunk. Uses no ROS and no PyTorch.

- ``actions``: normalised numbers -> metres, quaternions, gripper opening; and limits
- ``calibration``: calibrated cameras: points in the base frame -> places in the picture
- ``compressed_format``: the meaning of ``CompressedImage.format``
- ``compressed_images``: JPEG or PNG -> upright RGB
- ``familiarity``: how far an observation is from the recorded ones: the alarm
- ``golden``: records a policy's outputs, with which engines are compared; the recorded pictures
- ``golden_file``: reads and checks ``golden.npz``
- ``images``: raw images -> upright RGB
- ``jpeg_segments``: checks a JPEG's segments before it is decoded
- ``likeness``: whether pictures look like those of the training, and which way up
- ``observation``: what a policy sees at one instant
- ``png_chunks``: checks a PNG's chunks before it is decoded
- ``policy``: a loaded policy folder: observation -> prediction
- ``poses``: poses in the base frame, and the algebra of their rotations
- ``preprocessor``: upright RGB -> the model's input
- ``prompt``: an instruction -> token ids
- ``resampling``: resampling as TensorFlow does it
- ``state``: the robot's state -> the policy's state vector
- ``tokenizer``: reads and checks a policy's tokenizer
- ``tolerances``: differences between an engine and its reference, and their limits
"""
