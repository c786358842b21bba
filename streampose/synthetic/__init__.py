"""Synthetic people with exact ground truth: bodies, motions, scenes, a rasteriser, and the SynthPose benchmark.

Adding an activity: write a function in `activities.py` that gives the channels it cares about over time (the others
keep the values of `STAND`), and list it with its weight in `GOING`, `STAYING` or `ARMS`; the tests then run it. Adding
a source of motions: return a `retarget.Recording`. Adding a kind of body: return a `body.Body`, whose rig names its
landmarks.
"""
