"""Merged copies against the published form, in which every query's token is in the sequence."""

from dataclasses import replace

import pytest
import torch

from lightvla_ros.vla.config import PrunerConfig, preset
from lightvla_ros.vla.model import DecoderInput, LightVLA


def _loss(model, merged, alpha):
    torch.manual_seed(1)
    config = model.config
    pixels = torch.randn(3, config.cameras, 6, config.image_size, config.image_size)
    ids = torch.randint(5, 40, (3, 9))
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[1, :4] = False
    proprio = torch.randn(3, config.proprio_size)
    torch.manual_seed(2)  # of the noise
    if merged:
        return model(pixels, ids, mask, proprio, alpha=alpha).actions
    words = model.language_model.model.embed_tokens(ids[:, 1:])
    context = model.embed_context(words, mask[:, :-1], proprio, model.embed_ends())
    tokens, scores, context = model.candidates(pixels, context)
    selection = model.select(tokens, scores, alpha)
    tokens = model.project_chosen(selection.tokens)
    return model.decode(DecoderInput(tokens, selection.picks, None, context, selection))


@pytest.mark.parametrize('method', ['lightvla', 'lightvla_star_encoder', 'lightvla_star_llm'])
def test_actions_and_gradients_are_those_of_the_copies(method):
    torch.manual_seed(0)
    config = preset('libero-tiny')
    config = replace(config, pruning=PrunerConfig(method=method, queries=32))
    model = LightVLA(config).train()
    torch.nn.init.normal_(model.language_model.model.embed_tokens.weight)
    found = []
    for merged in (True, False):
        actions = _loss(model, merged, alpha=2.0)
        model.zero_grad()
        actions.square().sum().backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        found.append((actions.detach(), gradients))
    (ours, our_gradients), (published, gradients) = found
    torch.testing.assert_close(ours, published, rtol=1e-4, atol=1e-5)
    assert our_gradients.keys() == gradients.keys()
    for name, value in gradients.items():
        largest = value.abs().max()
        torch.testing.assert_close(
            our_gradients[name] / largest, value / largest, rtol=1e-3, atol=1e-3, msg=name
        )
