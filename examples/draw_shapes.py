"""Draw 500 photos of shapes to label and 200 as a test set; or label in the place of a person.

python examples/draw_shapes.py                       # photos/, test/ with its labels.csv, truth.csv
python examples/draw_shapes.py --answer RUN_DIR      # fills in the query that waits there
"""

import argparse
import csv
import random
from pathlib import Path

from PIL import Image, ImageDraw

SHAPES = {"triangle": 3, "square": 4, "circle": 99}


def draw(folder, seeds, width=160, height=120):
    folder.mkdir()
    labels = {}
    for seed in seeds:
        r = random.Random(seed)
        label = r.choice(list(SHAPES))
        dark = f"hsl({r.randrange(360)},{r.randrange(20, 70)}%,{r.randrange(10, 35)}%)"
        picture = Image.new("RGB", (width, height), dark)
        pen = ImageDraw.Draw(picture)
        for _ in range(r.randrange(6)):  # lines in the way
            ends = [(r.randrange(width), r.randrange(height)) for _ in range(2)]
            pen.line(ends, f"hsl({r.randrange(360)},50%,45%)", r.randrange(1, 4))
        radius = r.uniform(22, 48)
        x, y = r.uniform(radius, width - radius), r.uniform(radius, height - radius)
        bright = f"hsl({r.randrange(360)},90%,65%)"
        pen.regular_polygon((x, y, radius), SHAPES[label], r.randrange(360), bright)
        name = f"img_{seed:04}.jpg"
        picture.save(folder / name, quality=90)
        labels[name] = label
    return labels


def write(path, labels):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *labels.items()])


def answer(run_dir):
    with open("truth.csv", newline="") as file:
        truth = {row["path"]: row["label"] for row in csv.DictReader(file)}
    queries = run_dir.glob("queries/cycle_*/to_label.csv")
    path = max(queries, key=lambda path: int(path.parent.name.removeprefix("cycle_")))
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "label": truth[row["path"]]} for row in rows)
    print(f"filled in {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--answer", type=Path, metavar="RUN_DIR")
    args = parser.parse_args()
    if args.answer:
        answer(args.answer)
    else:
        write("truth.csv", draw(Path("photos"), range(500)))
        write("test/labels.csv", draw(Path("test"), range(1000, 1200)))
