"""Properties of the pruner, its gradient."""

import math

import pytest
import torch

from lightvla_ros.errors import ConfigError
from lightvla_ros.vla import pruner
from lightvla_ros.vla.config import noise_bound

FORMULAS = ('published', 'paper')


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def _published_in_float64(patches, task):
    """Compute the released pruner with the 56 zero placeholders among the task, as released."""
    patches, task = patches.double(), task.double()
    task = torch.cat([task, torch.zeros(len(task), 56, task.shape[-1])], dim=1)
    norm = lambda x: x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()  # noqa: E731
    h, t, root = norm(patches), norm(task), math.sqrt(patches.shape[-1])
    queries = norm(torch.softmax(h @ t.mT / root, -1) @ t)
    return queries @ h.mT / root


def test_published_scores_pick_what_the_released_formula_picks():
    patches, task = torch.randn(3, 40, 32), torch.randn(3, 9, 32)
    scores = pruner.token_scores(patches, task)
    wanted = _published_in_float64(patches, task)
    assert torch.equal(scores.argmax(-1), wanted.argmax(-1))
    # the norm of the queries undoes the zeros' mass but for its eps
    torch.testing.assert_close(scores.double(), wanted, atol=5e-3, rtol=0)


def test_paper_scores_are_equations_1_and_2():
    patches, task = torch.randn(2, 10, 16), torch.randn(2, 4, 16)
    h, t = patches.double(), task.double()
    wanted = torch.softmax(h @ t.mT / 4, -1) @ t @ h.mT / 4
    scores = pruner.token_scores(patches, task, formula='paper')
    torch.testing.assert_close(scores.double(), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('formula', FORMULAS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_keeps_one_to_all_tokens_in_raster_order_with_their_ids(formula, dtype):
    for size in (1, 7, 64):
        patches = torch.randn(1, size, 32).to(dtype)
        scores = pruner.token_scores(patches, torch.randn(1, 5, 32).to(dtype), formula=formula)
        selection = pruner.select_for_inference(patches, scores)
        picks = selection.picks[0]
        assert scores.dtype == torch.float32
        assert 1 <= len(picks) <= size
        assert torch.equal(picks, scores[0].argmax(-1).unique())  # sorted, without duplicates
        assert torch.equal(selection.tokens[0], patches[0, picks])


def test_a_batch_keeps_by_mask_what_each_keeps_alone():
    patches, task = torch.randn(4, 20, 16), torch.randn(4, 3, 16)
    scores = pruner.token_scores(patches, task)
    together = pruner.select_for_inference(patches, scores)
    for index in range(4):
        alone = pruner.select_for_inference(patches[index, None], scores[index, None])
        assert torch.equal(together.mask[index].nonzero()[:, 0], alone.picks[0])


@pytest.mark.parametrize('formula', FORMULAS)
def test_the_order_of_task_tokens_and_padding_change_nothing(formula):
    patches, task = torch.randn(1, 30, 16), torch.randn(1, 6, 16)
    kept = pruner.kept_mask(pruner.token_scores(patches, task, formula=formula))
    turned = pruner.token_scores(patches, task[:, torch.randperm(6)], formula=formula)
    padded = torch.cat([100 * torch.randn(1, 5, 16), task], dim=1)
    mask = torch.tensor([[False] * 5 + [True] * 6])
    padded = pruner.token_scores(patches, padded, mask, formula)
    assert torch.equal(kept, pruner.kept_mask(turned))
    assert torch.equal(kept, pruner.kept_mask(padded))


def test_degenerate_inputs_are_reported_not_hidden():
    direction = torch.randn(32)
    against = -direction + 0.01 * torch.randn(1, 30, 32)  # all cosines about -1
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for scale in (1.0, 1e-4, 300.0):
            task = (direction * scale).expand(1, 4, 32).to(dtype)
            scores = pruner.token_scores((against * scale).to(dtype), task)
            assert torch.isfinite(scores).all()
            selection = pruner.select_for_inference(against, scores)
            if dtype != torch.bfloat16 and scale != 1e-4:
                assert not selection.tied.any()
                assert len(scores[0].unique()) > 10
    same = torch.randn(1, 1, 32).expand(1, 30, 32)
    scores = pruner.token_scores(same, torch.randn(1, 4, 32))
    selection = pruner.select_for_inference(same, scores)
    assert selection.counts(2).tolist() == [[1, 0]]
    assert selection.tie_counts(2).tolist() == [[30, 0]]  # index 0 won by position alone: said
    assert torch.isfinite(scores).all()
    zeros = pruner.token_scores(torch.zeros(1, 8, 16), torch.zeros(1, 3, 16))
    assert pruner.select_for_inference(torch.zeros(1, 8, 16), zeros).tied.all()


def test_counts_are_per_camera():
    scores = torch.full((1, 4, 6), -1.0)
    scores[0, [0, 1, 2], [1, 1, 2]] = 1.0
    scores[0, 3, [4, 5]] = 1.0  # a tie between two tokens of the second camera
    selection = pruner.select_for_inference(torch.randn(1, 6, 8), scores)
    assert selection.counts(2).tolist() == [[2, 1]]
    assert selection.tie_counts(2).tolist() == [[0, 1]]


def test_training_keeps_duplicates_and_raw_embeddings():
    patches, scores = torch.randn(2, 6, 8) * 5, torch.zeros(2, 6, 6)
    scores[:, :, 3] = 1
    selection = pruner.select_for_training(patches, scores, alpha=0.0)
    assert selection.picks.tolist() == [[3] * 6] * 2
    torch.testing.assert_close(selection.tokens, patches[:, [3] * 6], atol=1e-5, rtol=0)
    assert selection.kept.sum(1).tolist() == [1, 1]


def test_noise_is_uniform_below_alpha_and_reaches_other_tokens():
    patches, scores = torch.randn(1, 200, 8), torch.zeros(1, 200, 200)
    scores[:, :, 0] = 0.5
    picked = pruner.select_for_training(patches, scores, alpha=1.0).picks
    assert len(picked.unique()) > 50
    assert pruner.select_for_training(patches, scores, alpha=0.49).picks.unique().tolist() == [0]


def test_gradient_is_that_of_the_softmax_derived_by_hand():
    """dL/dS = softmax's Jacobian times G H^T, and H's own part is onehot^T G (eq. 7 and 8)."""
    tokens = torch.randn(1, 5, 4, requires_grad=True)
    scores = torch.randn(1, 3, 5, requires_grad=True)
    gradient = torch.randn(1, 3, 4)
    picked = pruner.select_for_training(tokens, scores, alpha=0.0)
    picked.tokens.backward(gradient)
    soft = scores.detach().softmax(-1)[0]
    upstream = gradient[0] @ tokens.detach()[0].T
    by_hand = soft * (upstream - (soft * upstream).sum(-1, keepdim=True))
    hard = torch.nn.functional.one_hot(picked.picks[0], 5).float()
    torch.testing.assert_close(scores.grad[0], by_hand)
    torch.testing.assert_close(tokens.grad[0], hard.T @ gradient[0])


@pytest.mark.parametrize('formula', FORMULAS)
def test_gradient_reaches_unpicked_patches_and_the_task(formula):
    patches = torch.randn(2, 12, 16, requires_grad=True)
    task = torch.randn(2, 4, 16, requires_grad=True)
    scores = pruner.token_scores(patches, task, formula=formula)
    selection = pruner.select_for_training(patches, scores, alpha=1.0)
    selection.tokens.square().sum().backward()
    assert (patches.grad.abs().sum(-1) > 0).all()  # through the scores alone where not picked
    assert (task.grad.abs().sum(-1) > 0).all()


def test_scores_are_fp32_under_autocast():
    patches, task = torch.randn(1, 50, 64), torch.randn(1, 5, 64)
    wanted = pruner.token_scores(patches, task)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(pruner.token_scores(patches, task), wanted)


def test_noise_schedules():
    assert [noise_bound('linear', step, 4) for step in range(5)] == [1, 0.75, 0.5, 0.25, 0]
    assert {noise_bound('constant', step, 4) for step in range(5)} == {1}
    assert {noise_bound('none', step, 4) for step in range(5)} == {0}
    for arguments in (('cosine', 0, 4), ('linear', 5, 4), ('linear', -1, 4)):
        with pytest.raises(ConfigError):
            noise_bound(*arguments)
