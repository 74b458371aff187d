"""GroupNorm as Triton kernels for pictures whose channels lie side by side (NHWC); norm.py plans and calls them.

A picture is a matrix (rows, C) with rows = H · W. A program takes a stretch of rows by a chunk of whole groups: every
load is of neighbours. Channels are summed down the rows first and then to groups by a table of who belongs where, since
groups are 10 to 80 channels wide and lanes come in powers of two. What several programs find of one group meets in
memory, not in atomic adds: every run gives the same bits. Where one program takes all rows, one launch does it all.
"""

import triton
import triton.language as tl

SHAPE = (
    "rows",
    "width",
    "span",
    "stretch",
)  # arguments that need no kernel of their own for 1 or multiples of 16


@triton.jit
def _chunk(C, width, span, ALIGN: tl.constexpr, LANES: tl.constexpr, GROUPS: tl.constexpr):
    """This program's channels [LANES] and groups [GROUPS], which of them exist, and who belongs where."""
    lane = tl.arange(0, LANES)
    span = span // ALIGN * ALIGN  # nothing new but to the compiler: it may read ALIGN channels at once
    start = span * tl.program_id(1)
    inside = (lane < span) & (start + lane < C)
    slot = tl.arange(0, GROUPS)
    group = start // width + slot
    belongs = (slot[:, None] == lane[None, :] // width) & inside[None, :]
    return start + lane, inside, group, (slot < span // width) & (group < C // width), belongs


@triton.jit
def _to_groups(per_channel, belongs):
    return tl.sum(tl.where(belongs, per_channel[None, :], 0.0), 1)


@triton.jit
def _to_channels(per_group, belongs):
    return tl.sum(tl.where(belongs, per_group[:, None], 0.0), 0)


@triton.jit
def _tile(start, stop, C, channel, inside, ROWS: tl.constexpr):
    """Offsets in a picture, and which exist, of `ROWS` rows from `start`."""
    row = start + tl.arange(0, ROWS)
    return row[:, None] * C + channel[None, :], (row < stop)[:, None] & inside[None, :]


@triton.jit
def _moments(
    x, shift, channel, inside, belongs, first, stop, C, width, ROWS: tl.constexpr, LANES: tl.constexpr
):
    """Mean and summed squared deviation of each group over rows first … stop.

    Sums are of the distance to the channel's first value, so that a mean far from 0 costs no digits.
    """
    pivot = tl.load(x + first * C + channel, inside, 0.0).to(tl.float32)
    total = tl.zeros([ROWS, LANES], tl.float32)
    squares = tl.zeros([ROWS, LANES], tl.float32)
    for start in range(first, stop, ROWS):
        at, there = _tile(start, stop, C, channel, inside, ROWS)
        distance = tl.where(there, tl.load(x + at, there, 0.0).to(tl.float32) - pivot[None, :], 0.0)
        total += distance
        squares += distance * distance
    count = (stop - first).to(tl.float32)
    distance = tl.sum(total, 0) / count
    squares = tl.sum(squares, 0) - count * distance * distance
    mean = pivot + distance
    if shift is not None:
        mean += tl.load(shift + channel, inside, 0.0).to(tl.float32)
    group_mean = _to_groups(mean, belongs) / width
    apart = mean - _to_channels(group_mean, belongs)
    return group_mean, _to_groups(squares + count * apart * apart, belongs)


@triton.jit
def _join(partial, group, known, rows, width, stretch, parts, PARTS: tl.constexpr):
    """The moments of whole groups from those of their stretches (Chan, Golub and LeVeque 1979)."""
    part = tl.arange(0, PARTS)
    at = group[:, None] * 2 * parts + part[None, :]
    there = known[:, None] & (part < parts)[None, :]
    count = tl.maximum(tl.minimum(rows - part * stretch, stretch), 0).to(tl.float32)[None, :]
    means = tl.load(partial + at, there, 0.0)
    squares = tl.load(partial + at + parts, there, 0.0)
    mean = tl.sum(means * count, 1) / rows
    apart = tl.where(there, means - mean[:, None], 0.0)
    return mean, tl.sum(squares + width * count * apart * apart, 1)


@triton.jit
def _add_up(partial, group, known, parts, PARTS: tl.constexpr):
    """The two sums of whole groups from those of their stretches."""
    part = tl.arange(0, PARTS)
    at = partial + group[:, None] * 2 * parts + part[None, :]
    there = known[:, None] & (part < parts)[None, :]
    return tl.sum(tl.load(at, there, 0.0), 1), tl.sum(tl.load(at + parts, there, 0.0), 1)


@triton.jit(do_not_specialize=SHAPE)
def moments(x, shift, partial, rows, C, width, span, stretch,
            ALIGN: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, GROUPS: tl.constexpr):  # fmt: skip
    """First pass forward: partial (N, groups, 2, parts) gets mean and summed squared deviation."""
    part = tl.program_id(0)
    parts = tl.num_programs(0)
    image = tl.program_id(2).to(tl.int64)
    channel, inside, group, known, belongs = _chunk(C, width, span, ALIGN, LANES, GROUPS)
    if shift is not None:
        shift += image * C
    first = part * stretch
    stop = tl.minimum(first + stretch, rows)
    x += image * rows * C
    mean, squares = _moments(x, shift, channel, inside, belongs, first, stop, C, width, ROWS, LANES)
    at = partial + image * (C // width) * 2 * parts + group * 2 * parts + part
    tl.store(at, mean, known)
    tl.store(at + parts, squares, known)


@triton.jit(do_not_specialize=SHAPE)
def normalise(x, shift, weight, bias, y, partial, stats, rows, C, width, span, stretch, eps, SILU: tl.constexpr,
              ALIGN: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, GROUPS: tl.constexpr,
              PARTS: tl.constexpr):  # fmt: skip
    """Second pass forward, or the only one where `partial` is None. Keeps mean and 1 / std in stats (N, groups, 2)."""
    part = tl.program_id(0)
    image = tl.program_id(2).to(tl.int64)
    channel, inside, group, known, belongs = _chunk(C, width, span, ALIGN, LANES, GROUPS)
    x += image * rows * C
    y += image * rows * C
    if shift is not None:
        shift += image * C
    if partial is None:
        mean, squares = _moments(x, shift, channel, inside, belongs, 0, rows, C, width, ROWS, LANES)
    else:
        parts = tl.num_programs(0)
        partial += image * (C // width) * 2 * parts
        mean, squares = _join(partial, group, known, rows, width, stretch, parts, PARTS)
    rstd = 1.0 / tl.sqrt(squares / (rows * width) + eps)
    if part == 0:
        at = stats + (image * (C // width) + group) * 2
        tl.store(at, mean, known)
        tl.store(at + 1, rstd, known)
    offset = _to_channels(mean, belongs)
    if shift is not None:
        offset -= tl.load(shift + channel, inside, 0.0).to(tl.float32)
    scale = _to_channels(rstd, belongs) * tl.load(weight + channel, inside, 0.0).to(tl.float32)
    beta = tl.load(bias + channel, inside, 0.0).to(tl.float32)
    stop = tl.minimum((part + 1) * stretch, rows)
    for start in range(part * stretch, stop, ROWS):
        at, there = _tile(start, stop, C, channel, inside, ROWS)
        value = tl.load(x + at, there, 0.0).to(tl.float32)
        value = (value - offset[None, :]) * scale[None, :] + beta[None, :]
        if SILU:
            value *= tl.sigmoid(value)
        tl.store(y + at, value, there)


@triton.jit
def _standing(x, shift, weight, bias, stats, C, width, image, group, known, channel, inside, belongs):
    """Per channel: what to take off x, 1 / std, weight and bias."""
    at = stats + (image * (C // width) + group) * 2
    offset = _to_channels(tl.load(at, known, 0.0), belongs)
    rstd = _to_channels(tl.load(at + 1, known, 0.0), belongs)
    if shift is not None:
        offset -= tl.load(shift + image * C + channel, inside, 0.0).to(tl.float32)
    gamma = tl.load(weight + channel, inside, 0.0).to(tl.float32)
    beta = tl.load(bias + channel, inside, 0.0).to(tl.float32)
    return offset, rstd, gamma, beta


@triton.jit
def _pull(x, dy, at, there, offset, rstd, gamma, beta, SILU: tl.constexpr):
    """The normalised x̂ of a tile, and the loss's gradient with respect to it."""
    xhat = (tl.load(x + at, there, 0.0).to(tl.float32) - offset[None, :]) * rstd[None, :]
    grad = tl.load(dy + at, there, 0.0).to(tl.float32)
    if SILU:
        z = xhat * gamma[None, :] + beta[None, :]
        sigmoid = tl.sigmoid(z)
        grad *= sigmoid * (1.0 + z * (1.0 - sigmoid))
    return xhat, grad * gamma[None, :]


@triton.jit
def _pull_sums(x, dy, first, stop, C, channel, inside, belongs, offset, rstd, gamma, beta,
               SILU: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr):  # fmt: skip
    """Σ g and Σ g · x̂ of each group over rows first … stop, g the gradient of x̂."""
    total = tl.zeros([ROWS, LANES], tl.float32)
    dot = tl.zeros([ROWS, LANES], tl.float32)
    for start in range(first, stop, ROWS):
        at, there = _tile(start, stop, C, channel, inside, ROWS)
        xhat, grad = _pull(x, dy, at, there, offset, rstd, gamma, beta, SILU)
        total += grad  # 0 outside, as dy is read as 0 there
        dot += grad * xhat
    return _to_groups(tl.sum(total, 0), belongs), _to_groups(tl.sum(dot, 0), belongs)


@triton.jit(do_not_specialize=SHAPE)
def pull_sums(x, shift, weight, bias, dy, partial, stats, rows, C, width, span, stretch, SILU: tl.constexpr,
              ALIGN: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, GROUPS: tl.constexpr):  # fmt: skip
    """First pass backward: partial (N, groups, 2, parts) gets Σ g and Σ g · x̂."""
    part = tl.program_id(0)
    parts = tl.num_programs(0)
    image = tl.program_id(2).to(tl.int64)
    channel, inside, group, known, belongs = _chunk(C, width, span, ALIGN, LANES, GROUPS)
    offset, rstd, gamma, beta = _standing(
        x, shift, weight, bias, stats, C, width, image, group, known, channel, inside, belongs
    )
    x += image * rows * C
    dy += image * rows * C
    first = part * stretch
    stop = tl.minimum(first + stretch, rows)
    total, dot = _pull_sums(
        x, dy, first, stop, C, channel, inside, belongs, offset, rstd, gamma, beta, SILU, ROWS, LANES
    )
    at = partial + image * (C // width) * 2 * parts + group * 2 * parts + part
    tl.store(at, total, known)
    tl.store(at + parts, dot, known)


@triton.jit(do_not_specialize=SHAPE)
def pull(x, shift, weight, bias, dy, dx, partial, stats, rows, C, width, span, stretch, SILU: tl.constexpr,
         ALIGN: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, GROUPS: tl.constexpr,
         PARTS: tl.constexpr):  # fmt: skip
    """Second pass backward, or the only one where `partial` is None: dx = (g − mean g − x̂ · mean(g · x̂)) / std."""
    part = tl.program_id(0)
    image = tl.program_id(2).to(tl.int64)
    channel, inside, group, known, belongs = _chunk(C, width, span, ALIGN, LANES, GROUPS)
    offset, rstd, gamma, beta = _standing(
        x, shift, weight, bias, stats, C, width, image, group, known, channel, inside, belongs
    )
    x += image * rows * C
    dy += image * rows * C
    dx += image * rows * C
    if partial is None:
        total, dot = _pull_sums(
            x, dy, 0, rows, C, channel, inside, belongs, offset, rstd, gamma, beta, SILU, ROWS, LANES
        )
    else:
        parts = tl.num_programs(0)
        found = partial + image * (C // width) * 2 * parts
        total, dot = _add_up(found, group, known, parts, PARTS)
    total = _to_channels(total / (rows * width), belongs)
    dot = _to_channels(dot / (rows * width), belongs)
    stop = tl.minimum((part + 1) * stretch, rows)
    for start in range(part * stretch, stop, ROWS):
        at, there = _tile(start, stop, C, channel, inside, ROWS)
        xhat, grad = _pull(x, dy, at, there, offset, rstd, gamma, beta, SILU)
        tl.store(dx + at, (grad - total[None, :] - xhat * dot[None, :]) * rstd[None, :], there)
