"""Grid encoding: float64 reference, derivatives, total variation, threads, tracing, bad input."""

import dataclasses
from typing import ClassVar

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from task_3_DreamFusion.gridencoder import (
    GridEncoder,
    GridLayout,
    _ops,
    grid_encode,
    reference,
    total_variation,
)
from task_3_DreamFusion.gridencoder.grid import variations
from tests.task_3.conftest import relative_error

# Each has a level with an entry a vertex, and levels whose vertices share them.
LAYOUTS = [
    GridLayout.make(dims, 3, features, 2, 9, 5, kind, interpolation)
    for dims, features, kind, interpolation in [
        (2, 1, "hash", "linear"),
        (3, 2, "hash", "smoothstep"),
        (4, 3, "tiled", "smoothstep"),
        (3, 8, "tiled", "linear"),
        (4, 4, "hash", "linear"),
        (2, 5, "tiled", "smoothstep"),
        (3, 2, "hash", "linear"),
    ]
]
each_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda l: f"{l.dims}d-{l.features}f")
SMALL = LAYOUTS[1]


def inputs(layout, n=6, dtype=torch.float64, table_dtype=None):
    x = torch.rand(n, layout.dims, dtype=dtype, requires_grad=True)
    table = (
        torch.randn(layout.entries, layout.features, dtype=dtype)
        .to(table_dtype or dtype)
        .requires_grad_()
    )
    return x, table


# --- What it computes


def test_small_levels_have_several_sums_on_a_gpu():
    """About 64 corners share an entry: a power of two up to 16 copies, one for large levels."""
    layout, positions = GridLayout.make(), 2**20
    result = [_ops._num_copies(layout.size(level), positions) for level in range(layout.levels)]
    assert result == [16, 8, 4] + [1] * 13
    assert _ops._num_copies(8, 0) == _ops._num_copies(8, 63) == 1 and _ops._num_copies(8, 128) == 2


def test_layout_is_that_of_the_paper():
    """Table 1 and equations 2, 3: 16 levels from 16 to 2048, at most 2^19 entries."""
    layout = GridLayout.make()
    assert layout.resolutions[:3] == (16, 22, 30) and layout.resolutions[-1] == 2048
    assert [layout.tile(level) for level in range(16)] == [0] * 5 + [
        -1
    ] * 11  # 81^3 is more than 2^19
    assert layout.size(0) == 4920 and layout.size(15) == 2**19
    assert all(offset % 8 == 0 for offset in layout.offsets)


def test_interpolates_what_the_vertices_hold(path):
    """A table of a linear function gives that function; smoothstep at vertices and centers."""
    for interpolation, xs in (
        ("linear", torch.rand(50, 3)),
        ("smoothstep", torch.randint(0, 9, (50, 3)) / 8),
    ):
        layout = GridLayout.make(3, 1, 1, 4, 4, 19, "hash", interpolation)
        i = torch.arange(layout.entries)
        table = (i % 5 + 2.0 * (i // 5 % 5) - 3.0 * (i // 25))[:, None] / 4
        expected = xs @ torch.tensor([[1.0], [2.0], [-3.0]])
        torch.testing.assert_close(grid_encode(xs, table, layout), expected, atol=1e-5, rtol=0)


def test_hash_and_tiles_by_hand():
    layout = LAYOUTS[6]
    vertex = torch.tensor([[3, 5, 2]])
    expected = (3 ^ (5 * 2654435761) ^ (2 * 805459861)) % 32
    assert reference.entries(vertex, layout, 2).item() == layout.offsets[2] + expected
    tiled = LAYOUTS[3]  # 27 of 32 entries: tiles of 3 x 3 x 3
    assert tiled.tile(2) == 3
    assert reference.entries(vertex, tiled, 2).item() == tiled.offsets[2] + 0 + 2 * 3 + 2 * 9


@each_layout
def test_agrees_with_the_reference(compiled, layout):
    x, table = inputs(layout, 200)
    torch.testing.assert_close(
        grid_encode(x, table, layout), reference.grid_encode(x, table, layout)
    )


@pytest.mark.parametrize(("dtype", "bar"), [(torch.float32, 1e-5), (torch.float16, 5e-3)])
@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
def test_precision_against_float64(compiled, dtype, bar, interpolation):
    """Values and all first derivatives, at resolutions up to 2048."""
    layout = GridLayout.make(3, 8, 2, 16, 2048, 12, interpolation=interpolation)
    x, table = inputs(layout, 3000, torch.float32, dtype)
    y = grid_encode(x, table, layout)
    dy = torch.randn(y.shape).to(dtype)
    result = [y, *torch.autograd.grad(y, (x, table), dy)]
    x, table = x.detach().double().requires_grad_(), table.detach().double().requires_grad_()
    y = reference.grid_encode(x, table, layout)
    expected = [y, *torch.autograd.grad(y, (x, table), dy.double())]
    assert [t.dtype for t in result] == [dtype, torch.float32, dtype]
    assert all(relative_error(*pair) <= bar for pair in zip(result, expected, strict=True))


def test_order_and_rounding_of_sums(compiled):
    """Corner after corner, each by one fused multiply-add, bit for bit.

    No compiler may join or reorder these, or the CPU's values would differ from the GPU's.
    """
    side = 8
    layout = GridLayout.make(3, 1, 2, side, side, interpolation="smoothstep")
    x, table = torch.rand(4000, 3), torch.randn(layout.entries, 2)
    corner = (x * side).int().clamp(max=side - 1)
    t = (x.double() * side - corner).float()
    upper = t * t * (3 - 2 * t)
    expected = torch.zeros(4000, 2)
    for c in range(8):
        weight, entry = torch.ones(4000), torch.zeros(4000, dtype=torch.long)
        for d in range(3):
            bit = c >> d & 1
            weight = weight * (upper if bit else 1 - upper)[:, d]
            entry += (corner[:, d] + bit) * (side + 1) ** d
        expected = (weight.double()[:, None] * table[entry].double() + expected.double()).float()
    assert torch.equal(grid_encode(x, table, layout), expected)


def test_half_is_rounded_as_torch_rounds(compiled):
    """All 65,536 numbers go through, and every kind of float comes out as torch makes it."""
    layout = GridLayout.make(2, 1, 1, 1, 1)
    halves = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)
    at_vertex = torch.zeros(1, 2)
    for value in halves[::97]:
        table = torch.full((layout.entries, 1), value.item()).half()
        torch.testing.assert_close(
            grid_encode(at_vertex, table, layout)[0, 0], value, equal_nan=True, rtol=0, atol=0
        )
    x = torch.rand(4000, 2)
    for scale in (1e-7, 1e-5, 1.0, 6e4):
        table = (scale * torch.randn(layout.entries, 1).clamp(-1, 1)).half()
        exact = grid_encode(x, table.float(), layout)
        assert torch.equal(grid_encode(x, table, layout), exact.half())


def test_outside_counts_as_the_nearest_point(path):
    layout = SMALL
    table = torch.randn(layout.entries, layout.features)
    x = torch.tensor([[-0.5, 0.3, 1.7], [1.0, 1.0, 1.0]], requires_grad=True)
    y = grid_encode(x, table, layout)
    assert torch.equal(y[0], grid_encode(torch.tensor([[0.0, 0.3, 1.0]]), table, layout)[0])
    [dx] = torch.autograd.grad(y.sum(), x)
    assert dx[0, 0] == 0 and dx[0, 2] == 0 and dx[0, 1] != 0


def test_nan_stays_nan_and_reads_nothing_wrong(path):
    x = torch.tensor([[0.5, float("nan"), 0.5], [float("inf"), 0.2, -float("inf")]])
    y = grid_encode(x, torch.ones(SMALL.entries, SMALL.features), SMALL)
    assert y[0].isnan().all() and torch.equal(y[1], torch.ones(6))


def test_empty_and_strided_input(path):
    x, table = inputs(SMALL, 40, torch.float32)
    assert grid_encode(x[:0], table, SMALL).shape == (0, 6)
    wide = torch.cat([table, table], 1).detach()
    y = grid_encode(x.detach().t().contiguous().t(), wide[:, : SMALL.features], SMALL)
    assert torch.equal(y, grid_encode(x, table, SMALL))


# --- Derivatives


@each_layout
def test_derivatives(compiled, layout):
    pair = inputs(layout, 3)
    assert gradcheck(lambda x, table: grid_encode(x, table, layout), pair, fast_mode=True)
    assert gradgradcheck(lambda x, table: grid_encode(x, table, layout), pair, fast_mode=True)


def test_every_derivative_one_by_one(path):
    pair = inputs(SMALL, 2)
    assert gradcheck(lambda x, table: grid_encode(x, table, SMALL), pair)
    assert gradgradcheck(lambda x, table: grid_encode(x, table, SMALL), pair)


def test_normals_train_the_table(compiled):
    """A loss on the gradient of the positions: its gradient in the table is the reference's."""
    x, table = inputs(SMALL, 50)
    grads = []
    for encode in (grid_encode, reference.grid_encode):
        y = encode(x, table, SMALL).sin()
        [normals] = torch.autograd.grad(y.sum(), x, create_graph=True)
        grads.append(torch.autograd.grad((normals.norm(dim=1) - 1).square().sum(), table)[0])
    torch.testing.assert_close(*grads)


def test_a_third_derivative_is_refused(compiled):
    x, table = inputs(SMALL)
    [dx] = torch.autograd.grad(grid_encode(x, table, SMALL).square().sum(), x, create_graph=True)
    [second] = torch.autograd.grad(dx.square().sum(), table, create_graph=True)
    with pytest.raises(NotImplementedError, match="no third derivative"):
        second.sum().backward()


def test_any_number_of_threads(compiled):
    """The gradients too, bit for bit."""
    layout = GridLayout.make(3, 4, 2, 4, 64, 10)
    x, table = inputs(layout, 9000, torch.float32)
    result = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        y = grid_encode(x, table, layout)
        result.append(
            [
                y,
                *torch.autograd.grad(
                    y.square().sum() + total_variation(x, table, layout), (x, table)
                ),
            ]
        )
    assert all(
        torch.equal(a, b) for other in result[1:] for a, b in zip(result[0], other, strict=True)
    )


@pytest.mark.parametrize("largest", [0.0, 1e-300, 1e-12, 0.37, 1.0, 65504.0, 1e30])
@pytest.mark.parametrize("terms", [1, 1000, 2**20])
def test_integers_hold_every_sum(largest, terms):
    scale = _ops.fixed_point_scale(torch.tensor(largest, dtype=torch.float64), terms).item()
    assert 0 < scale < float("inf") and scale.hex().startswith("0x1.0000000000000p")
    assert scale * largest * terms <= 2**61
    if largest >= 1e-12:
        assert scale * largest * terms > 2**59  # no digit is given away


@pytest.mark.parametrize("largest", [float("inf"), float("nan")])
def test_integers_do_not_hide_an_overflow(largest):
    scale = _ops.fixed_point_scale(torch.tensor(largest, dtype=torch.float64), 100)
    assert not (torch.tensor([0, 5, -(2**63)]) / scale).isfinite().any()


class RecordedSum(_ops._Accumulator):
    """Keeps the bound of what a position adds to an entry, which only a GPU asks for."""

    bounds: ClassVar[list[float]] = []

    def __init__(self, x, entries, features, bound):
        super().__init__(x, entries, features, bound)
        self.bounds.append(float(bound()))


@pytest.mark.parametrize(("interpolation", "slope"), [("linear", 1), ("smoothstep", 1.5)])
def test_integers_are_made_for_what_a_position_adds(compiled, monkeypatch, interpolation, slope):
    """By hand: corner weights sum to 1, their derivatives to twice the cells times the slope."""
    monkeypatch.setattr(_ops, "_Accumulator", RecordedSum)
    RecordedSum.bounds.clear()
    layout = GridLayout.make(2, 2, 1, 4, 8, interpolation=interpolation)
    x, table = inputs(layout, 5)
    dy, v = torch.zeros(5, 2, dtype=torch.float64), torch.zeros(5, 2, dtype=torch.float64)
    dy[3, 1], v[2, 0] = -3.0, -5.0
    settings = layout.arguments
    _ops._table_grad(x.detach(), dy, None, *settings)
    _ops._table_grad(x.detach(), dy, v, *settings)
    largest = table.detach().abs().max().item()
    _ops._variation_grad(x.detach(), table.detach(), dy, *settings)
    assert RecordedSum.bounds == pytest.approx([3, 3 * 5 * 2 * 2 * 8 * slope, 8 * 2 * 3 * largest])


# --- Total variation


@each_layout
def test_variations(path, layout):
    x, table = inputs(layout, 40)
    terms = lambda table: variations(x, table, layout)
    torch.testing.assert_close(terms(table), reference.variations(x, table, layout))
    assert gradcheck(terms, table, fast_mode=True)


def test_variation_of_all_cells_by_hand(path):
    """One position in each cell gives the differences of all neighboring vertices of the grid."""
    n, layout = 3, GridLayout.make(3, 1, 2, 3, 3, 19)
    table = torch.randn(layout.entries, 2)
    centers = (torch.cartesian_prod(*[torch.arange(n)] * 3) + 0.5) / n
    grid = table[: (n + 1) ** 3].view(n + 1, n + 1, n + 1, 2)
    differences = [grid.diff(dim=axis)[:n, :n, :n].square().sum() for axis in range(3)]
    expected = sum(differences) / n**3
    torch.testing.assert_close(total_variation(centers, table, layout), expected)
    assert total_variation(centers, torch.ones(layout.entries, 2), layout) == 0


def test_total_variation_is_the_mean_over_positions_and_levels(path):
    x, table = inputs(SMALL, 7)
    expected = reference.variations(x, table, SMALL).mean()
    torch.testing.assert_close(total_variation(x, table, SMALL), expected)


def test_a_layout_stays_as_it_is():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.dims = 4
    assert hash(SMALL) == hash(dataclasses.replace(SMALL))


# --- Tracing, the module, bad input


def test_is_traced(path):
    """The first thing that is done with a layout, too."""
    layout = GridLayout.make(3, 2, 2, 2, 4, 5)
    x, table = inputs(layout, 20)
    loss = lambda x, table: (
        grid_encode(x, table, layout).square().sum() + total_variation(x, table, layout)
    )
    traced = torch.compile(loss, backend="aot_eager", fullgraph=True)
    result, expected = (torch.autograd.grad(f(x, table), (x, table)) for f in (traced, loss))
    torch.testing.assert_close(result, expected)


def test_registered_as_torch_expects(compiled):
    x, table = inputs(SMALL, 20)
    dy = torch.randn(20, 6, dtype=torch.float64, requires_grad=True)
    ops, settings = torch.ops.dreamfusion, SMALL.arguments
    torch.library.opcheck(ops.grid_encode.default, (x, table, None, *settings))
    torch.library.opcheck(ops.grid_input_grad.default, (x, table, dy, None, *settings))
    torch.library.opcheck(ops.grid_table_grad.default, (x, dy, None, *settings))
    torch.library.opcheck(ops.grid_variation.default, (x.detach(), table, *settings))


def test_module():
    encoder = GridEncoder(GridLayout.make(3, 4, 2, 4, 32, 10), bound=2)
    assert encoder.table.abs().max() <= 1e-4 and encoder.table.std() > 1e-5
    x = 4 * torch.rand(3, 5, 3) - 2
    y = encoder(x)
    assert y.shape == (3, 5, encoder.output_dim) == (3, 5, 8)
    assert torch.equal(
        y[1, 2], grid_encode((x[1, 2] / 4 + 0.5)[None], encoder.table, encoder.layout)[0]
    )
    with pytest.raises(ValueError, match="bound must be positive, got 0"):
        GridEncoder(encoder.layout, bound=0)


@pytest.mark.parametrize(
    "settings",
    [
        dict(dims=2),
        dict(dims=4, log2_table_size=3),
        dict(features=1),
        dict(features=8),
        dict(levels=1),
        dict(levels=32),
        dict(min_resolution=1),
        dict(min_resolution=2**20, max_resolution=2**20),
        dict(log2_table_size=24, max_resolution=16),
    ],
)
def test_layouts_at_their_limits(settings):
    layout = GridLayout.make(**settings)
    assert layout.levels == settings.get("levels", 16) and layout.entries == layout.offsets[-1]
    assert all(layout.size(level) >= 8 for level in range(layout.levels))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(dims=5), "dims must be from 2 to 4, got 5"),
        (dict(dims=1), "dims must be from 2 to 4, got 1"),
        (dict(features=0), "features must be from 1 to 8, got 0"),
        (dict(levels=33), "levels must be from 1 to 32, got 33"),
        (dict(min_resolution=0), "min_resolution must be from 1 to max_resolution, got 0"),
        (dict(log2_table_size=2), "log2_table_size must be from 3 to 24, got 2"),
        (dict(log2_table_size=25), "log2_table_size must be from 3 to 24, got 25"),
        (
            dict(min_resolution=2**20 + 1, max_resolution=2**20 + 1),
            "resolutions must be from 1 to 1048576",
        ),
        (dict(features=9), "features must be from 1 to 8, got 9"),
        (dict(levels=40), "levels must be from 1 to 32, got 40"),
        (dict(levels=0), "levels must be from 1 to 32, got 0"),
        (dict(grid_type="dense"), "grid_type must be .*, got 'dense'"),
        (dict(interpolation="cubic"), "interpolation must be .*, got 'cubic'"),
        (dict(log2_table_size=30), "log2_table_size must be from 3 to 24, got 30"),
        (dict(min_resolution=10, max_resolution=5), "got 10 and 5"),
        (dict(max_resolution=2**21), "resolutions must be from 1 to 1048576"),
    ],
)
def test_bad_layouts(settings, message):
    with pytest.raises(ValueError, match=message):
        GridLayout.make(**settings)


@pytest.mark.parametrize(
    ("resolutions", "offsets", "message"),
    [
        ((64,), (0, 1000), "power of two"),
        ((64,), (0,), "one more than levels"),
        ((64,), (0, 1024, 2048), "one more than levels"),
        ((64,), (0, 4), "at least 8 entries apart"),
        ((2, 64), (0, 32, 36), "at least 8 entries apart"),
        ((64,), (8, 1032), "begin with 0"),
        ((2**20,), (0, 2**32), "end below 2.32"),
    ],
)
def test_bad_offsets(resolutions, offsets, message):
    with pytest.raises(ValueError, match=message):
        GridLayout(3, 2, resolutions, offsets)
    assert GridLayout(3, 2, (2**20,), (0, 2**31)).entries == 2**31


def test_bad_input():
    x, table = torch.rand(4, 3), torch.zeros(SMALL.entries, SMALL.features)
    for arguments, error, message in [
        ((x[:, :2], table), ValueError, r"x must have shape \(N, 3\), got \(4, 2\)"),
        ((x.half(), table), TypeError, "x must be float32 or float64, got torch.float16"),
        ((x, table[:-1]), ValueError, "table must have shape"),
        ((x.double(), table), TypeError, "got torch.float64 and torch.float32"),
        ((x, table.bfloat16()), TypeError, "got torch.float32 and torch.bfloat16"),
        ((x, table.double()), TypeError, "got torch.float32 and torch.float64"),
        ((x, table.to("meta")), ValueError, "on one device, got cpu and meta"),
    ]:
        with pytest.raises(error, match=message):
            grid_encode(*arguments, SMALL)
