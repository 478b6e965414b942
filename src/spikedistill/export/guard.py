"""What an HDF5 file may not do: reach out of itself, go round in circles, or grow when it is read."""

from __future__ import annotations

from typing import Any

from spikedistill.errors import UserError

BYTES, OBJECTS = 2**31, 10**5
"""Unpacked, at most; and groups and data sets in it, at most."""


def check_hdf5(file: Any, source: str) -> None:
    """Looks at a file's structure before anything of it is read.

    Links to other files and data that lie in other files would be followed by h5py without a word; a data set of a few
    bytes can be compressed from, or simply claim, any size.

    Args:
        file: an open ``h5py.File``.
        source: what to call it in refusals.

    Raises:
        UserError: a link that is more than a name in this file, data that lie outside, a group within itself, or more
            than 2 GiB of data.
    """
    import h5py
    from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue]

    size, seen, waiting = 0, 0, [(file, "", {h5o.get_info(file.id).addr})]
    while waiting:
        group, path, above = waiting.pop()
        for name in group:
            place, seen = f"{path}/{name}", seen + 1
            if seen > OBJECTS:
                raise UserError(f"{source} holds more than {OBJECTS:,} groups and data sets")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise UserError(f"{source}: '{place}' is a link to somewhere else, which is not followed")
            item = group[name]
            if isinstance(item, h5py.Group):
                address = h5o.get_info(item.id).addr
                if address in above:
                    raise UserError(f"{source}: the group '{place}' lies within itself")
                waiting.append((item, place, above | {address}))
            elif isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise UserError(f"{source}: the data of '{place}' lie in another file, which is not read")
                size += item.size * item.dtype.itemsize if item.size else 0
                if size > BYTES:
                    raise UserError(f"{source} claims to hold more than {BYTES >> 30} GiB of numbers")
            else:
                raise UserError(f"{source}: '{place}' is neither a group nor a data set")
