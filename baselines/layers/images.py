"""The one message for images of a size that a network cannot take."""


def check_size(x, fits: bool, expected: str) -> None:
    """Raise ValueError unless images x (batch, 3, height, width) are of a size that `fits`; `expected` says which."""
    if not fits:
        raise ValueError(
            f"x: found images of {' x '.join(map(str, x.shape[2:]))} px, expected {expected}; "
            "resize the images, or make the network with their size as image_size"
        )


def check_square(x, size: int) -> None:
    """Raise ValueError unless images x (batch, 3, height, width) are `size` px high and wide."""
    check_size(x, x.shape[2] == size and x.shape[3] == size, f"{size} x {size} px, for which this network was made")
