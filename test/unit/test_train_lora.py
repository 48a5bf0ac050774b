"""LoRA: merged weights compute what adapters beside frozen ones do."""

import pytest
import torch
import train_rig

from lightvla_ros.errors import ConfigError
from lightvla_ros.train.config import LoraConfig
from lightvla_ros.train.config_file import from_dict
from lightvla_ros.train.data import Data, FrameStore
from lightvla_ros.train.lora import A, add_adapters
from lightvla_ros.train.parallel import Process
from lightvla_ros.train.run import Run
from lightvla_ros.vla.weights import load_model

pytest.importorskip('peft')
HERE = Process(0, 1, torch.device('cpu'))


def begin(folder, **changes):
    store = FrameStore([train_rig.frames()])
    data = Data(store, (store.rows(0),), (1.0,), store.rows(0)[:4])
    return Run(from_dict(train_rig.document('x', **changes)), folder, HERE, data=data)


def test_a_run_trains_adapters_and_heads_and_merges(tmp_path):
    begin(tmp_path / 'base', steps=1).train()
    run = begin(
        tmp_path / 'lora',
        steps=3,
        model={'from': str(tmp_path / 'base')},
        lora={'rank': 4, 'alpha': 8, 'reinitialise_heads': True},
        optimizer={'lr': 1e-2, 'schedule': 'constant'},
        noise={'schedule': 'none'},
        gradient_checkpointing=True,
    )
    trained = run._weights()
    layers = {name.removesuffix(A) for name in trained if name.endswith(A)}
    assert 'vision_backbone.featurizer.blocks.0.attn.qkv' in layers
    assert {'projector.fc3', 'language_model.model.layers.1.mlp.down_proj'} <= layers
    assert not any(name.startswith(('action_head', 'proprio_projector')) for name in layers)
    assert 'action_head.model.fc1.weight' in trained
    assert not any('embed' in name or 'base_layer' in name for name in trained)
    assert run.train()
    batch, _ = next(iter(run.batches.held_out()))
    merged = load_model(tmp_path / 'lora/policy')
    base = load_model(tmp_path / 'base/policy')
    with torch.no_grad():
        run.losses.eval()
        inputs = (batch.pixels, batch.ids, batch.mask, batch.proprio)
        wanted = run.model(*inputs).actions
        torch.testing.assert_close(merged(*inputs).actions, wanted, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(base(*inputs).actions, wanted, atol=1e-3)
    frozen = 'language_model.model.embed_tokens.weight'
    assert torch.equal(merged.state_dict()[frozen], base.state_dict()[frozen])
    again = Run(run.config, tmp_path / 'lora', HERE, resume=True, data=run.data)
    for name, value in again._weights().items():
        assert torch.equal(value, run._weights()[name]), name


def test_half_precision_needs_autocast(tmp_path):
    model = begin(tmp_path / 'run').model.to(torch.bfloat16)
    with pytest.raises(ConfigError, match='torch.bfloat16; set autocast'):
        add_adapters(model, LoraConfig(), autocast=False)
    add_adapters(model, LoraConfig(rank=2), autocast=True)
    assert model.action_head.model.fc1.weight.dtype == torch.float32
    assert model.projector.fc1.base_layer.weight.dtype == torch.bfloat16
