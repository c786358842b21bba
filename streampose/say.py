"""What the command line prints of a verb's result, for people; `--json` prints all of it for programs."""

from __future__ import annotations

from typing import Any


def say_sources(result: dict[str, Any]) -> None:
    for entry in result["sources"]:
        found = f"{len(entry['clips'])} clips" if "clips" in entry else f"{entry.get('people', 0)} subjects"
        reason = f" ({entry['reason']})" if entry.get("reason") else ""
        print(f"{entry['source']}: {entry['verdict']}{reason}, {entry.get('frames', 0)} frames, {found}")
    for entry in result.get("sessions", ()):
        if isinstance(entry, dict) and "error_px" in entry:
            error, sure = (
                f"{entry[name]:.1f}" if entry[name] is not None else "-" for name in ("error_px", "uncertainty_mm")
            )
            print(
                f"session {entry['session']}: {entry['people']} people in {entry['frames']} moments; joints "
                f"re-project to {error} px, uncertainty {sure} mm (medians); look at {entry['files']['report']}"
            )
    place = result.get("store") or result.get("out")
    print(f"{place}: {len(result['sources'])} sources in {result['seconds']:.1f} s")


def say_run(result: dict[str, Any]) -> None:
    say_values({key: value for key, value in result.items() if key != "metrics"})
    say_metrics(result)


def say_metrics(result: dict[str, Any]) -> None:
    intervals = result.get("intervals", {})
    for name, value in result.get("metrics", {}).items():
        between = "  [{:.4g}, {:.4g}]".format(*intervals[name]) if name in intervals else ""
        print(f"{name:28s} {value:.4g}{between}" if isinstance(value, (int, float)) else f"{name:28s} {value}")


def say_verdicts(result: dict[str, Any]) -> None:
    for entry in result["sources"]:
        reason = f" ({entry['reason']})" if entry["reason"] else ""
        lost = ", ".join(f"{start:.2f}-{end:.2f} s" for start, end in entry["lost_spans"])
        print(
            f"{entry['source']}: {entry['verdict']}{reason}, {entry['frames']} frames"
            + (f"; lost {lost}" if lost else "")
        )


def say_store(result: dict[str, Any]) -> None:
    for entry in result.get("sources", ()):
        reason = f" ({entry['reason']})" if entry.get("reason") else ""
        print(f"{entry['source']}: {entry['verdict']}{reason}, {len(entry.get('clips', ()))} clips")
    say_values({key: value for key, value in result.items() if key != "sources"})


def say_calibration(result: dict[str, Any]) -> None:
    for entry in result["cameras"]:
        place = "placed" if entry["posed"] else "lens only"
        print(
            f"{entry['camera']}: focal length {entry['focal_px'][0]:.1f} px, corners to {entry['error_px']:.3f} px in "
            f"{entry['used']} of {entry['photos']} pictures, which cover {entry['coverage']:.0%} of the image; {place}"
        )
    if result["rig"] is not None:
        rig = result["rig"]
        print(f"places: corners within {rig['error_px']:.3f} px of {rig['moments']} moments that cameras share")
    print(f"{result['out']}: written; look at {result['report']}")


def say_refinement(result: dict[str, Any]) -> None:
    for entry in result["cameras"]:
        moved = f"moved {entry['moved_mm']:.0f} mm, turned {entry['turned_degrees']:.2f} degrees"
        focal = f"focal length {entry['focal_change']:+.2%}"
        print(f"{entry['camera']}: {entry['before_px']:.2f} -> {entry['after_px']:.2f} px, {moved}, {focal}")
    held_out = "" if result["held_out_px"] is None else f" ({result['held_out_px']:.2f} px on joints left out)"
    print(
        f"{result['session']}: {result['people']} people at {result['moments']} moments re-project to "
        f"{result['before_px']:.2f} -> {result['after_px']:.2f} px{held_out}"
        + ("" if result["improved"] else "; no better than the given cameras: keep those")
    )
    print(f"{result['out']}: written; look at {result['report']}")


def say_values(result: dict[str, Any], indent: str = "") -> None:
    for key, value in result.items():
        if isinstance(value, dict):
            print(f"{indent}{key}:")
            say_values(value, indent + "  ")
        elif isinstance(value, list):
            print(f"{indent}{key}:" if value else f"{indent}{key}: none")
            for item in value:
                print(f"{indent}  {', '.join(map(str, item.values())) if isinstance(item, dict) else item}")
        else:
            print(f"{indent}{key}: {value:.4g}" if isinstance(value, float) else f"{indent}{key}: {value}")
