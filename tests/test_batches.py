"""The order of pictures is a function of (seed, epoch), and counts each picture as often as its repeats say."""

from collections import Counter
from itertools import islice

import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_sd.data.batches import batches, batches_per_epoch, collate, epoch_order
from lora_sd.data.buckets import fit
from lora_sd.data.folder import Example

sets = st.lists(
    st.tuples(st.sampled_from([(64, 64), (96, 48), (48, 96)]), st.integers(1, 4)), min_size=1, max_size=30
).map(lambda pairs: tuple(zip(*pairs, strict=True)))


@given(st.integers(0, 2**32 - 1), st.integers(0, 9), sets, st.integers(1, 8))
def test_an_epoch_counts_each_picture_as_its_repeats_say(seed, epoch, pictures, batch_size):
    buckets, repeats = pictures
    found = epoch_order(seed, epoch, buckets, repeats, batch_size)
    assert Counter(index for batch in found for index in batch) == dict(enumerate(repeats))
    assert all(len({buckets[index] for index in batch}) == 1 for batch in found)
    assert all(1 <= len(batch) <= batch_size for batch in found)
    assert len(found) == batches_per_epoch(buckets, repeats, batch_size)
    assert found == epoch_order(seed, epoch, buckets, repeats, batch_size)


@given(st.integers(0, 9), sets, st.integers(1, 8), st.integers(0, 60))
def test_a_start_in_the_middle_is_the_same_as_going_there(seed, pictures, batch_size, start):
    from_start = list(islice(batches(seed, *pictures, batch_size), start + 5))
    assert list(islice(batches(seed, *pictures, batch_size, start=start), 5)) == from_start[start:]


@given(sets, st.integers(1, 8))
def test_batches_of_a_bucket_differ_by_one_picture_at_most(pictures, batch_size):
    buckets, repeats = pictures
    for bucket in set(buckets):
        found = epoch_order(0, 0, buckets, repeats, batch_size)
        lengths = [len(batch) for batch in found if buckets[batch[0]] == bucket]
        assert max(lengths) - min(lengths) <= 1


def test_order_changes_with_seed_and_epoch():
    buckets, repeats = [(64, 64)] * 30, [1] * 30
    orders = [epoch_order(seed, epoch, buckets, repeats, 2) for seed in range(3) for epoch in range(3)]
    assert len({str(order) for order in orders}) == 9


@given(st.integers(0, 9), sets, st.integers(1, 8))
def test_every_showing_of_a_picture_has_its_number(seed, pictures, batch_size):
    buckets, repeats = pictures
    shown = {index: [] for index in range(len(buckets))}
    for indices, before in islice(
        batches(seed, *pictures, batch_size), 3 * batches_per_epoch(*pictures, batch_size)
    ):
        for index, number in zip(indices, before, strict=True):
            shown[index].append(number)
    assert shown == {index: list(range(3 * times)) for index, times in enumerate(repeats)}


def test_a_batch_keeps_mean_std_sizes_and_weights(tmp_path):
    class Latents:
        def load(self, example, fit):
            return torch.full((4, 2, 3), example.weight), torch.ones(4, 2, 3)

    examples = [Example(tmp_path / f"{w}.png", f"caption {w}", (100, 60), weight=w) for w in (1.0, 0.5)]
    batch = collate([(example, fit(example.size, (24, 16))) for example in examples], Latents())
    assert batch.mean[:, 0, 0, 0].tolist() == batch.weights.tolist() == [1, 0.5]
    assert batch.std.shape == (2, 4, 2, 3)
    assert batch.captions == ["caption 1.0", "caption 0.5"]
    assert batch.sizes.tolist() == [[60, 100, 0, 1, 16, 24]] * 2
