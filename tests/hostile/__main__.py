"""``python -m tests.hostile --count N``: bad inputs of every kind, and what comes of them."""

from __future__ import annotations

import argparse
import sys
import tempfile

from tqdm import tqdm


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="of all kinds together")
    parser.add_argument("--first", type=int, default=0, help="number of each kind's first case")
    options = parser.parse_args()
    import os

    with tempfile.TemporaryDirectory() as cache:
        os.environ["HTAF_SNN_CACHE"] = cache
        from .runner import run

        outcomes, failures = run(
            options.count, options.first, lambda cases, total: tqdm(cases, total=total)
        )
    for kind, counter in outcomes.items():
        sys.stdout.write(f"{kind:10} {dict(sorted(counter.items()))}\n")
    for failure in failures:
        sys.stdout.write(f"\n{failure.kind} {failure.number}: {failure.outcome}\n")
        sys.stdout.write(f"  {failure.changes!r}\n  {failure.said}\n")
    sys.stdout.write(f"\n{sum(sum(c.values()) for c in outcomes.values())} cases, "
                     f"{len(failures)} failures\n")  # fmt: skip
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
