"""Build the TensorRT engines of bundles before they are needed, so that no server waits for them when it starts.

    python deploy/build_engines.py models/current --precision f16      # on the machine that will serve
    python deploy/build_engines.py models/current --check              # anywhere: does TensorRT for RTX accept it?

With a GPU each engine is built, compared with the bundle's graph and kept in the cache from which `streampose serve
--runtime tensorrt` takes it ($STREAMPOSE_CACHE, else ~/.cache/streampose). It is valid for this GPU, driver and version
of TensorRT; after a change of any of them run this again, or let `serve` do it. `--check` needs `tensorrt-rtx` and no
GPU; it builds and throws away.

Exit codes: 0 all built; 1 some were not (each with its reason).
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

from streampose.errors import StreamposeError
from streampose.runtime.bundle import load_bundle
from streampose.runtime.engine import PRECISIONS, build_engine, load_library, prepare_graph
from streampose.runtime.predictor import load_predictor


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path, help="folders of bundles")
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="may be repeated [default: f16]")
    parser.add_argument("--check", action="store_true", help="only build, for a GPU that is not here")
    parser.add_argument("--capability", default="8.9", help="compute capability of that GPU [default: 8.9]")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    failed = 0
    for bundle in options.bundles:
        for precision in options.precision or ["f16"]:
            began = time.monotonic()
            try:
                told = _check(bundle, precision, options.capability) if options.check else _build(bundle, precision)
            except (StreamposeError, RuntimeError) as error:
                failed += 1
                print(f"{bundle} {precision}: {error}", file=sys.stderr)
                continue
            print(f"{bundle} {precision}: {told}, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


def _build(bundle: Path, precision: str) -> str:
    """Build, compare and keep."""
    parity = load_predictor(bundle, "tensorrt", precision, fall_back=False).runtime.parity_px  # type: ignore[attr-defined]
    return f"ready, {parity['median']:.3f} px from the graph in the median, {parity['p95']:.2f} px for 95 %"


def _check(path: Path, precision: str, capability: str) -> str:
    """Build for another GPU, and throw away."""
    bundle = load_bundle(path)
    major, minor = (int(part) for part in capability.split("."))
    engine = build_engine(
        load_library(), prepare_graph(bundle, precision), bundle.input_size, capability=(major, minor)
    )
    return f"{load_library().__name__} accepts it, {len(engine) / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
