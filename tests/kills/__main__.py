"""``python -m tests.kills --kills N``: fit, compare, the frame build, killed and gone on with."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from .kills import VICTIMS, Kills


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="of all victims together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(VICTIMS), help="kill this one alone")
    options = parser.parse_args()
    names = [options.only] if options.only else list(VICTIMS)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        kills = Kills(Path(folder))
        for number in tqdm(range(options.kills)):
            draw = random.Random(f"{options.seed} {number}")
            done = kills.kill(names[number % len(names)], draw)
            counts[f"{done.victim} {done.number.name} {'wrong' if done.wrong else 'right'}"] += 1
            if done.wrong:
                sys.stdout.write(f"{done.victim}, {done.number.name} after {done.seconds:.2f} s: "
                                 f"{'; '.join(done.wrong)}\n")  # fmt: skip
    for name, count in sorted(counts.items()):
        sys.stdout.write(f"{count:4} {name}\n")
    return any(name.endswith("wrong") for name in counts)


if __name__ == "__main__":
    sys.exit(main())
