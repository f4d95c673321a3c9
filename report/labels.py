"""Places for the names of points in a scatter plot: near their points, over nothing else, the same at every run."""

import numpy as np

# Candidate places around a point: distance in inches (of the nearest part of the label), then direction.
_RADII = (0.07, 0.16, 0.28, 0.42, 0.6, 0.8, 1.05, 1.35, 1.7, 2.1)
_ANGLES = np.radians(np.arange(0, 360, 20))
# Points above one another, at least so many within so many inches of the next, have their names in a list beside them.
CROWD, _APART = 6, 0.05
_ROW, _ASIDE = 0.145, 0.4  # of the list: inches a row, and between its start and the points


def place(
    points: np.ndarray, sizes: np.ndarray, bars: np.ndarray, area: tuple[float, float], sweeps: int = 6
) -> np.ndarray:
    """Lower left corners of labels for points, all in inches within a drawing area.

    Names of points in a crowded column make a list on a side that is free, in the order of the points. The others are
    placed by coordinate descent on a cost: each label in turn moves to its cheapest candidate, given the others.
    Overlaps with labels and points cost most, then leader lines through labels, points or one another and covered
    bars, then distance.

    Args:
        points: (n, 2), the marked points.
        sizes: (n, 2), width and height of each label.
        bars: (n, 2), lower and upper end of each point's vertical interval.
        area: width and height of the drawing area; labels stay inside.

    Returns:
        (n, 2).
    """
    n = len(points)
    candidates = [_candidates(points[i], sizes[i], area) for i in range(n)]
    marks = np.c_[points - 0.05, points + 0.05]
    strips = np.c_[points[:, 0] - 0.02, bars[:, 0], points[:, 0] + 0.02, bars[:, 1]]
    boxes = np.array([c[0] for c in candidates])
    listed = _listed(points, sizes, area, marks)
    for i, box in listed.items():
        candidates[i], boxes[i] = box[None], box
    # The most crowded points choose first: the others have more room to give way.
    crowd = (np.abs(points[:, None] - points[None]) < (1.0, 0.3)).all(2).sum(1)
    order = sorted(range(n), key=lambda i: (i not in listed, -crowd[i], *points[i]))
    for sweep in range(sweeps):
        before = boxes.copy()
        for rank, i in enumerate(order):
            # In the first sweep only the labels placed so far count.
            others = np.array([j for j in (order[:rank] if sweep == 0 else order) if j != i], int)
            boxes[i] = _cheapest(i, candidates[i], points, boxes, others, marks, strips)
        if sweep and np.array_equal(before, boxes):
            break
    return boxes[:, :2]


def crowded_columns(x: np.ndarray) -> list[np.ndarray]:
    """Which of the horizontal places `x`, in inches, stand in columns of at least `CROWD` points: their indices."""
    order = np.argsort(x, kind="stable")
    runs = np.split(order, np.flatnonzero(np.diff(x[order]) > _APART) + 1)
    return [run for run in runs if len(run) >= CROWD]


def _listed(points, sizes, area, marks) -> dict[int, np.ndarray]:
    """The boxes of the labels that stand in lists beside crowded columns, by the place of their point."""
    listed: dict[int, np.ndarray] = {}
    for column in crowded_columns(points[:, 0]):
        corners = _list(points[column], sizes[column], area, np.array([*marks, *listed.values()]))
        if corners is not None:
            listed.update(zip(column, np.c_[corners, corners + sizes[column]], strict=True))
    return listed


def _list(points, sizes, area, taken) -> np.ndarray | None:
    """Lower left corners of names in a list beside a column of points, on the side where nothing is taken; None if
    neither is free. `taken`: boxes (k, 4).
    """
    order = np.argsort(points[:, 1], kind="stable")
    corners = np.empty_like(points)
    corners[order, 1] = _rows(points[order, 1], area[1]) - sizes[order, 1] / 2
    for x in (points[:, 0].max() + _ASIDE, points[:, 0].min() - _ASIDE - sizes[:, 0]):
        corners[:, 0] = x
        boxes = np.c_[corners, corners + sizes]
        if (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= np.array(area)).all() and not _overlap(boxes, taken).any():
            return corners
    return None


def _rows(wanted: np.ndarray, height: float) -> np.ndarray:
    """Heights of the rows of a list, at least `_ROW` apart and within 0 to `height`, near those wanted (ascending)."""
    blocks: list[list[float]] = []  # runs of rows without gaps: where each of its rows would have the lowest one
    for y in wanted:
        blocks.append([y])
        while len(blocks) > 1 and np.mean(blocks[-1]) < np.mean(blocks[-2]) + _ROW * len(blocks[-2]):
            last = blocks.pop()
            blocks[-1] += [y - _ROW * len(blocks[-1]) for y in last]
    rows = np.concatenate([np.mean(block) + _ROW * np.arange(len(block)) for block in blocks])
    place = np.arange(len(rows))
    rows = np.minimum(rows, height - _ROW * (len(rows) - place - 0.5))
    return np.maximum(rows, _ROW * (place + 0.5))


def leader(point: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The point of a box (x0, y0, x1, y1) nearest to `point`: where a line between them ends."""
    return np.clip(point, box[..., :2], box[..., 2:])


def _candidates(point, size, area) -> np.ndarray:
    """Boxes (m, 4) around the point, within the area, nearest first."""
    found = []
    for radius in _RADII:
        for angle in _ANGLES:
            direction = np.array([np.cos(angle), np.sin(angle)])
            # The box whose side or corner facing the point lies at the radius in this direction.
            corner = point + radius * direction - size * (1 - np.clip(np.round(direction * 1.2, 6), -1, 1)) / 2
            found.append(np.r_[corner, corner + size])
    found = np.array(found)
    inside = (found[:, :2] >= 0).all(1) & (found[:, 2:] <= np.array(area)).all(1)
    return found[inside] if inside.any() else found


def _cheapest(i, candidates, points, boxes, others, marks, strips) -> np.ndarray:
    ends = leader(points[i], candidates)
    length = np.linalg.norm(ends - points[i], axis=1)
    cost = length + 0.02 * (candidates[:, 0] < points[i, 0])  # on equal terms the label stands to the right
    cost += 40 * (_overlap(candidates, marks) > 0).sum(1)
    cost += 0.5 * (_overlap(candidates, strips) > 0).sum(1)
    # A leader line through another point, which it would seem to belong to.
    cost += 0.7 * _through(np.broadcast_to(points[i], ends.shape), ends, np.delete(marks, i, 0)).sum(1)
    if len(others):
        theirs = boxes[others]
        cost += 100 * (_overlap(candidates, theirs + np.array([-0.03, -0.005, 0.03, 0.005])) > 0).sum(1)
        their_ends = leader(points[others], theirs)
        cost += 0.7 * _crossings(points[i], ends, points[others], their_ends)
        # A leader line through a label, ours through theirs or theirs through ours.
        cost += 3 * _through(np.broadcast_to(points[i], ends.shape), ends, theirs).sum(1)
        cost += 3 * _through(points[others], their_ends, candidates).sum(0)
    return candidates[cost.argmin()]


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Shared area of boxes (m, 4) and (k, 4): (m, k)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.prod(np.clip(high - low, 0, None), axis=2)


def _through(starts, ends, boxes) -> np.ndarray:
    """Whether each segment (m, 2) passes through each box (k, 4): (m, k), by points sampled along it."""
    at = starts[:, None] + np.linspace(0, 1, 20)[1:-1, None] * (ends - starts)[:, None]
    at = at[:, None]
    return ((at > boxes[None, :, None, :2]) & (at < boxes[None, :, None, 2:])).all(3).any(2)


def _crossings(start, ends, starts, their_ends) -> np.ndarray:
    """How many of the segments starts -> their_ends each segment start -> ends[m] crosses: (m,)."""

    def side(p, q, r):
        return (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1]) - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0])

    end = ends[:, None]
    apart = side(start, end, starts[None]) * side(start, end, their_ends[None]) < 0
    return (apart & (side(starts[None], their_ends[None], start) * side(starts[None], their_ends[None], end) < 0)).sum(
        1
    )
