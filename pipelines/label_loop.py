"""What labels are worth: rounds of suggested frames against random ones, with an annotator who knows the truth.

    python pipelines/label_loop.py --work /tmp/loop [--train VIDEOS --test VIDEOS] [--rounds 5 --frames 20 --seeds 3]

Every step is a verb as a user calls it: `suggest` writes a package, the annotator puts every joint where the truth of
the synthetic video has it (hidden ones too, those outside the picture not), `labels import` brings them in, and
`selftrain --refine labels` goes on from the model of the round before. In the end a model is refined on all labels at
once, by the suggested ones and by as many random ones, from the same start and with the same steps.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streampose.console import logger, start_logging
from streampose.evaluate import evaluate
from streampose.evaluation.predicted import Predicted
from streampose.evaluation.truth import match_truth
from streampose.formats.annotations import Annotations
from streampose.formats.coco_labels import read_coco_labels, write_coco_labels
from streampose.geometry.crop import crop_from_source
from streampose.ingest import ingest
from streampose.labelling.match import PICTURE
from streampose.labels import import_labels
from streampose.report import Section, Table, write_report
from streampose.runtime.bundle import default_bundle
from streampose.selftrain import selftrain
from streampose.store.reader import StoreReader
from streampose.suggest import suggest
from streampose.synthetic.synthpose import make_synthpose

METRICS = ("pck@0.1", "pck@0.2", "pck@0.1/flips", "free/score")


class Annotator:
    """Somebody who knows the truth of a store's synthetic videos.

    Args:
        truth: folder of their *.truth.npz.
    """

    def __init__(self, store: Path, truth: Path):
        self.reader = StoreReader(store)
        joints = self.reader.skeleton.joints
        tracks = []
        for clip in self.reader.clips():
            numbers, times, boxes = (of(clip.id) for of in (self.reader.numbers, self.reader.times, self.reader.boxes))
            nothing = np.zeros((clip.num_frames, len(joints), 2))
            tracks.append(Predicted(clip.id, clip.source, 0, numbers, times, boxes, nothing, None, nothing[..., 0]))
        self.places: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for match in match_truth(tracks, truth, float(self.reader.attributes.get("margin", 0.1))):
            names, frames = match.exact.joints.tolist(), match.item.frame_index
            order = [names.index(name) for name in joints]
            source = match.exact.joints_2d[frames, match.subject][:, order]
            crop = crop_from_source(source, match.item.boxes, self.reader.crop_size)
            self.places[match.item.track] = crop, match.exact.visibility[frames, match.subject][:, order]

    def correct(self, package: Path, out: Path) -> Path:
        """Correct the pictures of a COCO package; those of subjects without truth are left out."""
        given = read_coco_labels(package / "labels.json")
        xy, seen, rows = given.xy.copy(), given.visibility.copy(), []
        for r, image in enumerate(given.image):
            found = PICTURE.search(Path(str(image)).stem)
            assert found is not None
            clip, frame, side = found.group(1), int(found.group(2)), int(found.group(3))
            if clip not in self.places:
                continue
            places, visibility = self.places[clip]
            xy[r] = (places[frame] + 0.5) * side / self.reader.crop_size - 0.5
            seen[r] = visibility[frame]
            xy[r][seen[r] == 0] = np.nan
            rows.append(r)
        columns = [given.joints.index(name) for name in self.reader.skeleton.joints]
        assert columns == list(range(len(columns))), "the model has the store's joints"
        corrected = Annotations(
            **{**given.__dict__, "xy": xy, "visibility": seen, "confidence": np.full(seen.shape, np.nan)}
        )
        return write_coco_labels(out, corrected.pick(rows))


def label_and_learn(
    store: Path,
    annotator: Annotator,
    work: Path,
    *,
    rounds: int,
    frames: int,
    seed: int,
    at_random: bool,
    init: Path,
    settings: Sequence[str],
    round_settings: Sequence[str],
) -> Path:
    """Rounds of labels, then one model of all of them: its bundle. At random, all labels are chosen at once."""
    model, name = init, f"{'random' if at_random else 'suggested'}-{seed}"
    for number in range(1 if at_random else rounds):
        package = work / name / f"package-{number}"
        count = frames * rounds if at_random else frames
        suggest(
            store=store, frames=count, tool="coco", out=package, model=model, at_random=at_random, seed=seed, side=128
        )
        labelled = annotator.correct(package, work / name / f"labels-{number}.json")
        import_labels([labelled], store=store, name=name, who="truth")
        if not at_random and number < rounds - 1:
            model = refine(store, name, model, work / name / f"round-{number}", seed, round_settings)
    return refine(store, name, init, work / name / "all", seed, settings)


def refine(store: Path, labels: str, init: Path, out: Path, seed: int, settings: Sequence[str]) -> Path:
    """A model refined on a set of labels: its bundle."""
    run = selftrain(
        store=store, refine="labels", labels=[labels], init=init, out=out / "runs", models=out / "models", seed=seed,
        overrides=list(settings),
    )  # fmt: skip
    return Path(run["bundle"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for videos, stores and runs")
    parser.add_argument("--train", type=Path, help="videos with truth to label [default: SynthPose, rendered]")
    parser.add_argument("--test", type=Path, help="videos with truth to measure on [default: SynthPose, rendered]")
    parser.add_argument("--init", type=Path, help="bundle to start from [default: the shipped model]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=20, help="labelled in each round")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", dest="settings", action="append", default=[], help="setting of the last refinement")
    parser.add_argument("--set-round", dest="round_settings", action="append", default=["steps=250", "rounds=0"])
    arguments = parser.parse_args()
    start_logging()
    table = run(**vars(arguments))
    print(json.dumps(table, indent=1))


def run(
    *,
    work: Path,
    train: Path | None = None,
    test: Path | None = None,
    init: Path | None = None,
    rounds: int = 5,
    frames: int = 20,
    seeds: int = 3,
    settings: Sequence[str] = (),
    round_settings: Sequence[str] = ("steps=250", "rounds=0"),
) -> list[dict[str, Any]]:
    """Measure the start, suggested frames and random frames: a row each, with `how`, `seed`, `labels` and METRICS.

    Finished rows are in `work/rows.json` and not done again.
    """
    init = init or default_bundle()
    for part, given in (("train", train), ("test", test)):
        videos = given or work / part
        if given is None and not videos.exists():
            make_synthpose(videos, part)
        if not (work / f"{part}.zarr").exists():
            ingest([videos], store=work / f"{part}.zarr")
    truth = test or work / "test"
    annotator = Annotator(work / "train.zarr", train or work / "train")
    file = work / "rows.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    wanted = [("start", 0, 0)] + [
        (how, seed, rounds * frames) for seed in range(seeds) for how in ("suggested", "random")
    ]
    for how, seed, labels in wanted:
        if any((row["how"], row["seed"], row["labels"]) == (how, seed, labels) for row in rows):
            continue
        model = init
        if how != "start":
            shutil.rmtree(work / f"{how}-{seed}", ignore_errors=True)
            store = work / f"{how}-{seed}" / "train.zarr"
            shutil.copytree(work / "train.zarr", store)  # so that labels of one are not in the way of another
            model = label_and_learn(
                store, annotator, work, rounds=rounds, frames=frames, seed=seed, at_random=how == "random", init=init,
                settings=settings, round_settings=round_settings,
            )  # fmt: skip
        metrics = evaluate(store=work / "test.zarr", truth=truth, model=model)["metrics"]
        rows.append({"how": how, "seed": seed, "labels": labels, **{name: metrics[name] for name in METRICS}})
        file.write_text(json.dumps(rows, indent=1))
        logger.info("%s", rows[-1])
    header = ["frames", "seed", "labels", *METRICS]
    cells = [[row["how"], str(row["seed"]), str(row["labels"]), *(f"{row[m]:.3f}" for m in METRICS)] for row in rows]
    write_report(work / "report.html", "What labels are worth", [Section("Models", [__doc__], [Table(header, cells)])])
    return rows


if __name__ == "__main__":
    main()
