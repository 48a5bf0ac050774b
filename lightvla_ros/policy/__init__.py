"""Observation in, chunk out. No ROS, no PyTorch.

- ``actions``: normalised numbers -> metres, quaternions, gripper opening; and limits
- ``compressed_format``: what ``CompressedImage.format`` says of the picture
- ``compressed_images``: JPEG or PNG -> upright RGB
- ``golden``: records a policy's answers, so that engines can be held to them
- ``golden_file``: ``golden.npz``, read and checked
- ``images``: raw images -> upright RGB
- ``jpeg_segments``: a JPEG's segments, looked at before it is decoded
- ``observation``: what a policy sees at one instant
- ``png_chunks``: a PNG's chunks, checked before it is decoded
- ``policy``: a policy folder, loaded: an observation in, a prediction out
- ``preprocessor``: upright RGB -> the model's input
- ``prompt``: an instruction -> token ids
- ``resampling``: resampling as TensorFlow does it
- ``state``: the robot's state -> the numbers that the policy was trained on
- ``tokenizer``: a policy's tokenizer, read and checked
"""
