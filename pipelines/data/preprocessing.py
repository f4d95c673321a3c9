"""How an image file becomes the array that networks see.

Training data, external data and new images to predict all come through here, so that they are treated alike.
Imports neither NumPy nor Pillow at its top.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Preprocessing(BaseModel):
    """How an image file becomes an array; stored with prepared data and beside trained weights.

    size: pixels of a side. channels: 1 keeps or makes grey, 3 repeats grey. fit: `crop` takes the centre square of the
    short side, `pad` adds black to the short side, `stretch` changes the proportions. white: the value of 16-bit grey
    that becomes 255, white itself where no folder says otherwise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    fit: Literal["crop", "pad", "stretch"] = "crop"
    channels: Literal[1, 3] = 1
    white: int = 2**16 - 1

    def load(self, file: Path):
        """The image as a NumPy array, uint8 (size, size) or (size, size, 3); raises as `pictures.load_image`."""
        import numpy as np
        from PIL import Image

        from pipelines.data import pictures

        image = Image.fromarray(pictures.load_image(file, self.size, self.fit, self.white))
        return np.asarray(image.convert("L" if self.channels == 1 else "RGB"))
