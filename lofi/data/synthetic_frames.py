"""The pictures of the synthetic benchmark: a scene, and a shape that drifts and at times performs a motion.

Drawn by numpy, many frames at once, at any size. Everything about the shape but its motion (place, colour, size, kind)
and everything about the scene but its family is drawn per video, independently of the class.

Lengths and places are in units of the picture's side, x to the right and y down.
"""

import colorsys
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

CLASS_NAMES = ("shake", "bounce", "orbit", "pulse", "spin", "zigzag", "blink", "wobble")
"""The motions; a benchmark of K classes takes the first K, and has K scenes."""

FRAMES_PER_CHUNK = 64
"""Frames rendered together: bounds the memory at large sizes."""


MOTION_HZ = (2.0, 2.8)
"""Cycles per second of a motion: a snippet of half a second sees at least one."""
MOTION_REACH = (0.10, 0.15)
"""How far a motion carries the shape."""
RAMP_SEC = 0.15
"""A motion swells and fades for this long, so that the shape never jumps."""
IDLE_REACH = 0.2
IDLE_PERIOD_SEC = (8.0, 16.0)
"""Idle drift is about ten times slower than a motion."""
SHAPE_RADIUS = (0.15, 0.21)
SENSOR_NOISE = 0.008
"""Standard deviation of the brightness, of 1."""


@dataclass(frozen=True, kw_only=True)
class VideoPlan:
    """One video before it is drawn."""

    name: str
    subset: str
    label: int
    """Index of the class, in CLASS_NAMES."""
    scene: int
    """Index of the scene family; the class's own scene has the class's index."""
    num_frames: int
    actions: tuple[tuple[float, float], ...]
    """Start and end of each action, seconds, on the borders of frames."""
    is_trimmed: bool
    """The video is a piece from the middle of one action."""
    seed: int
    """Of the generator that draws this video."""


def render_frames(plan: VideoPlan, *, size: int, fps: float, drift: bool) -> Iterator[np.ndarray]:
    """Draw the video.

    Args:
        plan: what it shows.
        size: height and width, pixels.
        fps: frames per second.
        drift: move the camera slowly and let the light change.

    Yields:
        (N, H, W, 3) uint8 RGB, up to FRAMES_PER_CHUNK frames at a time.
    """
    scene_rng, shape_rng, camera_rng, noise_rng = (
        np.random.default_rng([plan.seed, stream]) for stream in range(1, 5)
    )
    times_sec = (np.arange(plan.num_frames) + 0.5) / fps
    scene = _draw_scene(plan.scene, scene_rng)
    pose = _shape_pose(plan, times_sec, shape_rng)
    look = _draw_look(shape_rng)
    pan, light = _camera(times_sec, camera_rng, is_on=drift)
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    still = None if drift else _scene_image(scene, grid[None, None, :], grid[None, :, None])
    for first in range(0, plan.num_frames, FRAMES_PER_CHUNK):
        chunk = slice(first, first + FRAMES_PER_CHUNK)
        x = grid[None, None, :] + pan[chunk, 0, None, None]
        y = grid[None, :, None] + pan[chunk, 1, None, None]
        image = _scene_image(scene, x, y) if still is None else np.repeat(still, len(x), axis=0)
        _paint_shape(image, x, y, pose=pose.at(chunk), look=look)
        image *= light[chunk, None, None, None]
        image += noise_rng.standard_normal(image.shape[:3], dtype=np.float32)[..., None] * SENSOR_NOISE
        yield (np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class _Pose:
    """The shape's pose; every field is (N,), or (N, 1, 1) after indexing by frames."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray
    opacity: np.ndarray

    def at(self, frames: slice) -> "_Pose":
        return _Pose(
            **{name: value[frames, None, None].astype(np.float32) for name, value in vars(self).items()}
        )


def _shape_pose(plan: VideoPlan, times_sec: np.ndarray, rng: np.random.Generator) -> _Pose:
    """Idle drift over the whole video, plus the class's motion inside the actions."""
    radius = rng.uniform(*SHAPE_RADIUS)
    reach = rng.uniform(*MOTION_REACH)
    cycles_per_sec = rng.uniform(*MOTION_HZ) * rng.choice([-1.0, 1.0])
    idle_x, idle_y, idle_angle = (_wander(times_sec, rng) for _ in range(3))
    phase = 2 * math.pi * cycles_per_sec * times_sec + rng.uniform(0, 2 * math.pi)
    strength = np.ones_like(times_sec) if plan.is_trimmed else _strength(plan, times_sec)
    x, y, angle = 0.5 + IDLE_REACH * idle_x, 0.5 + IDLE_REACH * idle_y, 0.8 * idle_angle
    growth, opacity = np.zeros_like(x), np.ones_like(x)
    wave, quarter_later = strength * np.sin(phase), strength * np.cos(phase)
    motion = CLASS_NAMES[plan.label]
    if motion == "shake":
        x = x + reach * wave
    elif motion == "bounce":
        y = y + reach * wave
    elif motion == "orbit":
        x, y = x + reach * wave, y + reach * quarter_later
    elif motion == "pulse":
        growth = 0.4 * wave
    elif motion == "spin":
        # The integral of the strength, so that the shape stays as the action leaves it. Slower than the others: at two
        # turns a second a square would look the same in every second frame.
        angle = angle + 0.6 * 2 * math.pi * cycles_per_sec * strength.cumsum() * (times_sec[1] - times_sec[0])
    elif motion == "zigzag":
        x, y = x + reach * wave, y + reach * np.abs(wave) * np.sign(cycles_per_sec)
    elif motion == "blink":
        opacity = 1 - strength * (np.sin(phase) > 0)
    else:
        angle = angle + 1.0 * wave
    return _Pose(x=x, y=y, radius=radius * (1 + growth), angle=angle, opacity=opacity)


def _strength(plan: VideoPlan, times_sec: np.ndarray) -> np.ndarray:
    """(N,) 1 inside the actions, 0 outside, with short ramps inside."""
    strength = np.zeros_like(times_sec)
    for start, end in plan.actions:
        strength += np.clip(np.minimum(times_sec - start, end - times_sec) / RAMP_SEC, 0.0, 1.0)
    return strength


def _wander(times_sec: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) a slow smooth wandering between -1 and 1."""
    periods = rng.uniform(*IDLE_PERIOD_SEC, size=2)
    phases = rng.uniform(0, 2 * math.pi, size=2)
    first, second = (
        np.sin(2 * math.pi * times_sec / period + phase)
        for period, phase in zip(periods, phases, strict=True)
    )
    return 0.7 * first + 0.3 * second


def _camera(times_sec: np.ndarray, rng: np.random.Generator, *, is_on: bool) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) where the camera looks and (N,) how bright the light is."""
    if not is_on:
        return np.zeros((len(times_sec), 2), np.float32), np.ones(len(times_sec), np.float32)
    pan = 0.15 * np.stack([_wander(times_sec, rng), _wander(times_sec, rng)], axis=1)
    return pan.astype(np.float32), (1 + 0.2 * _wander(times_sec, rng)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class _Look:
    """The shape's kind and its two colours: one half is bright, the other dark, so that every turn shows."""

    kind: int
    bright: np.ndarray
    dark: np.ndarray


NUM_SHAPE_KINDS = 5


def _draw_look(rng: np.random.Generator) -> _Look:
    hue = rng.uniform()
    return _Look(
        kind=int(rng.integers(NUM_SHAPE_KINDS)),
        bright=_rgb(hue, rng.uniform(0.2, 0.8), 1.0),
        dark=_rgb(hue + rng.uniform(-0.2, 0.2), 0.8, 0.15),
    )


def _outline(kind: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Roughly the distance to the shape's outline in units of its radius, negative inside. u and v: (N, H, W)."""
    across, along = np.abs(u), np.abs(v)
    if kind == 0:  # disc
        return np.hypot(u, v) - 0.9
    if kind == 1:  # square
        return np.maximum(across, along) - 0.8
    if kind == 2:  # bar
        return np.maximum(across - 1.1, along - 0.5)
    if kind == 3:  # triangle
        return np.maximum(0.87 * across + 0.5 * v, -v) - 0.6
    return np.minimum(np.maximum(across - 1.0, along - 0.4), np.maximum(across - 0.4, along - 1.0))  # cross


def _paint_shape(image: np.ndarray, x: np.ndarray, y: np.ndarray, *, pose: _Pose, look: _Look) -> None:
    """Paint the shape over `image` (N, H, W, 3) in place. x: (N or 1, 1, W) and y: (N or 1, H, 1), places of pixels."""
    dx, dy = (x - pose.x) / pose.radius, (y - pose.y) / pose.radius
    cos, sin = np.cos(pose.angle), np.sin(pose.angle)
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    pixels_per_radius = pose.radius * image.shape[1]
    cover = np.clip(0.5 - _outline(look.kind, u, v) * pixels_per_radius, 0.0, 1.0) * pose.opacity
    half = np.clip(0.5 + u * pixels_per_radius, 0.0, 1.0)[..., None]
    image += cover[..., None] * (look.dark + half * (look.bright - look.dark) - image)


@dataclass(frozen=True, kw_only=True)
class _Scene:
    """One video's background: a texture and a hue of its family, with this video's own place and tint."""

    family: int
    colour: np.ndarray
    cycles: float
    shift: np.ndarray


def _draw_scene(family: int, rng: np.random.Generator) -> _Scene:
    hue = family / len(CLASS_NAMES) + rng.uniform(-0.025, 0.025)
    return _Scene(
        family=family,
        colour=_rgb(hue, rng.uniform(0.55, 0.75), rng.uniform(0.4, 0.5)),
        cycles=rng.uniform(1.8, 2.4),
        shift=rng.uniform(0, 2 * math.pi, size=2).astype(np.float32),
    )


def _scene_image(scene: _Scene, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N or 1, H, W, 3) float32 between 0 and 1. x: (N or 1, 1, W) and y: (N or 1, H, 1), places of pixels."""
    across = 2 * math.pi * scene.cycles * x + scene.shift[0]
    down = 2 * math.pi * scene.cycles * y + scene.shift[1]
    rings = 3 * math.pi * scene.cycles * np.hypot(x - 0.5, y - 0.5) + scene.shift[0]
    waves = (
        lambda: np.sin(down) + 0 * across,
        lambda: np.sin(across) + 0 * down,
        lambda: np.sin(across) * np.sin(down),
        lambda: np.sin(0.7 * (across + down)),
        lambda: np.sin(rings),
        lambda: 0.5 * np.sin(0.4 * across) + 0.5 * np.sin(0.4 * down),
        lambda: np.sin(0.7 * (across - down)) * np.sin(0.35 * (across + down)),
        lambda: np.sin(across + 1.2 * np.sin(down)),
    )
    texture = waves[scene.family]().astype(np.float32)[..., None]
    return scene.colour * (1 + 0.4 * texture)


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """(3,) float32 between 0 and 1."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), dtype=np.float32)
