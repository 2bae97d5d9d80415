"""Pasting, alignment in one dimension and InfoNCE as loops over frames, bins and keys."""

import math


def pasted_frames(backgrounds, sources, cores, regions, *, num_frames):
    """Per synthetic video: a list of (window, frame)."""
    videos = []
    for background, source, core, region in zip(backgrounds, sources, cores, regions, strict=True):
        frames = []
        for frame in range(num_frames):
            middle = frame + 0.5
            if region[0] <= middle < region[1]:
                share = (middle - region[0]) / (region[1] - region[0])
                frames.append((source, math.floor(core[0] + share * (core[1] - core[0]))))
            else:
                frames.append((background, frame))
        videos.append(frames)
    return videos


def aligned(features, region, *, bins, samples):
    """features: a list of L vectors (lists) -> R vectors; snippet i stands for i + 0.5."""
    result = []
    for index in range(bins):
        summed = [0.0] * len(features[0])
        for sample in range(samples):
            share = (index * samples + sample + 0.5) / (bins * samples)
            position = region[0] + share * (region[1] - region[0]) - 0.5
            position = min(max(position, 0.0), len(features) - 1.0)
            below = min(int(position), len(features) - 1)
            above = min(below + 1, len(features) - 1)
            part = position - below
            for place in range(len(summed)):
                value = (1 - part) * features[below][place] + part * features[above][place]
                summed[place] += value / samples
        result.append(summed)
    return result


def info_nce(query, positive, negatives, *, temperature):
    """Vectors of norm 1 as lists -> the loss of one query."""

    def similarity(one, other):
        return sum(a * b for a, b in zip(one, other, strict=True)) / temperature

    own = similarity(query, positive)
    return math.log(sum(math.exp(similarity(query, each) - own) for each in [positive, *negatives]))
