"""Random numbers as a function of where they are used, so that nothing depends on what ran before."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch


def seed_of(*parts: int | str) -> int:
    """Hashes a place such as ``(seed, "augment", epoch, batch)`` to a seed of 63 bits."""
    digest = blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """Returns a CPU generator seeded by the place; drawing on the CPU makes every device see the same numbers."""
    return torch.Generator().manual_seed(seed_of(*parts))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the global CPU generators of torch, numpy and random inside the block and puts them back after it."""
    import numpy as np

    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    # torch.manual_seed would also reseed the accelerators, whose state is not put back here.
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
