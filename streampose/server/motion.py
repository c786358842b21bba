class MotionFinder:
    def __init__(self, max_subjects): ...
    def __call__(self, image):
        return None
