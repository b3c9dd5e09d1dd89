"""The CUDA kernels of task 3 agree with the float64 reference, on any stream and device."""

import math

import pytest
import torch

from task_3_DreamFusion import kernels
from task_3_DreamFusion.freqencoder import freq_encode
from task_3_DreamFusion.freqencoder import reference as freq_reference
from task_3_DreamFusion.gridencoder import GridLayout, grid_encode, total_variation
from task_3_DreamFusion.gridencoder import reference as grid_reference
from task_3_DreamFusion.gridencoder.grid import variations
from task_3_DreamFusion.raymarching import (
    AliveRays,
    Occupancy,
    composite_rays,
    march_rays,
    morton3d,
    morton3d_invert,
    packbits,
    ray_aabb_intersect,
)
from task_3_DreamFusion.raymarching import reference as march_reference

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CUDA = torch.device("cuda", 0)
BARS = {torch.float16: 5e-3, torch.float32: 1e-5, torch.float64: 1e-12}
BOX = (-1.0, -0.5, -1.0, 1.0, 1.5, 0.5)
STEP = 0.01


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    yield
    torch.use_deterministic_algorithms(False)


def relative_error(result, expected):
    error = (
        (result.cpu().double() - expected.cpu().double()).norm() / expected.cpu().double().norm()
    ).item()
    return error if error == error else math.inf


def test_all_packages_are_compiled():
    for package in kernels.PACKAGES:
        assert kernels.is_available(package, CUDA), kernels.load(
            package, "cuda", torch.cuda.get_device_capability()
        )


# --- Frequency encoding


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_freq(dtype):
    x = (2 * torch.rand(5000, 3, dtype=dtype) - 1).to(CUDA).requires_grad_()
    exact = x.detach().double().cpu().requires_grad_()
    y, expected = freq_encode(x, 8), freq_reference.freq_encode(exact, 8)
    dy = torch.randn_like(y)
    [dx], [d_exact] = (
        torch.autograd.grad(y, x, dy),
        torch.autograd.grad(expected, exact, dy.cpu().double()),
    )
    assert relative_error(y, expected) <= BARS[dtype] and relative_error(dx, d_exact) <= BARS[dtype]


def test_gradcheck():
    x = torch.rand(4, 3, dtype=torch.float64, device=CUDA, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: freq_encode(x, 3), x)
    assert torch.autograd.gradgradcheck(lambda x: freq_encode(x, 3), x)
    layout = GridLayout.make(3, 3, 2, 2, 9, 5, "hash", "smoothstep")
    table = torch.randn(layout.entries, 2, dtype=torch.float64, device=CUDA, requires_grad=True)
    encode = lambda x, table: grid_encode(x, table, layout)
    # sums of floats differ in their last digits from run to run
    assert torch.autograd.gradcheck(encode, (x, table), nondet_tol=1e-12)
    assert torch.autograd.gradgradcheck(encode, (x, table), nondet_tol=1e-12)


# --- Grid encoding


def grid_inputs(layout, dtype, n=20_011):  # no warp, and no tile, is full at the end
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    x = torch.rand(n, layout.dims, dtype=wide).to(CUDA).requires_grad_()
    return x, torch.randn(layout.entries, layout.features).to(CUDA, dtype).requires_grad_()


def grid_results(x, table, layout, dy, v, encode, variations):
    """Return values, first and second derivatives, and variations with their gradient."""
    y = encode(x, table, layout)
    dx, dtable = torch.autograd.grad(y, (x, table), dy, create_graph=True)
    second = torch.autograd.grad(dx, (x, table), v)
    terms = variations(x.detach(), table, layout)
    return y, dx, dtable, *second, terms, *torch.autograd.grad(terms.sum(), table)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(
    ("dims", "features", "kind", "interpolation"),
    [
        (3, 2, "hash", "linear"),
        (3, 2, "hash", "smoothstep"),
        (2, 1, "tiled", "smoothstep"),
        (4, 3, "hash", "smoothstep"),
        (3, 8, "tiled", "linear"),
        (2, 4, "hash", "linear"),
        (4, 6, "tiled", "linear"),
    ],
)
def test_grid(dims, features, kind, interpolation, dtype, deterministic):
    torch.use_deterministic_algorithms(deterministic)
    layout = GridLayout.make(dims, 6, features, 8, 512, 14, kind, interpolation)
    x, table = grid_inputs(layout, dtype)
    dy = torch.randn(len(x), 6 * features).to(CUDA, dtype)
    v = torch.randn(x.shape).to(x)
    result = grid_results(x, table, layout, dy, v, grid_encode, variations)
    torch.use_deterministic_algorithms(False)
    exact = [t.detach().cpu().double() for t in (x, table, dy, v)]
    exact[0].requires_grad_(), exact[1].requires_grad_()
    expected = grid_results(
        exact[0],
        exact[1],
        layout,
        exact[2],
        exact[3],
        grid_reference.grid_encode,
        grid_reference.variations,
    )
    for name, a, b in zip(
        ("y", "dx", "dtable", "dx2", "dtable2", "terms", "dterms"), result, expected, strict=True
    ):
        assert relative_error(a, b) <= max(BARS[dtype], 1e-10), name


def test_deterministic_gradients_repeat_bit_for_bit():
    layout = GridLayout.make(3, 8, 2, 4, 128, 10)  # few entries: many additions to each
    x, table = grid_inputs(layout, torch.float32, 200_000)
    dy = torch.randn(len(x), 16).to(CUDA)
    gradient = lambda x, dy: torch.autograd.grad(grid_encode(x, table, layout), table, dy)[0]
    torch.use_deterministic_algorithms(True)
    first = gradient(x, dy)
    order = torch.randperm(len(x), device=CUDA)
    assert all(torch.equal(first, gradient(x, dy)) for _ in range(5))
    assert torch.equal(first, gradient(x[order], dy[order]))
    torch.use_deterministic_algorithms(False)
    assert relative_error(gradient(x, dy), first) < 1e-5
    torch.use_deterministic_algorithms(True)
    dy[7, 3] = math.inf
    assert not gradient(x, dy).isfinite().all()


def test_a_table_on_an_odd_address():
    layout = GridLayout.make(3, 2, 2, 4, 8, 10)
    storage = torch.randn(layout.entries * 2 + 1, device=CUDA).half()
    table = storage[1:].view(layout.entries, 2)
    x = torch.rand(100, 3, device=CUDA)
    assert torch.equal(grid_encode(x, table, layout), grid_encode(x, table.clone(), layout))


def test_a_large_batch():
    """More blocks than fit at once; every row written."""
    layout = GridLayout.make(max_resolution=512, log2_table_size=15)
    x, table = grid_inputs(layout, torch.float16, 2**20)
    y = grid_encode(x, table, layout)
    rows = torch.randint(0, len(x), (2000,), device=CUDA)
    expected = grid_reference.grid_encode(x[rows].double(), table.double(), layout)
    assert relative_error(y[rows].detach(), expected.detach()) <= 5e-3 and y.isfinite().all()


# --- Ray marching


def scene(n=4000, share=0.1, resolution=64):
    occupancy = Occupancy(packbits(torch.rand(resolution**3), 1 - share), BOX)
    origins = 2 * torch.randn(n, 3)
    directions = torch.nn.functional.normalize(torch.randn(n, 3) / 2 - origins, dim=1)
    directions[: n // 5] = torch.tensor([0.0, 0.0, -1.0])
    origins[: n // 5, :2] *= 0.2
    nears, fars = ray_aabb_intersect(origins, directions, BOX, 0.05)
    return origins, directions, nears + STEP * torch.rand(n), fars, occupancy


def on_gpu(origins, directions, starts, fars, occupancy):
    rays = [t.to(CUDA) for t in (origins, directions, starts, fars)]
    return *rays, Occupancy(occupancy.bits.to(CUDA), occupancy.box)


def field(positions):
    return 20 + 20 * torch.sin(9 * positions.sum(1)), torch.sigmoid(3 * positions)


def test_cells_and_box():
    cells = torch.randint(0, 1024, (5000, 3), dtype=torch.int32)
    codes = morton3d(cells.to(CUDA))
    assert torch.equal(codes.cpu(), march_reference.morton3d(cells))
    assert torch.equal(morton3d_invert(codes).cpu(), cells)
    density = torch.rand(8 * 999)
    assert torch.equal(
        packbits(density.to(CUDA), 0.3).cpu(), march_reference.packbits(density, 0.3)
    )
    rays = scene()
    result = ray_aabb_intersect(rays[0].to(CUDA), rays[1].to(CUDA), BOX, 0.05)
    expected = march_reference.ray_aabb_intersect(rays[0], rays[1], list(BOX), 0.05)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(result, expected, strict=True))


@pytest.mark.parametrize("capacity", [None, 5000, 10**6])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_samples_are_those_of_the_cpu_bit_for_bit(share, capacity):
    rays = scene(share=share)
    result = march_rays(*on_gpu(*rays), STEP, 1024, capacity)
    again = march_rays(*on_gpu(*rays), STEP, 1024, capacity)
    bits, box = rays[4].bits, list(BOX)
    expected = march_reference.march_rays(list(rays[:4]), bits, box, STEP, 1024, capacity)
    for a, b, c in zip(result, again, expected, strict=True):
        assert torch.equal(a, b) and torch.equal(a.cpu(), c)


@pytest.mark.parametrize("threshold", [0, 0.01])
def test_compositing(threshold):
    samples = march_rays(*on_gpu(*scene(share=0.3)), STEP)
    m = len(samples.ts)
    assert samples.packed_info[:, 1].max() > 64  # more than two rounds of a warp
    sigmas = (10 * torch.rand(m, device=CUDA)).requires_grad_()
    features = torch.rand(m, 4, device=CUDA, requires_grad=True)
    deltas = STEP * torch.rand(m, device=CUDA)
    results = []
    for _ in range(2):
        result = composite_rays(sigmas, features, deltas, samples, threshold)
        torch.manual_seed(1)
        grads = [torch.randn_like(t) for t in result]
        results.append([*result, *torch.autograd.grad(result, (sigmas, features), grads)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    exact = [t.detach().cpu().double().requires_grad_() for t in (sigmas, features)]
    others = [t.cpu().double() for t in (deltas, samples.ts)]
    opaque = -math.log(threshold) if threshold else math.inf
    expected = march_reference.composite_rays(*exact, *others, samples.packed_info.cpu(), opaque)
    gradients = torch.autograd.grad(expected, exact, [g.cpu().double() for g in grads])
    # where a ray ends is decided by rounding for few rays, each of which then differs by little
    bar = 1e-5 if threshold == 0 else 1e-3
    pairs = zip(results[0], (*expected, *gradients), strict=True)
    assert max(relative_error(a, b) for a, b in pairs) <= bar


def test_alive_rays():
    rays = scene(share=0.3)
    image = AliveRays(*on_gpu(*rays), STEP)
    while (samples := image.march(8)) is not None:
        image.composite(samples, *field(samples.positions))
    samples = march_rays(*rays, STEP, 10**6)
    whole = composite_rays(*field(samples.positions), torch.full_like(samples.ts, STEP), samples)
    for result, expected in ((image.image, whole.image), (image.depths, whole.depths)):
        assert relative_error(result, expected) <= 1e-4
    assert relative_error(image.opacities, whole.opacities) <= 1e-4


# --- Streams, devices, graphs, tracing


def work(x, table, layout):
    y = grid_encode(x, table, layout)
    return freq_encode(x, 4), y, *torch.autograd.grad(y.float().square().sum(), (x, table))


def test_runs_on_the_current_stream():
    """Behind work of that stream that takes long, and without waiting for the default one."""
    layout = GridLayout.make(3, 4, 2, 4, 32, 12)
    x, table = grid_inputs(layout, torch.float32, 5000)
    expected = work(x, table, layout)
    late = torch.zeros_like(x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        late.copy_(x.detach())
        late.requires_grad_()
        result = work(late, table, layout)
    stream.synchronize()
    for a, b in zip(result, expected, strict=True):
        torch.testing.assert_close(a, b)
    torch.cuda._sleep(2_000_000_000)  # the default stream is busy for about a second
    busy = torch.cuda.Event()
    busy.record()
    with torch.cuda.stream(stream):
        freq_encode(x.detach(), 4)
    stream.synchronize()
    assert not busy.query()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_runs_on_the_device_of_its_tensors():
    layout = GridLayout.make(3, 4, 2, 4, 32, 12)
    x, table = grid_inputs(layout, torch.float32, 5000)
    expected = work(x, table, layout)
    with torch.cuda.device(0):
        other = [t.detach().to("cuda:1").requires_grad_() for t in (x, table)]
        result = work(*other, layout)
    assert all(t.device.index == 1 for t in result)
    for a, b in zip(result, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b.cpu())
    samples = march_rays(
        *(t.to("cuda:1") for t in scene()[:4]), Occupancy(scene()[4].bits.to("cuda:1"), BOX), STEP
    )
    assert samples.ts.device.index == 1


def test_a_step_is_captured_in_a_graph():
    """March with a capacity, grid, compositing and gradients: nothing waits for the GPU."""
    layout = GridLayout.make(3, 4, 4, 4, 32, 12)
    *rays, occupancy = on_gpu(*scene(500))
    table = (0.5 * torch.randn(layout.entries, 4, device=CUDA)).requires_grad_()

    def step():
        samples = march_rays(*rays, occupancy, STEP, 256, 30_000)
        h = grid_encode((samples.positions + 1) / 2, table, layout).view(-1, 4, 4).sum(1)
        result = composite_rays(
            h[:, 0].exp(), h[:, 1:].sigmoid(), torch.full_like(samples.ts, STEP), samples
        )
        [grad] = torch.autograd.grad(result.image.square().mean(), table)
        return (
            result.image.detach(),
            grad,
        )  # a graph kept alive would tie the table to the stream of its first use

    expected = step()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(result[0], expected[0])
    torch.testing.assert_close(result[1], expected[1])


def test_is_traced():
    layout = GridLayout.make(3, 4, 2, 4, 32, 12)
    x, table = grid_inputs(layout, torch.float32, 500)
    loss = lambda x, table: (
        grid_encode(x, table, layout).square().sum() + total_variation(x, table, layout)
    )
    traced = torch.compile(loss, backend="aot_eager", fullgraph=True)
    result, expected = (torch.autograd.grad(f(x, table), (x, table)) for f in (traced, loss))
    torch.testing.assert_close(result, expected)
