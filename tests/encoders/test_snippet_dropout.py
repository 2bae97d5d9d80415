"""Dropout masks belong to snippets."""

import pytest
import torch

from lofi.encoders.dropout import SnippetDropout, keep_mask


def slow_keep_mask(seed, *, num_elements, p, salt):
    """The same hash in Python's unbounded integers."""
    word = 2**64 - 1

    def mix(x):
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & word
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & word
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    row = mix((seed & word) ^ ((salt + 1) * golden & word))
    return [
        (mix((row + (i + 1) * golden) & word) >> 11) < round((1 - p) * 2**53) for i in range(num_elements)
    ]


@pytest.mark.parametrize("seed", [0, 1, 2**62 - 1, -1, -(2**63), 123456789012345])
def test_mask_equals_unbounded_integer_arithmetic(seed):
    mask = keep_mask(torch.tensor([seed]), num_elements=37, p=0.3, salt=5)
    assert mask[0].tolist() == slow_keep_mask(seed, num_elements=37, p=0.3, salt=5)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 7])
def test_chunked_masks_equal_the_joint_mask(chunk_size):
    seeds = torch.randint(2**62, (7,))
    dropout = SnippetDropout(0.4)
    features = torch.randn(7, 19)
    joint = dropout(features, snippet_seeds=seeds)
    chunked = [
        dropout(x, snippet_seeds=s)
        for x, s in zip(features.split(chunk_size), seeds.split(chunk_size), strict=True)
    ]
    assert torch.equal(torch.cat(chunked), joint)


def test_mask_follows_its_snippet_through_a_permutation():
    seeds = torch.randint(2**62, (5,))
    order = torch.tensor([3, 0, 4, 1, 2])
    masks = keep_mask(seeds, num_elements=23, p=0.5, salt=0)
    assert torch.equal(keep_mask(seeds[order], num_elements=23, p=0.5, salt=0), masks[order])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_of_kept_elements_is_one_minus_p(p):
    num = 400 * 512
    share = keep_mask(torch.arange(400), num_elements=512, p=p, salt=0).double().mean().item()
    assert share == pytest.approx(1 - p, abs=5 * (p * (1 - p) / num) ** 0.5)


def test_masks_of_neighbouring_seeds_salts_and_elements_are_uncorrelated():
    mask = keep_mask(torch.arange(200), num_elements=501, p=0.5, salt=0).double() - 0.5
    other = keep_mask(torch.arange(200), num_elements=501, p=0.5, salt=1).double() - 0.5
    bound = 5 * 0.25 / (200 * 500) ** 0.5
    assert abs((mask[1:] * mask[:-1]).mean().item()) < bound
    assert abs((mask[:, 1:] * mask[:, :-1]).mean().item()) < bound
    assert abs((mask * other).mean().item()) < bound


def test_kept_elements_are_scaled_and_the_others_are_zero():
    seeds = torch.tensor([4, 5, 6])
    out = SnippetDropout(0.2)(torch.ones(3, 50, dtype=torch.float64), snippet_seeds=seeds)
    keeps = keep_mask(seeds, num_elements=50, p=0.2, salt=0)
    assert torch.equal(out, torch.where(keeps, 1 / 0.8, 0.0).double())
    assert 0 < keeps.sum() < keeps.numel()


def test_dropout_is_the_identity_in_evaluation_without_seeds_and_at_zero():
    features, seeds = torch.randn(3, 6), torch.tensor([1, 2, 3])
    assert SnippetDropout(0.5).eval()(features, snippet_seeds=seeds) is features
    assert SnippetDropout(0.5)(features, snippet_seeds=None) is features
    assert SnippetDropout(0.0)(features, snippet_seeds=seeds) is features


def test_bad_rate_and_bad_seeds_are_refused():
    with pytest.raises(ValueError, match=r"dropout is 1\.0; it must lie in \[0, 1\)"):
        SnippetDropout(1.0)
    with pytest.raises(
        ValueError, match=r"snippet_seeds are \(2,\) torch.int64; 3 snippets need \(3,\) int64"
    ):
        SnippetDropout(0.5)(torch.randn(3, 6), snippet_seeds=torch.tensor([1, 2]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_mask_on_a_gpu_equals_the_mask_on_the_cpu():
    seeds = torch.randint(2**62, (64,))
    on_gpu = keep_mask(seeds.cuda(), num_elements=512, p=0.3, salt=2)
    assert torch.equal(on_gpu.cpu(), keep_mask(seeds, num_elements=512, p=0.3, salt=2))
