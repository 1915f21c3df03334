"""The examples against references written in Python, and against input that is not theirs."""

import importlib.util
import random
import re
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from vcp_cluster.examples import EXAMPLES, Example, describe_output
from vcp_cluster.executor import Status, TrapClass, run
from vcp_cluster.executor.protocol import Finished

BY_NAME = {example.name: example for example in EXAMPLES}


@pytest.fixture
def execute(in_process: Callable[..., Finished]) -> Callable[[str, bytes], Finished]:
    """Runs an example in this process, which takes a fiftieth of the time."""
    return lambda name, data: in_process(BY_NAME[name].module.read_bytes(), data)


def wordcount(text: bytes) -> bytes:
    """What wc counts, then the most common runs of letters in lower case."""
    words = Counter(word.lower() for word in re.findall(rb"[A-Za-z\x80-\xff]+", text))
    lines = [f"lines {text.count(10)}", f"words {len(text.split())}", f"bytes {len(text)}"]
    out = "".join(line + "\n" for line in lines).encode()
    for word, count in sorted(words.items(), key=lambda item: (-item[1], item[0]))[:10]:
        out += b"top %d %s\n" % (count, word)
    return out


def fedavg(data: bytes) -> bytes:
    clients, dimensions = struct.unpack_from("<II", data)
    records = list(struct.iter_unpack(f"<I{dimensions}i", data[8:]))
    assert len(records) == clients
    total = sum(record[0] for record in records)
    means = []
    for i in range(1, dimensions + 1):
        value = sum(record[0] * record[i] for record in records)
        rounded = (abs(value) + total // 2) // total
        means.append(rounded if value >= 0 else -rounded)
    return struct.pack(f"<{dimensions}i", *means)


def perceptron(data: bytes) -> bytes:
    images, pixels, hidden, classes, shift = struct.unpack_from("<5I", data)
    layout = f"<5I{hidden * pixels}b{hidden}i{classes * hidden}b{classes}i{images * pixels}B"
    values = list(struct.unpack(layout, data)[5:])

    def take(count: int) -> list[int]:
        taken = values[:count]
        del values[:count]
        return taken

    weights1, biases1 = take(hidden * pixels), take(hidden)
    weights2, biases2 = take(classes * hidden), take(classes)
    answers = bytearray()
    for _ in range(images):
        image = take(pixels)
        layer = []
        for i in range(hidden):
            row = weights1[i * pixels : (i + 1) * pixels]
            total = biases1[i] + sum(w * x for w, x in zip(row, image, strict=True))
            layer.append(max(0, min(127, total >> shift)))
        scores = []
        for i in range(classes):
            row = weights2[i * hidden : (i + 1) * hidden]
            scores.append(biases2[i] + sum(w * x for w, x in zip(row, layer, strict=True)))
        answers.append(scores.index(max(scores)))
    return bytes(answers)


def sobel(width: int, height: int, pixels: bytes) -> bytes:
    def at(x: int, y: int) -> int:
        return pixels[y * width + x]

    out = bytearray(width * height)
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            gx = sum(
                k * (at(x + 1, y + d) - at(x - 1, y + d)) for d, k in ((-1, 1), (0, 2), (1, 1))
            )
            gy = sum(
                k * (at(x + d, y + 1) - at(x + d, y - 1)) for d, k in ((-1, 1), (0, 2), (1, 1))
            )
            out[y * width + x] = min(255, (abs(gx) + abs(gy)) // 4)
    return f"P5\n{width} {height}\n255\n".encode() + bytes(out)


def sobel_of_shipped(data: bytes) -> bytes:
    return sobel(64, 64, data[-64 * 64 :])


REFERENCES = {
    "wordcount": wordcount,
    "fedavg": fedavg,
    "perceptron": perceptron,
    "sobel": sobel_of_shipped,
}
DESCRIPTIONS = {
    "wordcount": "40 lines, 358 words, 1911 bytes; most common: the 50, and 19, of 19",
    "fedavg": "256 averaged parameters: 1.8128, 1.4588, 1.7966, … (from -1.984 to 2.004)",
    "perceptron": "16 images read as 3 1 4 1 5 9 2 6 5 3 5 8 9 7 9 3",
    "sobel": "64×64 image, 410 of 4096 pixels lie on an edge",
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_shipped_example_equals_its_reference(example: Example) -> None:
    data = example.input.read_bytes()
    result = run(example.module.read_bytes(), data)
    assert (result.status, result.output) == (Status.OK, REFERENCES[example.name](data))
    assert describe_output(example.name, result.output) == DESCRIPTIONS[example.name]
    assert len(example.module.read_bytes()) < 4096


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"one",
        b" \t\r\n\x0b\x0c",
        "Größe größe GRÖSSE".encode(),
        b"a b c d e f g h i j k l m A B",
        b"x" * 100_000,
        bytes(range(256)) * 3,
        random.Random(5).randbytes(20_000),
    ],
    ids=range(9),
)
def test_wordcount_of_any_bytes(text: bytes, execute) -> None:
    assert execute("wordcount", text).output == wordcount(text)


def test_fedavg_rounds_halves_away_from_zero_and_holds_the_extremes(execute) -> None:
    low, high = -(2**31), 2**31 - 1
    data = struct.pack("<IIIiiiiIiiii", 2, 4, 1, 3, -3, low, high, 1, 0, 0, low, high)
    assert struct.unpack("<4i", execute("fedavg", data).output) == (2, -2, low, high)
    heavy = struct.pack("<IIIiIi", 2, 1, 2**30, low, 2**30, low)
    assert struct.unpack("<i", execute("fedavg", heavy).output) == (low,)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 5), (7, 3), (33, 20)])
def test_sobel_of_any_size(width: int, height: int, execute) -> None:
    pixels = random.Random(width).randbytes(width * height)
    data = b"P5 #note\n%d\n# more\n%d\t255\n" % (width, height) + pixels
    assert execute("sobel", data).output == sobel(width, height, pixels)


MALFORMED = {
    "fedavg empty": ("fedavg", b""),
    "fedavg without clients": ("fedavg", struct.pack("<II", 0, 1)),
    "fedavg without dimensions": ("fedavg", struct.pack("<III", 1, 0, 1)),
    "fedavg short": ("fedavg", struct.pack("<IIIi", 1, 2, 1, 1)),
    "fedavg long": ("fedavg", struct.pack("<IIIii", 1, 1, 1, 1, 1)),
    "fedavg sizes that wrap": ("fedavg", struct.pack("<III", 1, 2**30 - 1, 1)),
    "fedavg without weight": ("fedavg", struct.pack("<IIIi", 1, 1, 0, 1)),
    "fedavg too heavy": ("fedavg", struct.pack("<IIIiIi", 2, 1, 2**31, 1, 1, 1)),
    "perceptron empty": ("perceptron", b""),
    "perceptron sizes that wrap": ("perceptron", struct.pack("<5I", 2**31, 2, 1, 1, 0)),
    "perceptron without classes": ("perceptron", struct.pack("<5Ibi", 0, 1, 1, 0, 0, 0, 0)),
    "perceptron shift": ("perceptron", struct.pack("<5IbibiB", 1, 1, 1, 1, 31, 0, 0, 0, 0, 0)),
    "perceptron bias": (
        "perceptron",
        struct.pack("<5IbibiB", 1, 1, 1, 1, 0, 0, 2**30 + 1, 0, 0, 0),
    ),
    "sobel empty": ("sobel", b""),
    "sobel text format": ("sobel", b"P2\n1 1\n255\n0"),
    "sobel without width": ("sobel", b"P5\n0 1\n255\n"),
    "sobel too wide": ("sobel", b"P5\n16385 1\n255\n"),
    "sobel 16 bits": ("sobel", b"P5\n1 1\n65535\n\0\0"),
    "sobel short": ("sobel", b"P5\n2 2\n255\n\0\0\0"),
    "sobel long": ("sobel", b"P5\n1 1\n255\n\0\0"),
    "sobel endless comment": ("sobel", b"P5\n#"),
    "sobel joined": ("sobel", b"P51 1 255\n\0"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_input_traps(case: str, execute) -> None:
    name, data = MALFORMED[case]
    result = execute(name, data)
    assert (result.status, result.trap) == (Status.TRAP, TrapClass.UNREACHABLE)


@pytest.mark.parametrize("output", [b"", b"\xff", b"P5\n2 2\n255\n\0", b"lines x\n\n\n"])
@pytest.mark.parametrize("name", ["wordcount", "sobel", "unknown"])
def test_describing_what_is_not_an_output(name: str, output: bytes) -> None:
    assert describe_output(name, output) == f"{len(output)} bytes"


def test_describing_short_outputs() -> None:
    assert describe_output("fedavg", b"") == "0 bytes"
    assert describe_output("fedavg", b"\1\2\3") == "3 bytes"
    assert describe_output("perceptron", b"\7") == "1 images read as 7"
    counted = b"lines 0\nwords 0\nbytes 0\n"
    assert describe_output("wordcount", counted).endswith("most common: none")


def test_a_description_holds_nothing_that_a_terminal_obeys() -> None:
    output = b"lines 0\nwords 0\nbytes 0\ntop 1 \x1b[2Jx" + b"y" * 100_000 + b"\n"
    described = describe_output("wordcount", output)
    assert described.isprintable()
    assert len(described) < 120


def load_generator() -> ModuleType:
    path = Path(BY_NAME["sobel"].module).parent / "make_inputs.py"
    spec = importlib.util.spec_from_file_location("make_inputs", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_inputs_are_what_their_generator_makes() -> None:
    made = load_generator().make_inputs()
    assert made == {example.input.name: example.input.read_bytes() for example in EXAMPLES}
