"""Decode, probe, cut, encode and capture video.

`decode` reads videos: frames in sequence, by number and by time. Below it, `sources` finds them, `container` and
`claims` open files safely, `media` and `folder` give what is in them, `ledger` and `rhythm` keep account of what was
lost, `index` and `access` find single frames again, `decode_decord` reads batches, `interlace` removes combs, `verdict`
says what was wrong and `check` asks for it alone. `frame` makes pixels of what is decoded, `shots` finds cuts, `encode`
writes mp4, `live` captures, `walker` draws the test person.

Adding a new kind of source: write a class like `folder.ImageFolder` (entries, seek, count_before, facts, again, close),
choose it in `decode.open_video`, find it in `sources.find_videos`, and add a case to `tests/video/corpus.py`.

Adding a new live source: write a generator in `live` that takes the `LiveSource`, yields (RGB image, pts_seconds) and
returns when `source.closed` is set; raise VideoError with one clear line where it cannot go on. Recognise its spec in
`open_source`, and open the device there, before the thread starts, so that a missing one is an error of that call.
What can be lost and found again goes through `_stream`, which reconnects. `LiveSource` counts and drops; a source
never queues.
"""
