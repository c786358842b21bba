"""The verb `bridge`: pass the poses of a live server on, by OSC to music and stage tools, by MQTT to a broker.

A bridge is a client like any other, in a process of its own: it may be slow or fail without touching the server.

| OSC address | arguments |
|---|---|
| `/streampose/frame` | int camera, int number, float seconds, int subjects, int width, int height |
| `/streampose/CAMERA/SUBJECT/JOINT` | float x, y, z in source pixels, float confidence |
| `/streampose/CAMERA/SUBJECT/space/JOINT` | float x, y, z in metres, of calibrated cameras |

Each frame is one OSC bundle for its `frame` message, and one for each subject.

| MQTT topic | payload |
|---|---|
| `streampose/status` | `online`, or `offline` (retained; the broker says it where the bridge dies) |
| `streampose/hello` | the `hello` message of the stream, with the skeleton (retained) |
| `streampose/frame/CAMERA` | JSON of the frame: number, pts_seconds, size, state, subjects |
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from streampose.client import URL, PoseFrame, PoseStream, connect
from streampose.console import logger
from streampose.errors import StreamposeError

DATAGRAM_BYTES = 8192  # of an OSC bundle; a subject of more is sent in several
CONNECT_SECONDS = 10.0
PASSWORD = "STREAMPOSE_MQTT_PASSWORD"  # environment variable; an address is seen by all users of a machine

Send = Callable[[PoseStream, PoseFrame], None]


def bridge(
    to: str,
    *,
    url: str = URL,
    token: str | None = None,
    certificate: Path | None = None,
    prefix: str = "streampose",
    fps: float = 30.0,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Pass poses on until interrupted, or for some seconds.

    Args:
        to: `osc://HOST:PORT`, `mqtt://[USER@]HOST[:PORT]` or `mqtts://...`; MQTT's password is read from
            STREAMPOSE_MQTT_PASSWORD.
        url, token, certificate: of the server, as for `client.connect`.
        prefix: first part of all addresses or topics.
        fps: the most frames a second.

    Returns:
        {'to', 'frames', 'subjects', 'seconds'}

    Raises:
        StreamposeError: the address makes no sense, the library is missing, or the broker refuses.
        ServerError: the server cannot be reached, or refuses.
    """
    parts = urlsplit(to)
    if parts.scheme not in BRIDGES or not parts.hostname:
        raise StreamposeError(f"{to}: expected osc://HOST:PORT, mqtt://HOST[:PORT] or mqtts://HOST[:PORT]")
    if not prefix or any(c in prefix for c in "#+ *?"):
        raise StreamposeError(f"--prefix {prefix!r}: a word without spaces and # + * ?")
    try:
        port = parts.port
    except ValueError:
        raise StreamposeError(f"{to}: its port is no number from 1 to 65535") from None
    send, close = BRIDGES[parts.scheme](parts.scheme, parts.hostname, port, unquote(parts.username or ""), prefix)
    begun, frames, subjects = time.monotonic(), 0, 0
    try:
        with connect(url, token=token, certificate=certificate, fps=fps) as stream:
            logger.info("%s -> %s (Ctrl-C ends it)", url, to)
            for frame in stream:
                send(stream, frame)
                frames, subjects = frames + 1, subjects + len(frame.ids)
                if seconds is not None and time.monotonic() - begun >= seconds:
                    break
    finally:
        close()
    return {"to": to, "frames": frames, "subjects": subjects, "seconds": round(time.monotonic() - begun, 2)}


def open_osc(scheme: str, host: str, port: int | None, user: str, prefix: str) -> tuple[Send, Callable[[], None]]:
    """Send by OSC over UDP, to whoever listens or not."""
    try:
        from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
        from pythonosc.osc_message_builder import OscMessageBuilder
        from pythonosc.udp_client import UDPClient
    except ImportError:
        raise StreamposeError("osc: python-osc is not installed; `pip install streampose[bridges]`") from None
    if port is None:
        raise StreamposeError(f"osc://{host}: name the port, as in osc://{host}:9000")
    client = UDPClient(host, port)

    def message(address: str, values: tuple[float | int, ...]) -> Any:
        builder = OscMessageBuilder(f"/{prefix}/{address}")
        for value in values:
            builder.add_arg(value, "i" if isinstance(value, int) else "f")
        return builder.build()

    def send_all(messages: list[Any]) -> None:
        while messages:
            builder, size = OscBundleBuilder(IMMEDIATELY), 16
            while messages and (size == 16 or size + messages[0].size + 4 <= DATAGRAM_BYTES):
                size += messages[0].size + 4
                builder.add_content(messages.pop(0))
            client.send(builder.build())

    def send(stream: PoseStream, frame: PoseFrame) -> None:
        joints = [joint.replace(" ", "_") for joint in stream.joints]
        head = (frame.camera, frame.number, frame.pts_seconds, len(frame.ids), *frame.size)
        try:
            send_all([message("frame", head)])
            for id_, points in zip(frame.ids, frame.keypoints, strict=True):
                rows = list(zip(joints, points, strict=True))
                send_all([message(f"{frame.camera}/{id_}/{joint}", tuple(map(float, row))) for joint, row in rows])
            for id_, points in zip(frame.scene_ids, frame.points, strict=True):
                rows = [(joint, row) for joint, row in zip(joints, points, strict=True) if np.isfinite(row).all()]
                send_all(
                    [message(f"{frame.camera}/{id_}/space/{joint}", tuple(map(float, row))) for joint, row in rows]
                )
        except OSError as error:  # nobody listens there at present: UDP tells it late, if at all
            logger.debug("osc://%s:%d: %s", host, port, error)

    return send, lambda: None


def open_mqtt(scheme: str, host: str, port: int | None, user: str, prefix: str) -> tuple[Send, Callable[[], None]]:
    """Publish to a broker; while it is away frames are left out, and it is connected to again."""
    try:
        import paho.mqtt.client as mqtt
    except ImportError:
        raise StreamposeError(f"{scheme}: paho-mqtt is not installed; `pip install streampose[bridges]`") from None
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.max_queued_messages_set(1)
    client.will_set(f"{prefix}/status", "offline", qos=1, retain=True)
    if user:
        client.username_pw_set(user, os.environ.get(PASSWORD))
    if scheme == "mqtts":
        client.tls_set()
    refused: list[str] = []
    greeted: list[dict[str, Any]] = []

    def on_connect(_client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        greeted.clear()
        if reason.is_failure:
            refused.append(str(reason))
        else:
            client.publish(f"{prefix}/status", "online", qos=1, retain=True)

    client.on_connect = on_connect
    try:
        client.connect(host, port or (8883 if scheme == "mqtts" else 1883), keepalive=20)
    except (OSError, ValueError) as error:
        raise StreamposeError(f"{scheme}://{host}: no broker can be reached there ({error})") from None
    client.loop_start()
    end = time.monotonic() + CONNECT_SECONDS
    while not client.is_connected():
        if refused or time.monotonic() > end:
            client.loop_stop()
            raise StreamposeError(
                f"{scheme}://{host}: the broker refuses ({refused[0] if refused else 'no answer'}); name the user in "
                f"the address and give the password as {PASSWORD}"
            )
        time.sleep(0.02)

    def send(stream: PoseStream, frame: PoseFrame) -> None:
        if not client.is_connected():
            return
        if not greeted or greeted[0] is not stream.hello:
            greeted[:] = [stream.hello]
            client.publish(f"{prefix}/hello", json.dumps(stream.hello), qos=1, retain=True)
        client.publish(f"{prefix}/frame/{frame.camera}", json.dumps(describe(frame)), qos=0)

    def close() -> None:
        if client.is_connected():
            client.publish(f"{prefix}/status", "offline", qos=1, retain=True).wait_for_publish(2.0)
        client.disconnect()
        client.loop_stop()

    return send, close


def describe(frame: PoseFrame) -> dict[str, Any]:
    """A frame as JSON carries it."""
    subjects: list[dict[str, Any]] = [
        {"id": id_, "box": box.round(1).tolist(), "keypoints": points.round(3).tolist()}
        for id_, box, points in zip(frame.ids, frame.boxes.astype(float), frame.keypoints.astype(float), strict=True)
    ]
    if frame.visibility is not None:
        for subject, seen in zip(subjects, frame.visibility, strict=True):
            subject["visibility"] = seen.tolist()
    space = [
        {"id": id_, "points": [row.round(4).tolist() if np.isfinite(row).all() else None for row in points]}
        for id_, points in zip(frame.scene_ids, frame.points.astype(float), strict=True)
    ]
    return {
        "number": frame.number,
        "camera": frame.camera,
        "pts_seconds": round(frame.pts_seconds, 4),
        "latency_ms": round(frame.latency_ms, 2),
        "size": frame.size,
        "state": frame.state,
        "subjects": subjects,
        **({"scene": space} if space else {}),
    }


BRIDGES = {"osc": open_osc, "mqtt": open_mqtt, "mqtts": open_mqtt}
