"""Building TensorRT plans: the network, progress, and putting plans into the folder."""
