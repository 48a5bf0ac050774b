"""The model: LightVLA on OpenVLA-OFT, in PyTorch. Needs the extra ``train``; the robot does not."""
