"""Ray marching: cells, box, the layout of samples, compositing and the rounds of alive rays."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from task_3_DreamFusion import kernels
from task_3_DreamFusion.raymarching import (
    AliveRays,
    Occupancy,
    Samples,
    composite_rays,
    march_rays,
    morton3d,
    morton3d_invert,
    packbits,
    ray_aabb_intersect,
    reference,
)
from task_3_DreamFusion.raymarching.reference import MAX_STEPS
from tests.task_3.conftest import CPU, relative_error

BOX = (-1.0, -0.5, -1.0, 1.0, 1.5, 0.5)
STEP = 0.02


def scene(n=100, share=0.1, resolution=16, dtype=torch.float32):
    """Rays from all around toward the middle, and a grid of which that share is occupied."""
    occupancy = Occupancy(packbits(torch.rand(resolution**3, dtype=dtype), 1 - share), BOX)
    origins = 2 * torch.randn(n, 3, dtype=dtype)
    directions = torch.nn.functional.normalize(torch.randn(n, 3, dtype=dtype) / 2 - origins, dim=1)
    directions[: n // 5] = torch.tensor([0.0, 0.0, -1.0], dtype=dtype)  # along an axis
    origins[: n // 5, :2] *= 0.2
    nears, fars = ray_aabb_intersect(origins, directions, BOX, 0.05)
    return origins, directions, nears + STEP * torch.rand(n, dtype=dtype), fars, occupancy


def field(positions):
    """Some density and color at positions."""
    return 20 + 20 * torch.sin(9 * positions.sum(1)), torch.sigmoid(3 * positions)


def numbers(occupancy):
    return occupancy.bits, list(occupancy.box)


# --- Cells


@given(st.lists(st.tuples(*[st.integers(0, 1023)] * 3), min_size=1, max_size=20))
@settings(deadline=None)
def test_morton_codes_interleave_bits(cells):
    expected = [
        int("".join(f"{z:010b}"[i] + f"{y:010b}"[i] + f"{x:010b}"[i] for i in range(10)), 2)
        for x, y, z in cells
    ]
    tensor = torch.tensor(cells, dtype=torch.int32)
    for operations in both():
        codes = operations.morton3d(tensor)
        assert codes.tolist() == expected
        assert torch.equal(operations.morton3d_invert(codes), tensor)


def both():
    """Kernels, where there are any, and reference."""
    return (
        [torch.ops.dreamfusion, reference]
        if kernels.is_available("raymarching", CPU)
        else [reference]
    )


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=10), st.floats(-1, 1, width=32))
@settings(deadline=None)
def test_bits_are_packed_as_they_lie(values, threshold):
    density = torch.tensor(values).repeat_interleave(3)
    density = torch.cat([density, density.new_zeros(-len(density) % 8)])
    for operations in both():
        bits = operations.packbits(density, threshold)
        unpacked = [bits[i // 8].item() >> (i % 8) & 1 for i in range(len(density))]
        assert unpacked == (density > threshold).int().tolist()


def test_codes_cover_the_grid_once(path):
    cells = torch.cartesian_prod(*[torch.arange(8, dtype=torch.int32)] * 3)
    assert morton3d(cells).sort().values.tolist() == list(range(512))
    assert torch.equal(
        morton3d(morton3d_invert(torch.arange(512, dtype=torch.int32))),
        torch.arange(512, dtype=torch.int32),
    )


@pytest.mark.parametrize("side", [4, 8, 16, 1024])
def test_sides_of_an_occupancy_grid(side):
    occupancy = Occupancy(torch.zeros(1, dtype=torch.uint8).expand(side**3 // 8))
    assert reference.grid_resolution(occupancy.bits) == side


@pytest.mark.parametrize("side", [2, 6, 12, 1026, 2048])
def test_sides_that_an_occupancy_grid_cannot_have(side):
    with pytest.raises(ValueError, match="bits must be n.3 / 8 bytes for n = 4, 8, ..., 1024"):
        Occupancy(torch.zeros(1, dtype=torch.uint8).expand(side**3 // 8))


# --- The box


def test_a_box_may_be_small_and_off_center(path):
    box = (0.25, 0.25, 0.25, 0.5, 0.75, 0.375)
    origins, directions = torch.tensor([[0.3, 0.3, 0.0]]), torch.tensor([[0.0, 0, 1]])
    nears, fars = ray_aabb_intersect(origins, directions, box)
    assert (nears.item(), fars.item()) == (0.25, 0.375)
    assert Occupancy(torch.zeros(64, dtype=torch.uint8), box).box == box


def test_near_and_far_by_hand(path):
    origins = torch.tensor(
        [[0.0, 0, -3], [0, 0, 0], [5, 0, -3], [0, 0, 3], [0, 0, -3], [1, 0.5, 0]]
    )
    directions = torch.tensor([[0.0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 2], [0, 1, 0]])
    nears, fars = ray_aabb_intersect(origins, directions, (-1, -1, -1, 1, 1, 1), 0.25)
    assert nears.tolist() == [2, 0.25, 0.25, 0.25, 1, 0.25]
    assert fars.tolist() == [4, 1, 0.25, 0.25, 2, 0.5]  # a miss, and a box behind, have no length


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_near_and_far_agree_with_the_reference(compiled, dtype):
    origins, directions, *_ = scene(1000, dtype=dtype)
    result, expected = (
        ray_aabb_intersect(origins, directions, BOX, 0.1),
        reference.ray_aabb_intersect(origins, directions, list(BOX), 0.1),
    )
    assert torch.equal(torch.stack(result), torch.stack(expected))
    exact = reference.ray_aabb_intersect(origins.double(), directions.double(), list(BOX), 0.1)
    assert relative_error(result[0], exact[0]) < 1e-5


# --- Marching


def test_samples_lie_on_the_lattice_in_occupied_cells(path):
    origins, directions, starts, fars, occupancy = scene()
    samples = march_rays(origins, directions, starts, fars, occupancy, STEP)
    assert len(samples.ts) > 300
    k = (samples.ts - starts[samples.ray_indices]) / STEP
    assert (k - k.round()).abs().max() < 1e-3
    assert (samples.ts < fars[samples.ray_indices]).all()
    torch.testing.assert_close(
        samples.positions,
        origins[samples.ray_indices] + samples.ts[:, None] * directions[samples.ray_indices],
    )
    assert reference.is_occupied(samples.positions, *numbers(occupancy)).all()
    firsts, counts = samples.packed_info.unbind(1)
    assert torch.equal(firsts, counts.cumsum(0) - counts) and counts.sum() == len(samples.ts)
    assert torch.equal(samples.ray_indices, torch.arange(len(origins)).repeat_interleave(counts))


@given(
    st.integers(0, 2**31),
    st.sampled_from([4, 8, 32]),
    st.sampled_from([0.0, 0.003, 0.1, 0.7, 1.0]),
    st.floats(0.004, 0.3),
    st.sampled_from([1, 3, 200]),
    st.sampled_from([None, 0, 50, 4000]),
    st.sampled_from([0, 1, 2]),
)
@settings(deadline=None, max_examples=60)
def test_layout_is_exactly_the_references(seed, resolution, share, step, limit, capacity, flat):
    """Skipping empty cells keeps every sample, also (almost) along axes and cells' faces."""
    if not kernels.is_available("raymarching", CPU):
        pytest.skip("NO COMPILED KERNELS")
    torch.manual_seed(seed)
    origins, directions, _, _, occupancy = scene(30, share, resolution)
    if flat:
        directions[:, :flat] *= 1e-7
        origins[:15] = (origins[:15] * 4).round() / 4
    nears, fars = ray_aabb_intersect(origins, directions, BOX)
    rays = origins, directions, nears, fars
    result = march_rays(*rays, occupancy, step, limit, capacity)
    expected = reference.march_rays(list(rays), *numbers(occupancy), step, limit, capacity)
    assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))
    assert capacity is None or len(result.ts) == capacity


def test_same_layout_on_any_number_of_threads(compiled):
    rays = scene(9000)
    result = []
    for threads in (1, 4):
        torch.set_num_threads(threads)
        result.append(march_rays(*rays, STEP))
    assert all(torch.equal(a, b) for a, b in zip(*result, strict=True))


@pytest.mark.parametrize("count", [1, 7, 50, 1000])
def test_parts_are_marches_of_their_rays(path, count):
    *rays, occupancy = scene(50)
    parts = march_rays(*rays, occupancy, STEP).split(count)
    assert len(parts) == -(-50 // count)
    for k, part in enumerate(parts):
        alone = march_rays(
            *(of_all[k * count : (k + 1) * count] for of_all in rays), occupancy, STEP
        )
        assert all(torch.equal(a, b) for a, b in zip(part, alone, strict=True))


def test_nothing_to_find(path):
    origins, directions, starts, fars, _ = scene(20)
    empty = Occupancy(torch.zeros(64, dtype=torch.uint8), BOX)
    samples = march_rays(origins, directions, starts, fars, empty, STEP)
    assert len(samples.ts) == 0 and (samples.packed_info == 0).all()
    composited = composite_rays(torch.zeros(0), torch.zeros(0, 3), torch.zeros(0), samples)
    assert (
        composited.image.shape == (20, 3)
        and (composited.image == 0).all()
        and (composited.opacities == 0).all()
    )
    none = march_rays(origins[:0], directions[:0], starts[:0], fars[:0], empty, STEP)
    assert none.packed_info.shape == (0, 2)
    assert AliveRays(origins, directions, starts, fars, empty, STEP).march(4) is None
    assert (
        AliveRays(origins[:0], directions[:0], starts[:0], fars[:0], empty, STEP).march(4) is None
    )


@pytest.mark.parametrize("path_of", ["compiled", "reference"])
def test_no_alive_rays_have_no_samples(compiled, path_of):
    *rays, occupancy = scene(5)
    operations = torch.ops.dreamfusion if path_of == "compiled" else reference
    none, steps = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int32)
    result = operations.march_alive(rays, *numbers(occupancy), STEP, 4, none, steps)
    assert [len(each) for each in result] == [0] * 6


def test_strange_rays_end(path):
    """NaN and infinity find nothing and hang nothing."""
    origins, directions, starts, fars, occupancy = scene(4)
    origins[0], directions[1], starts[2] = math.nan, math.nan, math.nan
    fars[3] = math.nan
    assert (
        len(march_rays(*(t[2:] for t in (origins, directions, starts, fars)), occupancy, STEP).ts)
        == 0
    )
    nears, fars = ray_aabb_intersect(origins[:2], directions[:2], BOX)
    assert torch.equal(nears, fars)


# --- Compositing


def composited_inputs(dtype=torch.float64, n=20, channels=4):
    rays = scene(n, 0.2)
    samples = march_rays(*rays, STEP)
    samples = samples._replace(ts=samples.ts.to(dtype))
    m = len(samples.ts)
    sigmas = (30 * torch.rand(m, dtype=dtype)).requires_grad_()
    deltas = STEP * (0.5 + torch.rand(m, dtype=dtype))
    return sigmas, torch.rand(m, channels, dtype=dtype).requires_grad_(), deltas, samples


def test_two_samples_by_hand(path):
    """NeRF, equation 3, with the numbers written out."""
    samples = Samples(
        torch.zeros(2, 3), torch.tensor([1.0, 3.0]), torch.zeros(2).long(), torch.tensor([[0, 2]])
    )
    halves = torch.full((2,), math.log(2) / 0.1)  # each lets half of the light through
    result = composite_rays(halves, torch.tensor([[1.0], [10.0]]), torch.full((2,), 0.1), samples)
    assert result.weights.tolist() == pytest.approx([0.5, 0.25])
    assert result.image.item() == pytest.approx(0.5 + 2.5)
    assert result.depths.item() == pytest.approx(0.5 + 0.75)
    assert result.opacities.item() == pytest.approx(0.75)
    stopped = composite_rays(
        halves, torch.ones(2, 1), torch.full((2,), 0.1), samples, min_transmittance=0.6
    )
    assert stopped.weights.tolist() == pytest.approx([0.5, 0])


def test_rays_without_samples_beside_a_ray_with_one(path):
    info = torch.tensor([[0, 0], [0, 1], [1, 0]])
    samples = Samples(torch.zeros(1, 3), torch.ones(1), torch.ones(1).long(), info)
    result = composite_rays(torch.full((1,), 1e3), torch.ones(1, 2), torch.ones(1), samples)
    assert result.image.tolist() == [[0, 0], [1, 1], [0, 0]]
    assert result.depths.tolist() == result.opacities.tolist() == [0, 1, 0]


@pytest.mark.parametrize("threshold", [0, 0.02])
def test_compositing_agrees_with_the_reference(compiled, threshold):
    """Values, and gradients of all four outputs at once."""
    sigmas, features, deltas, samples = composited_inputs()
    result = composite_rays(sigmas, features, deltas, samples, threshold)
    opaque = -math.log(threshold) if threshold else math.inf
    expected = reference.composite_rays(
        sigmas, features, deltas, samples.ts, samples.packed_info, opaque
    )
    torch.testing.assert_close(tuple(result), expected)
    if threshold:
        assert (result.weights == 0).any()  # rays did stop
    grads = [torch.randn_like(t) for t in expected]
    torch.testing.assert_close(
        torch.autograd.grad(result, (sigmas, features), grads),
        torch.autograd.grad(expected, (sigmas, features), grads),
    )


def test_derivatives(path):
    sigmas, features, deltas, samples = composited_inputs(n=4, channels=2)
    assert gradcheck(
        lambda s, f: tuple(composite_rays(s, f, deltas, samples, 0)),
        (sigmas, features),
        fast_mode=True,
    )


def test_precision_against_float64(compiled):
    inputs = composited_inputs(torch.float32, 300)
    sigmas, features, deltas, samples = inputs
    result = composite_rays(*inputs, min_transmittance=0)
    doubles = [t.detach().double().requires_grad_() for t in (sigmas, features)]
    exact = reference.composite_rays(
        *doubles, deltas.double(), samples.ts.double(), samples.packed_info, math.inf
    )
    assert max(relative_error(*pair) for pair in zip(result, exact, strict=True)) <= 1e-5
    grads = [torch.randn_like(t) for t in result]
    result = torch.autograd.grad(result, (sigmas, features), grads)
    exact = torch.autograd.grad(exact, doubles, [g.double() for g in grads])
    assert max(relative_error(*pair) for pair in zip(result, exact, strict=True)) <= 1e-5


def test_gradient_of_one_output_alone(path):
    """The others do not take part."""
    sigmas, features, deltas, samples = composited_inputs()
    result = composite_rays(sigmas, features, deltas, samples)
    [d_features] = torch.autograd.grad(result.image.sum(), features)
    torch.testing.assert_close(d_features, result.weights[:, None].expand_as(features).detach())


def test_half_is_computed_in_float(path):
    sigmas, features, deltas, samples = composited_inputs(torch.float32)
    result = composite_rays(sigmas.half(), features.half(), deltas, samples)
    assert result.image.dtype == torch.float32
    assert torch.equal(
        result.image,
        composite_rays(sigmas.half().float(), features.half().float(), deltas, samples).image,
    )


def test_rows_beyond_the_samples_count_for_nothing(path):
    rays = scene(20)
    samples = march_rays(*rays, STEP)
    room = march_rays(*rays, STEP, capacity=len(samples.ts) + 100)
    results = []
    for s in (samples, room):
        sigmas = torch.full((len(s.ts),), 9.0, requires_grad=True)
        result = composite_rays(sigmas, s.positions, torch.full_like(s.ts, STEP), s)
        [grad] = torch.autograd.grad(result.image.sum() + result.weights.sum(), sigmas)
        results.append((result.image, result.weights, grad))
    (image, weights, grad), (other, other_weights, other_grad) = results
    m = len(weights)
    assert (
        torch.equal(image, other)
        and torch.equal(weights, other_weights[:m])
        and (other_weights[m:] == 0).all()
    )
    torch.testing.assert_close(grad, other_grad[:m])
    assert (other_grad[m:] == 0).all()


def test_broken_density_shows(path):
    sigmas, features, deltas, samples = composited_inputs(torch.float32)
    broken = sigmas.detach().clone()
    first = samples.packed_info[samples.packed_info[:, 1].argmax(), 0]
    broken[first] = math.nan
    assert composite_rays(broken, features, deltas, samples).image.isnan().any()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("which", ["first", "last of its ray", "in the middle", "last"])
def test_a_broken_color_stays_in_its_ray(path, which, value):
    """Rays have unequal numbers of samples: in PyTorch their rows are padded with the first one."""
    sigmas, features, deltas, samples = composited_inputs(torch.float32)
    info = samples.packed_info
    longest = int(info[:, 1].argmax())
    firsts = {"first": 0, "last": len(samples.ts) - 1, "in the middle": int(info[longest, 0]) + 1}
    place = firsts.get(which, int(info[longest].sum()) - 1)
    broken = features.detach().clone()
    broken[place] = value
    result = composite_rays(sigmas, broken.requires_grad_(), deltas, samples, min_transmittance=0)
    owner = int(((info[:, 0] <= place) & (place < info.sum(1))).nonzero())
    finite = result.image.isfinite().all(1)
    assert not finite[owner] and finite.sum() == len(info) - 1
    assert result.depths.isfinite().all() and result.weights.isfinite().all()
    [grad] = torch.autograd.grad(result.image[finite].sum(), broken)
    assert grad.isfinite().all()


@pytest.mark.parametrize("limit", [1, 4, 500])
def test_a_broken_color_stays_in_its_ray_round_by_round(path, limit):
    image = AliveRays(*scene(60, 0.3), STEP)
    owner = None
    while (samples := image.march(limit)) is not None:
        sigmas, colors = field(samples.positions)
        if owner is None:
            owner, colors[0] = int(samples.ray_indices[0]), math.nan
        image.composite(samples, sigmas, colors)
    assert image.image.isnan().any(1).nonzero().flatten().tolist() == [owner]


def test_an_infinite_density_is_a_wall(path):
    samples = Samples(
        torch.zeros(3, 3), torch.arange(3.0), torch.zeros(3).long(), torch.tensor([[0, 3]])
    )
    sigmas = torch.tensor([math.log(2), math.inf, 1.0], requires_grad=True)
    result = composite_rays(sigmas, torch.ones(3, 1), torch.ones(3), samples, min_transmittance=0)
    assert result.weights.tolist() == pytest.approx([0.5, 0.5, 0])
    assert torch.autograd.grad(result.depths.sum(), sigmas)[0].isfinite().all()


# --- Alive rays


@pytest.mark.parametrize("limit", [1, 7, 500])
def test_rounds_give_the_image_of_one_march(path, limit):
    rays = scene(60, 0.3)
    image, most = AliveRays(*rays, STEP), 0
    alive = [len(image.indices)]
    while (samples := image.march(limit)) is not None:
        assert samples.packed_info[:, 1].min() >= 1 and samples.packed_info[:, 1].max() <= limit
        assert len(samples.packed_info) == len(image.indices)
        image.composite(samples, *field(samples.positions))
        alive.append(len(image.indices))
        most += len(samples.ts)
    samples = march_rays(*rays, STEP, MAX_STEPS - 1)
    whole = composite_rays(*field(samples.positions), torch.full_like(samples.ts, STEP), samples)
    for result, expected in ((image.image, whole.image), (image.depths, whole.depths)):
        torch.testing.assert_close(result, expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(image.opacities, whole.opacities, atol=2e-5, rtol=1e-5)
    assert alive == sorted(alive, reverse=True)
    if limit < 10:
        assert most < len(samples.ts)  # opaque rays went no further


def test_rounds_find_the_same_samples_on_both_paths(compiled, monkeypatch):
    rays, result = scene(60, 0.3), []
    for _ in range(2):
        image, seen = AliveRays(*rays, STEP), []
        while (samples := image.march(6)) is not None:
            seen += [*samples, image.indices]
            image.composite(samples, *field(samples.positions))
        result.append(seen)
        monkeypatch.setattr(kernels, "_is_available", lambda package, device: False)
    assert len(result[0]) == len(result[1])
    assert all(torch.equal(a, b) for a, b in zip(*result, strict=True))


# --- Tracing, bad input


def test_is_traced(compiled):
    *rays, occupancy = scene(30)

    def render(origins, directions, starts, fars, brightness):
        samples = march_rays(origins, directions, starts, fars, occupancy, STEP, 64, 2000)
        sigmas, colors = field(samples.positions)
        return composite_rays(
            sigmas, brightness * colors, torch.full_like(samples.ts, STEP), samples
        ).image.sum()

    brightness = torch.tensor(0.5, requires_grad=True)
    traced = torch.compile(render, backend="aot_eager", fullgraph=True)
    values = [f(*rays, brightness) for f in (traced, render)]
    torch.testing.assert_close(*values)
    grads = [torch.autograd.grad(value, brightness)[0] for value in values]
    torch.testing.assert_close(*grads)


def test_a_march_of_unknown_size_is_traced(compiled):
    *rays, occupancy = scene(30)
    march = lambda *rays: march_rays(*rays, occupancy, STEP).positions.sum()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        traced = torch.compile(march, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(traced(*rays), march(*rays))


def test_registered_as_torch_expects(compiled):
    origins, directions, starts, fars, occupancy = scene(20)
    sigmas, features, deltas, samples = composited_inputs()
    ops = torch.ops.dreamfusion
    rays = [origins, directions, starts, fars], occupancy.bits, list(BOX), STEP
    torch.library.opcheck(ops.march_rays.default, (*rays, 64, 500))
    torch.library.opcheck(ops.march_rays.default, (*rays, 64, None))
    alive, steps = torch.arange(20), torch.zeros(20, dtype=torch.int32)
    torch.library.opcheck(ops.march_alive.default, (*rays, 4, alive, steps))
    torch.library.opcheck(
        ops.composite_rays.default, (sigmas, features, deltas, samples.ts, samples.packed_info, 9.0)
    )
    torch.library.opcheck(ops.ray_aabb_intersect.default, (origins, directions, list(BOX), 0.0))
    torch.library.opcheck(ops.packbits.default, (torch.rand(64), 0.5))
    cells = torch.randint(0, 1024, (9, 3), dtype=torch.int32)
    torch.library.opcheck(ops.morton3d.default, (cells,))
    torch.library.opcheck(ops.morton3d_invert.default, (morton3d(cells),))
    with pytest.raises(NotImplementedError, match="no third derivative"):
        [grad] = torch.autograd.grad(
            ops.composite_rays(sigmas, features, deltas, samples.ts, samples.packed_info, 9.0)[
                0
            ].sum(),
            sigmas,
            create_graph=True,
        )
        grad.sum().backward()


def test_bad_input():
    origins, directions, starts, fars, occupancy = scene(5)
    sigmas, features, deltas, samples = composited_inputs(torch.float32)
    for wrong, error, message in [
        (lambda: morton3d(torch.zeros(3, 3)), TypeError, "cells must be int32, got torch.float32"),
        (
            lambda: morton3d_invert(torch.zeros(3, 3).int()),
            ValueError,
            r"codes must have shape \(N,\), got \(3, 3\)",
        ),
        (
            lambda: packbits(torch.zeros(9), 0),
            ValueError,
            r"density must have shape \(8 n,\), got \(9,\)",
        ),
        (
            lambda: packbits(torch.zeros(8).half(), 0),
            TypeError,
            "density must be float32 or float64, got torch.float16",
        ),
        (
            lambda: Occupancy(torch.zeros(64)),
            TypeError,
            "bits must be uint8, got torch.float32: pack them by packbits",
        ),
        (
            lambda: Occupancy(torch.zeros(65, dtype=torch.uint8)),
            ValueError,
            r"bits must be n.3 / 8 bytes .*, got \(65,\)",
        ),
        (lambda: Occupancy(occupancy.bits, (0, 0, 0, 1, 1, 0)), ValueError, "box must be"),
        (lambda: Occupancy(occupancy.bits, (0, 0, 0, 1, 1)), ValueError, "box must be"),
        (lambda: Occupancy(occupancy.bits, (0, 0, 0, 1, 1, math.inf)), ValueError, "box must be"),
        (lambda: Occupancy(occupancy.bits, (0, 0, 0, 1, math.nan, 1)), ValueError, "box must be"),
        (
            lambda: ray_aabb_intersect(origins, directions[:4], BOX),
            ValueError,
            "directions must be",
        ),
        (
            lambda: ray_aabb_intersect(origins.half(), directions, BOX),
            TypeError,
            "origins must be float32 or float64, got torch.float16",
        ),
        (
            lambda: march_rays(origins, directions, starts[:4], fars, occupancy, STEP),
            ValueError,
            "starts must be",
        ),
        (
            lambda: march_rays(origins, directions, starts, fars, occupancy, 0),
            ValueError,
            "step_size must be a positive finite number, got 0",
        ),
        (
            lambda: march_rays(origins, directions, starts, fars, occupancy, STEP, 0),
            ValueError,
            "max_samples must be from 1 to 16777215, got 0",
        ),
        (
            lambda: march_rays(origins, directions, starts, fars, occupancy, STEP, 9, -1),
            ValueError,
            "capacity must be a number of samples or None, got -1",
        ),
        (
            lambda: composite_rays(sigmas[1:], features, deltas, samples),
            ValueError,
            "sigmas, features and deltas",
        ),
        (
            lambda: composite_rays(sigmas, features, deltas, samples, 1),
            ValueError,
            "min_transmittance must be from 0 to below 1, got 1",
        ),
        (
            lambda: AliveRays(origins, directions, starts, fars, occupancy, STEP).march(0),
            ValueError,
            "max_samples must be at least 1, got 0",
        ),
    ]:
        with pytest.raises(error, match=message):
            wrong()
