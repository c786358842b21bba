"""The account of packets and pictures, with invented ones: what is sound, what is lost, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from streampose.video.ledger import Ledger

BASE = Fraction(1, 25)


@dataclass
class Packet:
    pts: int | None
    is_keyframe: bool = False
    is_discard: bool = False
    duration: int = 1
    time_base: Fraction = BASE
    opaque: Any = None


@dataclass
class Picture:
    packet: Packet
    is_corrupt: bool = False

    def __post_init__(self):
        self.pts, self.time_base, self.duration = self.packet.pts, BASE, 1
        self.key_frame, self.opaque = self.packet.is_keyframe, self.packet.opaque


def play(order, *, keys=(0,), lost=(), damaged=(), at_start=True, discard=()):
    """Decode packets with these timestamps in this order; pictures come out in order of time, two packets late.

    Returns:
        (pts, problem) of all entries as they are handed on.
    """
    ledger = Ledger(BASE, at_start)
    entries, inside = [], []

    def put_out():
        packet = min(inside, key=lambda p: p.pts)
        inside.remove(packet)
        if packet.pts not in lost and packet.pts not in discard:
            entries.extend(ledger.take(Picture(packet, packet.pts in damaged)))

    for number, pts in enumerate(order):
        packet = Packet(pts, pts in keys, pts in discard)
        ledger.feed(packet)
        inside.append(packet)
        if number >= 2:
            put_out()
    while inside:
        put_out()
    entries += ledger.finish()
    return [(entry.pts, bool(entry.problem)) for entry in entries]


IPBB = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8, 12, 10, 11]


def test_all_is_sound_and_in_order():
    assert play(IPBB) == [(pts, False) for pts in range(13)]


def test_a_damaged_picture_spoils_what_is_decoded_after_it():
    """Picture 6 is decoded before 4 and 5, which are shown before it."""
    assert play(IPBB, damaged=[6]) == [(pts, pts >= 4) for pts in range(13)]


def test_the_next_key_frame_ends_the_damage_but_not_for_what_is_shown_before_it():
    """9 is the key frame of an open group: 7 and 8 are decoded after it and build on what was before."""
    assert play(IPBB, keys=(0, 9), damaged=[5]) == [(pts, pts in (5, 7, 8)) for pts in range(13)]


def test_a_lost_picture_keeps_its_place():
    """Nobody says that 5 is lost; the hole does. It comes in its turn although it is known late."""
    assert play(IPBB, keys=(0, 9), lost=[5]) == [(pts, pts in (5, 7, 8)) for pts in range(13)]


def test_after_a_seek_what_is_shown_before_the_key_frame_is_unsound():
    order = [3, 1, 2, 6, 4, 5]
    assert play(order, keys=(3,), at_start=False) == [(pts, pts < 3) for pts in range(1, 7)]
    assert play(order, keys=(3,), at_start=True) == [(pts, False) for pts in range(1, 7)]


def test_without_a_key_frame_nothing_is_sound():
    assert play([0, 1, 2, 3], keys=()) == [(pts, True) for pts in range(4)]


def test_what_is_not_to_be_shown_is_no_loss():
    """The key frame is before the cut of an edit list."""
    assert play(IPBB, discard=[0, 1, 2]) == [(pts, False) for pts in range(3, 13)]


def test_a_picture_lost_at_the_end_is_found():
    assert play(IPBB, lost=[11]) == [(pts, pts == 11) for pts in range(13)]
