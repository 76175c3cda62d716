"""python -m tests.fuzz F3 [--seconds 60]: search for an input that breaks a target, guided by coverage.

It begins with `seeds.py`, and ends with 0 when nothing was found. What it finds is written to the current folder
as `crash-…`: put it among the seeds, then fix the code. Needs the extra `fuzz`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

LENGTHS = {"F1": 4096}  # bytes of an input; a line of a reply may have 2,048


def main() -> None:
    """Run one target for so many seconds."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=["F1", "F2", "F3", "F5", "F6", "F7", "F10"])
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: pip install -e '.[fuzz]'")
    with atheris.instrument_imports(include=["asyncsmtp"]):
        from tests.fuzz.seeds import SEEDS
        from tests.fuzz.targets import TARGETS
    with tempfile.TemporaryDirectory(prefix="asyncsmtp-fuzz-") as folder:
        for number, seed in enumerate(SEEDS[options.target]):
            Path(folder, str(number)).write_bytes(seed)
        limits = [
            f"-max_total_time={options.seconds}",
            f"-max_len={LENGTHS.get(options.target, 400)}",
            "-timeout=30",
            "-rss_limit_mb=1024",
        ]
        atheris.Setup([sys.argv[0], *limits, "-verbosity=0", "-print_final_stats=1", folder], TARGETS[options.target])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
