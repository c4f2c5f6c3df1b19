"""Maps with pictures, and generations, made by hand."""

from __future__ import annotations

import base64
import io
import random

import numpy as np
from PIL import Image, ImageDraw

from clearhead.generations import GenerationMap
from clearhead.maps import RelevanceMap, Target
from clearhead.units import Unit
from render.examples import BREAKOUT, RECIPE, leaking, returned_leaks

EVIL = "[red]evil[/red] <b onmouseover=alert(1)>\x1b]0;title\x07"


def address(image):
    """An image as the address that a map holds."""
    data = io.BytesIO()
    image.save(data, format="PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def still(side=224):
    """Something to look at: a bowl and a red fruit on a table, in light from the left."""
    image = Image.new("RGB", (side * 2, side * 2))
    draw = ImageDraw.Draw(image)
    for y in range(side * 2):
        shade = y / side / 2
        draw.line([(0, y), (side * 2, y)], fill=(int(96 + 90 * shade), int(110 + 60 * shade), int(120 + 20 * shade)))
    draw.rectangle([0, side * 1.25, side * 2, side * 2], fill=(139, 101, 67))
    draw.ellipse([side * 0.2, side * 0.9, side * 1.3, side * 1.6], fill=(225, 220, 205))
    draw.ellipse([side * 0.32, side * 0.95, side * 1.18, side * 1.2], fill=(170, 163, 145))
    draw.ellipse([side * 1.2, side * 1.1, side * 1.75, side * 1.65], fill=(188, 44, 38))
    draw.ellipse([side * 1.3, side * 1.18, side * 1.45, side * 1.33], fill=(240, 180, 170))
    draw.line([side * 1.48, side * 1.12, side * 1.56, side * 0.92], fill=(70, 50, 30), width=side // 20)
    return image.resize((side, side), Image.Resampling.LANCZOS)


def grid(rows, columns, size, stream="image", first=0):
    """Units for the parts of a picture, row by row."""
    return tuple(
        Unit(
            index=first + row * columns + column,
            text=f"row {row + 1}, column {column + 1}",
            stream=stream,
            box=(column * size, row * size, (column + 1) * size, (row + 1) * size),
        )
        for row in range(rows)
        for column in range(columns)
    )


def blob(rows, columns, row, column, wide, seed=1):
    """Relevance that gathers round one place, with a little of the other sign elsewhere."""
    ys, xs = np.mgrid[:rows, :columns]
    near = np.exp(-(((ys - row) / wide) ** 2 + ((xs - column) / wide) ** 2))
    return (near + np.random.default_rng(seed).normal(0, 0.09, (rows, columns))).ravel()


def of_units(units, relevance, **changes):
    fields = {
        "method": "lrp",
        "model": "example/image-classifier-small",
        "task": "image-classification",
        "target": Target(kind="class", label="pomegranate", index=4),
        "value": float(np.sum(relevance)),
        "ledger": returned_leaks(0.1),
        "recipe": RECIPE,
    }
    return RelevanceMap(units=units, relevance=relevance, **{**fields, **changes})


def patches():
    """196 patches and a special token beside them; the strongest is in row 9, column 10."""
    relevance = blob(14, 14, 8.2, 9.3, 2.0) * 0.2
    relevance[13 * 14 + 2] = -0.16
    relevance[8 * 14 + 9] = 0.31
    special = Unit(index=196, text="cls_token", stream="image", special=True)
    units = (*grid(14, 14, 16), special)
    return of_units(units, [*relevance, 0.081], pictures={"image": address(still())})


def digit():
    """A picture of 8 x 8 pixels, shown large, with 16 patches."""
    rows = ["..3772..", ".37..73.", ".....73.", "....73..", "...73...", "..73....", ".37.....", ".7777777"]
    shades = np.array([[0 if c == "." else int(c) * 36 for c in row] for row in rows], dtype=np.uint8)
    relevance = [0.05, 0.2, 0.31, -0.02, 0.0, -0.11, 0.42, 0.01, 0.02, 0.38, -0.04, -0.2, 0.09, 0.51, 0.3, 0.28]
    return of_units(
        grid(4, 4, 2),
        relevance,
        pictures={"image": address(Image.fromarray(shades))},
        model="example/digits",
        target=Target(kind="class", label="2", index=2),
    )


def pixels(side=224):
    """Every pixel a unit, a few of them far beyond all others."""
    relevance = blob(side, side, side * 0.62, side * 0.66, side / 7) * 0.004
    relevance[:3] = [0.1, -0.2, 0.15]
    return of_units(grid(side, side, 1), relevance, pictures={"image": address(still(side))})


def captioned():
    """An image and a text, and their similarity."""
    words = "a bowl beside a red fruit".split()
    units = grid(7, 7, 32)
    units += tuple(Unit(index=49 + i, text=word, stream="text", word=i) for i, word in enumerate(words))
    relevance = [*blob(7, 7, 4.2, 4.6, 1.2) * 0.05, -0.01, 0.08, 0.0, 0.01, 0.11, 0.14]
    return of_units(
        units,
        relevance,
        pictures={"image": address(still())},
        texts={"text": " ".join(words)},
        task="image-text-similarity",
        target=Target(kind="similarity", label="cosine similarity"),
    )


def hostile_picture():
    """A picture that is none, boxes that are none, and a stream that would be markup."""
    units = (
        Unit(index=0, text=EVIL, stream=BREAKOUT, box=(0, 0, 8, 8)),
        Unit(index=1, text=BREAKOUT, stream=BREAKOUT, box=(8, 0, 16, 8)),
        Unit(index=2, text="outside", stream=BREAKOUT, box=(-5, 0, 1e9, float("nan"))),
        Unit(index=3, text="none", stream=BREAKOUT, box=('"><script>', 0, 1, 1)),
    )
    return of_units(
        units, [1.0, -0.5, 0.25, 0.125], pictures={BREAKOUT: 'https://example.org/x.png"><script>alert(1)</script>'}
    )


# ---- generations ---------------------------------------------------------------------------------------------------


def translation():
    """A sentence and its translation: an encoder whose units all rows share, a decoder that grows."""
    source = "the house is small .".split()
    made = "Das Haus ist klein .".split()
    table = [
        [1.21, 0.62, 0.03, -0.08, 0.02, 0.41],
        [0.18, 1.92, -0.05, 0.33, 0.01, 0.12, 0.36],
        [0.02, 0.24, 1.4, 0.1, -0.12, 0.08, -0.03, 0.71],
        [0.05, -0.31, 0.22, 2.4, 0.09, 0.05, 0.02, 0.11, 0.32],
        [-0.03, 0.01, 0.12, 0.2, 1.8, 0.07, -0.02, 0.04, 0.05, 0.9],
    ]
    units = [Unit(index=i, text=word, stream="encoder", word=i) for i, word in enumerate(source)]
    units.append(Unit(index=5, text="<s>", stream="decoder", special=True))
    units += [Unit(index=6 + i, text=word, stream="decoder", word=i) for i, word in enumerate(made[:-1])]
    texts = {"encoder": "the house is small.", "decoder": "Das Haus ist klein."}
    rows = [
        of_units(
            tuple(units[: len(line)]),
            line,
            task="translation",
            model="example/translator-small",
            texts=texts,
            target=Target(kind="token", label=token, index=7 + t, position=t),
            value=sum(line) * (1 + 2e-7),
        )
        for t, (token, line) in enumerate(zip(made, table, strict=True))
    ]
    return GenerationMap(rows=tuple(rows))


def continuation(rows=32, columns=100, seed=5):
    """A long continuation: `columns` units in all for the last of `rows` produced tokens."""
    draw = random.Random(seed)
    words = "the river ran past a quiet town where nobody had seen rain for years and the mill stood still".split()
    read = columns - rows + 1
    pieces = [draw.choice(words) for _ in range(columns + 1)]
    units = tuple(
        Unit(index=i, text=pieces[i], stream="input" if i < read else "generated", word=i) for i in range(columns)
    )
    texts = {"input": " ".join(pieces[:read]), "generated": " ".join(pieces[read:])}
    made = []
    for t in range(rows):
        relevance = [draw.gauss(0, 0.5) ** 3 for _ in range(read + t - 1)] + [draw.uniform(0.5, 3)]
        made.append(
            of_units(
                units[: read + t],
                relevance,
                task="text-generation",
                model="example/writer-small",
                texts=texts,
                target=Target(kind="token", label=" " + pieces[read + t], index=t, position=t),
            )
        )
    return GenerationMap(rows=tuple(made))


def unbalanced():
    """Two rows of which one leaks."""
    leaks = leaking()
    units = (*leaks.units, Unit(index=len(leaks.units), text="so", stream="input"))
    good = of_units(units, [0.1] * len(units), target=Target(kind="token", label="well", position=1))
    bad = of_units(
        leaks.units,
        leaks.relevance,
        value=leaks.value,
        base_value=leaks.base_value,
        ledger=leaks.ledger,
        warnings=leaks.warnings,
        target=Target(kind="token", label="so", position=0),
    )
    return GenerationMap(rows=(bad, good))


def odd_rows():
    """Zeros, not a number, infinity, and a row of nothing."""
    units = tuple(Unit(index=i, text="abcd"[i]) for i in range(4))
    lines = [[], [0.0], [float("nan"), 1.0], [1.0, float("inf"), -2.0], [1e-9, 0.0, 0.0, -1e-9]]
    return GenerationMap(
        rows=tuple(
            of_units(units[: len(line)], line, value=1.0 if n == 2 else 0.0, target=Target(kind="token", label="x"))
            for n, line in enumerate(lines)
        )
    )


def described():
    """A picture and what is said of it: the parts of the picture share a column."""
    words = "a red fruit".split()
    units = (*grid(14, 14, 16), *(Unit(index=196 + i, text=w, stream="generated", word=i) for i, w in enumerate(words)))
    pictures = {"image": address(still())}
    rows = [
        of_units(
            units[: 196 + t],
            [*blob(14, 14, 8, 9, 2, seed=t) * 0.1, *[0.4, -0.2][:t]],
            target=Target(kind="token", label=word, position=t),
            task="image-to-text",
            pictures=pictures,
            texts={"generated": " ".join(words)},
        )
        for t, word in enumerate(words)
    ]
    return GenerationMap(rows=tuple(rows))


def hostile_generation():
    """Everything that tries to be more than text, in every place of a generation."""
    units = (
        Unit(index=0, text=BREAKOUT, stream=BREAKOUT),
        Unit(index=1, text=EVIL, stream=EVIL),
        Unit(index=2, text="\u202eevil {{ 7*7 }}", stream=EVIL),
    )
    rows = [
        of_units(
            units[:count],
            [0.5, -0.25, 0.125][:count],
            target=Target(kind="token", label=label),
            model=BREAKOUT,
            method=EVIL,
            task=EVIL,
            texts={BREAKOUT: EVIL, EVIL: BREAKOUT},
            warnings=(BREAKOUT,),
        )
        for count, label in ((2, EVIL), (3, BREAKOUT))
    ]
    return GenerationMap(rows=tuple(rows))


PICTURES = {
    "patches": patches,
    "digit": digit,
    "pixels": lambda: pixels(48),
    "captioned": captioned,
    "hostile_picture": hostile_picture,
}
GENERATIONS = {
    "translation": translation,
    "continuation": lambda: continuation(8, 30),
    "unbalanced": unbalanced,
    "odd_rows": odd_rows,
    "described": described,
    "hostile_generation": hostile_generation,
}
