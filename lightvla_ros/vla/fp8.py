"""The decoder's products in 8-bit floating point (E4M3).

Weights and activations have one scale per tensor. The scales of activations are measured before
(:func:`measure_activations`) and do not change: scales that are computed while the model runs cost
as much time as 8 bits save (measured on an H200, 2026-11-26). Towers, projector, pruner, attention
and head keep 16 bits, so the kept tokens are those of the 16-bit model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

import torch
from torch import Tensor, nn

from lightvla_ros.vla.language import LlamaModel

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max  # 448
# Room above the largest activation that was measured. In floating point it costs no accuracy.
HEADROOM = 2.0
# The products of a fused decoder layer, in the order of the scales, with the parts that are fused
PRODUCTS = {
    'self_attn.qkv_proj': 'self_attn.q_proj',
    'self_attn.o_proj': 'self_attn.o_proj',
    'mlp.gate_up_proj': 'mlp.gate_proj',
    'mlp.down_proj': 'mlp.down_proj',
}


class Fp8Linear(nn.Module):
    """A linear layer without bias whose product is in E4M3.

    :param linear: The layer in 16 or 32 bits.
    :param largest: Largest magnitude of its inputs, as measured. Inputs beyond ``HEADROOM`` times
        this are limited to it.
    """

    def __init__(self, linear: nn.Linear, largest: float) -> None:
        super().__init__()
        weight = linear.weight.detach()
        weight_scale = (weight.abs().amax().float() / LARGEST).clamp_min(1e-12)
        input_scale = torch.full_like(weight_scale, HEADROOM * largest / LARGEST).clamp_min(1e-12)
        self.register_buffer('weight', _to_fp8(weight, weight_scale))
        self.register_buffer('weight_scale', weight_scale)
        self.register_buffer('input_scale', input_scale)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs], in the type of x."""
        # This private function is what was measured on a GPU. It is the same on a CPU.
        product = torch._scaled_mm(
            _to_fp8(x.flatten(0, -2), self.input_scale),
            self.weight.t(),
            self.input_scale,
            self.weight_scale,
            out_dtype=x.dtype,
            use_fast_accum=x.is_cuda,
        )
        return product.unflatten(0, x.shape[:-1])


def to_fp8(layer: nn.Module, largest: tuple[float, ...]) -> None:
    """Replace the four products of a fused decoder layer.

    :param largest: Largest magnitude of each product's inputs, in the order of ``PRODUCTS``.
    """
    for name, value in zip(PRODUCTS, largest, strict=True):
        parent, child = name.split('.')
        module = getattr(layer, parent)
        setattr(module, child, Fp8Linear(getattr(module, child), value))


@contextmanager
def measure_activations(llama: LlamaModel) -> Iterator[list[list[float]]]:
    """Measure the inputs of the products of decoder layers that are not fused.

    Yields the largest magnitudes so far: a list per layer with four numbers in the order of
    ``PRODUCTS``. It grows while the model runs inside the ``with`` block.
    """
    largest = [[0.0] * len(PRODUCTS) for _ in llama.layers]
    handles = []

    def watch(product: nn.Module, layer: int, index: int) -> None:
        def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found = float(inputs[0].abs().amax())
            # max() would drop a NaN
            largest[layer][index] = max(largest[layer][index], found if found < inf else inf)

        handles.append(product.register_forward_pre_hook(see))

    for number, layer in enumerate(llama.layers):
        for index, part in enumerate(PRODUCTS.values()):
            watch(layer.get_submodule(part), number, index)
    try:
        yield largest
    finally:
        for handle in handles:
            handle.remove()


def _to_fp8(x: Tensor, scale: Tensor) -> Tensor:
    # PyTorch turns what is too large for E4M3 into NaN, so it is limited first
    return (x.float() / scale).clamp(-LARGEST, LARGEST).to(E4M3)
