"""Decode, probe, cut, encode and capture video.

`decode` reads files, `frame` makes pixels of what is decoded, `verdict` says what was wrong, `shots` finds cuts,
`encode` writes mp4, `live` captures, `walker` draws the test person.

Adding a new live source: write a generator in `live` that takes the `LiveSource`, yields (RGB image, pts_seconds) and
returns when `source.closed` is set; raise VideoError with one clear line where it cannot go on. Recognise its spec in
`open_source`, and open the device there, before the thread starts, so that a missing one is an error of that call.
What can be lost and found again goes through `_stream`, which reconnects. `LiveSource` counts and drops; a source
never queues.
"""
