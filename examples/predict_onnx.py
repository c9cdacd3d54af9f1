"""Answers of an ONNX export for image files, as `vitadapt predict` gives them: with onnxruntime, Pillow and NumPy alone.

    python examples/predict_onnx.py fabric.onnx new/*.jpg

All it needs to know is in the file: which square or tiles an image becomes, how colours are standardised, what classes are
called.
Prints one line of JSON for each image.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


FILTERS = {"bicubic": Image.BICUBIC, "bilinear": Image.BILINEAR}


def upright(path, facts):
    """A file as a camera held it, in 8 bits."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I;16"):
        white = 2 ** facts["bit_depth"] - 1
        grey = np.minimum((np.asarray(image).astype(np.uint32) * 255 + white // 2) // white, 255)
        image = Image.fromarray(grey.astype(np.uint8))
    return image.convert("RGB")


def square(image, facts):
    """The image as the model sees it."""
    side, how, kernel = facts["image_size"], facts["resize"], FILTERS[facts["interpolation"]]
    width, height = image.size
    if how == "squash":
        return image.resize((side, side), kernel)
    if how == "letterbox":
        ratio = max(width, height) / side
        width, height = (max(1, round(length / ratio)) for length in (width, height))
        whole = Image.new("RGB", (side, side), tuple(int(255 * value + 0.5) for value in facts["mean"]))
        whole.paste(image.resize((width, height), kernel), ((side - width) // 2, (side - height) // 2))
        return whole
    short = int(side / facts["crop_pct"])
    if width <= height:
        width, height = short, short * height // width
    else:
        width, height = short * width // height, short
    left, upper = round((width - side) / 2), round((height - side) / 2)
    return image.resize((width, height), kernel).crop((left, upper, left + side, upper + side))


def tiles(image, facts):
    """The tiles that the image is cut into, in rows from the upper left; the last of each ends at the border. Staggered, one
    more lies in the middle of every four."""
    side, stride = facts["tiles"]["side"], facts["tiles"]["side"] - facts["tiles"]["overlap"]

    def spans(length):
        count = 1 + max(0, -(-(length - side) // stride))
        own = min(side, length)
        return [(min(tile * stride, length - own), own) for tile in range(count)]

    def between(spans):
        return [((one + other) // 2, own) for (one, own), (other, _) in zip(spans, spans[1:])]

    across, down = spans(image.width), spans(image.height)
    grids = [(across, down)] + [(between(across), between(down))] * facts["tiles"]["staggered"]
    squares = [(x, y, x + w, y + h) for columns, rows in grids for y, h in rows for x, w in columns]
    return [square(image.crop(edges), facts) for edges in squares]


def main():
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    classes, facts = json.loads(metadata["classes"]), json.loads(metadata["input"])
    for path in sys.argv[2:]:
        image = upright(path, facts)
        squares = np.stack(tiles(image, facts) if "tiles" in facts else [square(image, facts)])
        pixels = ((squares / 255 - facts["mean"]) / facts["std"]).transpose(0, 3, 1, 2).astype(np.float32)
        probabilities = session.run(["probabilities"], {"pixel_values": pixels})[0][0]
        best = int(probabilities.argmax())
        everything = {name: round(float(value), 6) for name, value in zip(classes, probabilities)}
        print(json.dumps({"path": path, "label": classes[best], "probabilities": everything}))


if __name__ == "__main__":
    main()
