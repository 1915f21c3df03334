"""Make the small inputs in examples/inputs/, the same bytes every time.

`python examples/make_inputs.py` overwrites them. Random bits come from Mersenne Twister words
with a fixed seed (`getrandbits`), which every version of Python draws alike; no floats are used.
"""

import random
import struct
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "inputs"

CLIENTS, DIMENSIONS = 8, 256
SIDE = 64

# Ten digits, eight by eight. A matched filter for each is the first layer of the perceptron.
GLYPHS = """
.####... ...#.... .####... .####... ....##.. ######.. ..###... ######.. .####... .####...
#....#.. ..##.... #....#.. #....#.. ...#.#.. #....... .#...... .....#.. #....#.. #....#..
#...##.. .#.#.... .....#.. .....#.. ..#..#.. #....... #....... ....#... #....#.. #....#..
#..#.#.. ...#.... ....#... ..###... .#...#.. #####... #####... ....#... .####... .#####..
#.#..#.. ...#.... ..##.... .....#.. ######.. .....#.. #....#.. ...#.... #....#.. .....#..
##...#.. ...#.... .#...... .....#.. .....#.. .....#.. #....#.. ...#.... #....#.. .....#..
#....#.. ...#.... #....... #....#.. .....#.. #....#.. #....#.. ..#..... #....#.. ....#...
.####... .#####.. ######.. .####... .....#.. .####... .####... ..#..... .####... .###....
"""
DIGITS = (3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3)
SHIFT = 12

WORDS = (
    "the the the the the the of of of and and and to to a a is in that it for by with as "
    "member worker client task proof ledger entry height receipt batch anchor verdict "
    "signs runs checks seals pays reads writes waits answers repeats "
    "every honest signed late small certain équipe größe"
)


def wordcount_text(rng: random.Random) -> bytes:
    """Forty lines of words, some of them not ASCII."""
    vocabulary = WORDS.split()
    lines = []
    for _ in range(40):
        words = [
            vocabulary[rng.getrandbits(16) % len(vocabulary)] for _ in range(6 + rng.getrandbits(3))
        ]
        lines.append(" ".join(words).capitalize() + ".")
    return ("\n".join(lines) + "\n").encode()


def fedavg_updates(rng: random.Random) -> bytes:
    """A model in Q16.16 and the updates of clients that scatter around it."""
    model = [rng.getrandbits(18) - (1 << 17) for _ in range(DIMENSIONS)]
    out = struct.pack("<II", CLIENTS, DIMENSIONS)
    for _ in range(CLIENTS):
        weight = 50 + rng.getrandbits(8)
        update = [value + rng.getrandbits(12) - (1 << 11) for value in model]
        out += struct.pack(f"<I{DIMENSIONS}i", weight, *update)
    return out


def glyph_pixels(digit: int) -> list[bool]:
    """The 64 pixels of a digit, row by row."""
    return [pixel == "#" for row in GLYPHS.split()[digit::10] for pixel in row]


def perceptron_images(rng: random.Random) -> bytes:
    """A perceptron that reads digits, and noisy images of the first sixteen digits of pi.

    Hidden unit i adds the light on glyph i and subtracts the light beside it, scaled so that each
    glyph excites its own unit most; output i follows unit i and is inhibited by the others.
    """
    weights1: list[int] = []
    for digit in range(10):
        pixels = glyph_pixels(digit)
        on = sum(pixels)
        weights1 += [1200 // on if lit else -(1200 // (len(pixels) - on)) for lit in pixels]
    weights2 = [64 if i == j else -4 for i in range(10) for j in range(10)]
    images = b"".join(noisy_image(rng, digit) for digit in DIGITS)
    return (
        struct.pack("<IIIII", len(DIGITS), 64, 10, 10, SHIFT)
        + struct.pack("<640b", *weights1)
        + struct.pack("<10i", *[0] * 10)
        + struct.pack("<100b", *weights2)
        + struct.pack("<10i", *[0] * 10)
        + images
    )


def noisy_image(rng: random.Random, digit: int) -> bytes:
    """A glyph in gray: bright strokes, dark ground, both uneven."""
    noise: Sequence[int] = [rng.getrandbits(6) for _ in range(64)]
    lit = glyph_pixels(digit)
    return bytes(190 + noise[i] if lit[i] else noise[i] for i in range(64))


def sobel_image(rng: random.Random) -> bytes:
    """A disc and a frame on a slope of gray, with a little noise, as a PGM file."""
    pixels = bytearray()
    for y in range(SIDE):
        for x in range(SIDE):
            value = 2 * x
            if (x - 24) ** 2 + (y - 28) ** 2 < 15**2:
                value = 220
            if 40 <= x < 58 and 36 <= y < 54 and not (44 <= x < 54 and 40 <= y < 50):
                value = 20
            pixels.append(value + rng.getrandbits(3))
    return f"P5\n# a disc and a frame\n{SIDE} {SIDE}\n255\n".encode() + bytes(pixels)


def make_inputs() -> dict[str, bytes]:
    """Every input by file name; each has a generator of its own, so that none moves another."""
    return {
        "wordcount.txt": wordcount_text(random.Random(1)),
        "fedavg.bin": fedavg_updates(random.Random(2)),
        "perceptron.bin": perceptron_images(random.Random(3)),
        "sobel.pgm": sobel_image(random.Random(4)),
    }


def main() -> None:
    """Write every input."""
    FOLDER.mkdir(exist_ok=True)
    for name, data in make_inputs().items():
        (FOLDER / name).write_bytes(data)


if __name__ == "__main__":
    main()
