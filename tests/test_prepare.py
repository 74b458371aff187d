from itertools import islice

import pytest

from lora_sd.data.buckets import Fit
from lora_sd.data.folder import Example
from lora_sd.training.prepare import Dataset
from lora_sd.training.world import World


class Parts(Dataset):
    """A dataset whose batches are their pictures' numbers: nothing is encoded."""

    def batch(self, indices, shown=None):
        return indices


@pytest.mark.parametrize("size", [1, 2])
def test_every_shape_of_an_epoch_comes_once_and_long_captions_are_shapes_of_their_own(tmp_path, size):
    buckets = [(128, 128)] * 7 + [(160, 96)] * 3
    examples = [Example(tmp_path / f"{i}.png", f"caption {i}", bucket) for i, bucket in enumerate(buckets)]
    data = Parts(examples, [Fit(bucket, bucket, (0, 0)) for bucket in buckets], None)
    num_chunks = {example.caption: 1 + (index in (2, 8)) for index, example in enumerate(examples)}

    def shape(part):
        longest = max(num_chunks[examples[index].caption] for index in part.batch)
        return buckets[part.batch[0]], len(part.batch), longest

    found = [shape(part) for part in data.shapes(5, 3, World(size=size), num_chunks)]
    epoch = {
        shape(part)
        for rank in range(size)
        for part in islice(data.endless(5, 3, 0, World(rank, size)), data.batches_per_epoch(3))
        if part.batch
    }
    assert sorted(found) == sorted(epoch) and len({longest for *_, longest in found}) == 2
