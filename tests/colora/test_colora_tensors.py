"""The checksum of a tensor's content, against hashlib on NumPy's bytes."""

import hashlib

import torch

from colora.tensors import digest


def test_digest_is_sha256_of_dtype_shape_and_row_major_bytes():
    tensor = torch.arange(6, dtype=torch.int16).reshape(2, 3)
    expected = hashlib.sha256(b"torch.int16 (2, 3) " + tensor.numpy().tobytes()).hexdigest()
    assert digest(tensor) == expected
    assert digest(tensor.T.contiguous().T) == expected
    assert digest(tensor.T) != expected and digest(tensor.view(3, 2)) != expected
    assert digest(tensor.int()) != expected
