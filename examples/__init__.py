"""The tasks that come with the package: compiled modules, inputs, and what their outputs mean."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True)
class Example:
    """One task that can be submitted as it is."""

    name: str
    module: Path
    """The compiled module, a .wasm file."""
    input: Path
    """A small input for it."""
    description: str
    """One line for people."""


def _example(name: str, input_name: str, description: str) -> Example:
    return Example(name, _FOLDER / f"{name}.wasm", _FOLDER / "inputs" / input_name, description)


EXAMPLES: Final[tuple[Example, ...]] = (
    _example("wordcount", "wordcount.txt", "lines, words, bytes and the ten most common words"),
    _example("fedavg", "fedavg.bin", "federated average of model updates in fixed point"),
    _example("perceptron", "perceptron.bin", "digits read by an int8 perceptron"),
    _example("sobel", "sobel.pgm", "edges of a gray image (PGM)"),
)


def describe_output(name: str, output: bytes) -> str:
    """One line that tells a person what `output` of the example `name` says.

    An output that is not of the example's form, and an unknown name, are described by their size:
    a description is a courtesy, not a check.
    """
    try:
        return {
            "wordcount": _describe_wordcount,
            "fedavg": _describe_fedavg,
            "perceptron": _describe_perceptron,
            "sobel": _describe_sobel,
        }[name](output)
    except (KeyError, ValueError, IndexError, struct.error):
        return f"{len(output)} bytes"


def _describe_wordcount(output: bytes) -> str:
    facts = [line.split(" ") for line in output.decode(errors="replace").splitlines()]
    lines, words, bytes_ = (int(facts[i][1]) for i in range(3))
    common = ", ".join(
        f"{_printable(fact[2])} {int(fact[1])}" for fact in facts[3:6] if fact[0] == "top"
    )
    return f"{lines} lines, {words} words, {bytes_} bytes; most common: {common or 'none'}"


def _printable(word: str) -> str:
    """At most 40 characters of `word`, none of which a terminal obeys: outputs are hostile."""
    return "".join(c if c.isprintable() else "?" for c in word[:40])


def _describe_fedavg(output: bytes) -> str:
    means = [value / 65536 for (value,) in struct.iter_unpack("<i", output)]
    if not means:
        raise ValueError("no parameters")
    shown = ", ".join(f"{mean:.4f}" for mean in means[:3])
    return (
        f"{len(means)} averaged parameters: {shown}, … (from {min(means):.3f} to {max(means):.3f})"
    )


def _describe_perceptron(output: bytes) -> str:
    shown = " ".join(str(label) for label in output[:16])
    more = " …" if len(output) > 16 else ""
    return f"{len(output)} images read as {shown}{more}"


def _describe_sobel(output: bytes) -> str:
    magic, size, depth, pixels = output.split(b"\n", 3)
    width, height = (int(side) for side in size.split())
    if magic != b"P5" or depth != b"255" or len(pixels) != width * height:
        raise ValueError("not an image of this example")
    edges = sum(pixel >= 64 for pixel in pixels)
    return f"{width}×{height} image, {edges} of {len(pixels)} pixels lie on an edge"
