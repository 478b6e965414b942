import pytest
import torch

from spikedistill.data.split import stratified_split, stratified_subset

# Classes of 60, 30 and 10, shuffled.
LABELS = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100, generator=torch.Generator().manual_seed(1))]


def test_split_is_disjoint_and_complete():
    stays, held = stratified_split(LABELS, 0.1, seed=0)
    assert sorted(stays.tolist() + held.tolist()) == list(range(100))


def test_split_keeps_every_class_share():
    _, held = stratified_split(LABELS, 0.1, seed=0)
    assert LABELS[held].bincount().tolist() == [6, 3, 1]


def test_split_is_a_function_of_the_seed():
    first, again, other = (stratified_split(LABELS, 0.1, seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_split_never_takes_the_last_image_of_a_class():
    stays, _ = stratified_split(torch.tensor([0] * 50 + [1]), 0.98, seed=0)
    assert stays.tolist()[-1] == 50


@pytest.mark.parametrize("count", [1, 7, 33, 99, 100, 1000])
def test_subset_has_the_asked_count_and_is_fair_to_one_image(count):
    chosen = stratified_subset(LABELS, count, seed=3)
    taken = min(count, 100)
    assert len(chosen) == taken == len(set(chosen.tolist()))
    expected = torch.tensor([0.6, 0.3, 0.1]) * taken
    assert (LABELS[chosen].bincount(minlength=3) - expected).abs().max() < 1


def test_every_image_can_be_chosen():
    chosen = torch.cat([stratified_subset(LABELS, 20, seed) for seed in range(60)])
    assert chosen.unique().numel() == 100
