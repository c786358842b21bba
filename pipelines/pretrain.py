"""Make the model that is shipped as `streampose/default_bundle`: SynthPose people and no labels.

    python pipelines/pretrain.py --work /tmp/pretrain --max-minutes 40 [--mocap FOLDER] [--body FOLDER]

First by the method `mask` on single videos, then refined on sessions of four cameras, which tell left from right; what
comes of that makes the first labels of a larger network, which is refined on the same sessions.

Motion capture (BVH) and a MakeHuman body, where they are named, add recorded motions and a skinned body to the
procedural ones; see `streampose synth --help`.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from streampose.console import logger, start_logging
from streampose.evaluate import evaluate
from streampose.ingest import ingest
from streampose.selftrain import selftrain
from streampose.synth import synth
from streampose.synthetic.synthpose import make_synthpose

SHIPPED = Path(__file__).resolve().parent.parent / "streampose" / "default_bundle"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for videos, stores and runs")
    parser.add_argument("--max-minutes", type=float, default=40.0, help="time for training")
    parser.add_argument("--preset", default="tiny", help="preset of the method mask")
    parser.add_argument("--larger", default="small", help="preset of the network that is refined last, and shipped")
    parser.add_argument("--mocap", type=Path, help="folder of BVH files")
    parser.add_argument("--body", type=Path, help="folder of a MakeHuman body")
    parser.add_argument("--videos", type=int, default=16, help="further videos of each kind")
    parser.add_argument("--sessions", type=int, default=60, help="recordings by four cameras to refine on; 0 for none")
    arguments = parser.parse_args()
    start_logging()

    work = arguments.work
    make_synthpose(work / "videos" / "synthpose", "train")
    make_synthpose(work / "unseen", "test")
    further = {"videos": arguments.videos, "seconds": 8.0, "seed": 77}
    if arguments.mocap:
        synth(out=work / "videos" / "mocap", motion=arguments.mocap, **further)
    if arguments.body:
        motion = arguments.mocap or "procedural"
        synth(out=work / "videos" / "body", motion=motion, body=arguments.body, **further)
    ingest([work / "videos"], store=work / "store.zarr", workers=2)
    ingest([work / "unseen"], store=work / "unseen.zarr", workers=2)
    trained = selftrain(
        store=work / "store.zarr", method="mask", preset=arguments.preset, out=work / "runs", models=work / "models",
        max_minutes=arguments.max_minutes, force_promote=True,
    )  # fmt: skip
    if trained["bundle"] is None:
        raise SystemExit(trained["reason"])
    if arguments.sessions:
        views = {"videos": arguments.sessions, "cameras": 4, "fps": 12.5, "seed": 41_001}
        folders = [work / "sessions" / "capsules"]
        synth(out=folders[0], **views)
        if arguments.body:
            folders.append(work / "sessions" / "body")
            synth(out=folders[1], motion=arguments.mocap or "procedural", body=arguments.body, **views)
        ingest([], sessions=folders, store=work / "sessions.zarr", workers=2)
        for preset in (None, arguments.larger):
            trained = selftrain(
                store=work / "sessions.zarr", refine="triangulate", preset=preset, init=Path(trained["bundle"]),
                out=work / "runs", models=work / "models", overrides=["steps=8000"], force_promote=True,
            )  # fmt: skip
    measured = evaluate(
        store=work / "unseen.zarr", truth=work / "unseen", model=work / "models" / "current", out=work / "evaluation"
    )
    for name, value in measured["metrics"].items():
        logger.info("%-20s %.4g", name, value)
    shutil.rmtree(SHIPPED, ignore_errors=True)
    shutil.copytree(trained["bundle"], SHIPPED)
    logger.info("%s: %d kB", SHIPPED, sum(file.stat().st_size for file in SHIPPED.iterdir()) // 1024)


if __name__ == "__main__":
    main()
