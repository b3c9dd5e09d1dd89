"""The checks of lesson 0: its own solutions pass, others too, and each mistake gets its advice."""

from types import ModuleType

import pytest
import torch

from course import notebooks
from course.checks import task_0 as checks
from course.diffusion import add_noise, velocity
from course.plane import NO_LABEL, PointNetwork, average_by_cell, spirals
from tests.course.checks.helpers import assert_advice

INTRODUCTION = notebooks.ROOT / "task_0_Introduction.ipynb"
T, END = 1000, -1
ALPHA_BAR = torch.cat(
    [(1 - torch.linspace(0.00085**0.5, 0.012**0.5, T) ** 2).cumprod(0), torch.ones(1)]
)


def introduction() -> ModuleType:
    """Return the lesson's functions, with the values that its cells compute."""
    module = notebooks.definitions(notebooks.read(INTRODUCTION))
    values = {"END": END, "alpha_bar": module.noise_schedule(T), "data": spirals(), "trange": range}
    module.__dict__.update(values)
    return module


@pytest.fixture(scope="module")
def lesson() -> ModuleType:
    return introduction()


# --- Noise and score


def test_noise_schedule_and_its_mistakes(lesson):
    checks.schedule(lesson.noise_schedule)

    def schedule(values=lambda betas: (1 - betas).cumprod(0), betas=None, last=1.0):
        def noise_schedule(count):
            own = torch.linspace(0.00085**0.5, 0.012**0.5, count) ** 2
            result = values(betas(count) if betas else own)
            return torch.cat([result, torch.tensor([last])])

        return noise_schedule

    checks.schedule(schedule(lambda betas: (1 - betas).log().cumsum(0).exp()))
    checks.schedule(
        schedule(
            lambda betas: torch.stack([(1 - betas)[: i + 1].prod() for i in range(len(betas))])
        )
    )
    for wrong, advice in [
        (lambda count: None, "returns None: is a `return` missing"),
        (lambda count: schedule()(count)[:-1], r"shape \(1000,\).*1 as the last one"),
        (lambda count: schedule()(T), r"alpha_bar of 50 timesteps has the shape \(1001,\)"),
        (schedule(last=0.0), "The last entry is 0: append a 1"),
        (schedule(lambda b: b), "Those are the betas"),
        (schedule(lambda b: 1 - b), "multiply them up"),
        (schedule(lambda b: b.cumprod(0)), "product of the betas"),
        (schedule(lambda b: (1 - b).cumsum(0)), "Those are sums"),
        (schedule(lambda b: 1 - b.cumsum(0)), "1 minus a sum"),
        (schedule(betas=lambda n: torch.linspace(0.00085, 0.012, n)), "their square roots have to"),
        (schedule(betas=lambda n: torch.linspace(0.00085**0.5, 0.012**0.5, n)), r"\*\* 2 is"),
        (schedule(lambda b: (1 - b).cumprod(0).sqrt()), "That is its square root"),
        (schedule(lambda b: 1 - (1 - b).cumprod(0)), "the share of the noise"),
        (schedule(lambda b: (1 - b).cumprod(0).flip(0)), "order is reversed"),
        (schedule(lambda b: torch.cat([b[:1] * 0 + 1, (1 - b).cumprod(0)[:-1]])), "late by one"),
        (schedule(lambda b: (1 - b).cumprod(0) ** 2), "is not the product of all"),
        (schedule(lambda b: b.sub(1).log()), "not finite"),
    ]:
        assert_advice(advice, checks.schedule, wrong)


def test_add_noise_and_its_mistakes(lesson):
    checks.noising(lesson.add_noise)
    checks.noising(lambda x, e, a: torch.lerp(x * 0, x, a**0.5) + e * torch.sqrt(1 - a))
    for wrong, advice in [
        (lambda x, e, a: None, "returns None: is a `return` missing"),
        (lambda x, e, a: a * x + (1 - a) * e, "The square roots are missing"),
        (lambda x, e, a: add_noise(e, x, a), "factors are exchanged"),
        (lambda x, e, a: a.sqrt() * x + (1 - a.sqrt()) * e, r"not 1 - sqrt\(alpha_bar\)"),
        (lambda x, e, a: a.sqrt() * x + (1 - a) * e, "The noise needs its square root"),
        (lambda x, e, a: a * x + (1 - a).sqrt() * e, "x_0 needs its square root"),
        (lambda x, e, a: a.sqrt() * x + e, "The noise is not scaled"),
        (lambda x, e, a: x + (1 - a).sqrt() * e, "x_0 is not scaled"),
        (lambda x, e, a: a.sqrt() * x - (1 - a).sqrt() * e, "added, not subtracted"),
        (lambda x, e, a: add_noise(x, torch.randn_like(x), a), "Two calls differ"),
        (lambda x, e, a: add_noise(x, e, a).mean(), r"x_t has the shape \(\)"),
        (lambda x, e, a: x, "That is not sqrt"),
    ]:
        assert_advice(advice, checks.noising, wrong)


def test_score_and_its_mistakes(lesson):
    checks.score(lesson.score_from_noise)
    checks.score(lambda e, a: e * -((1 - a) ** -0.5))
    for wrong, advice in [
        (lambda e, a: e / (1 - a).sqrt(), "The sign is off"),
        (lambda e, a: -e / (1 - a), "square root of 1 - alpha_bar"),
        (lambda e, a: -e * (1 - a).sqrt(), "do not multiply"),
        (lambda e, a: -e / a.sqrt(), "1 minus is missing"),
        (lambda e, a: -e, "division by sqrt"),
        (lambda e, a: -2 * e, "That is not -noise"),
        (lambda e, a: -e / (a - 1).sqrt(), "not finite"),
    ]:
        assert_advice(advice, checks.score, wrong)


def test_average_score_and_its_mistakes(lesson):
    checks.average_score(lesson.average_score)

    def average(
        points=lambda x_0, x_t, e: x_t, vectors=lambda x_t, e, a: -e / (1 - a).sqrt(), t=None
    ):
        def average_score(x_0, given):
            a = ALPHA_BAR[given if t is None else t]
            noise = torch.randn_like(x_0)
            x_t = add_noise(x_0, noise, a)
            return average_by_cell(points(x_0, x_t, noise), vectors(x_t, noise, a))

        return average_score

    checks.average_score(average())
    checks.average_score(
        lambda x, t: average()(x, t).double()  # in another precision
    )
    for wrong, advice in [
        (lambda x, t: None, "returns None: is a `return` missing"),
        (average(vectors=lambda x, e, a: e), "averages of the noise"),
        (average(vectors=lambda x, e, a: e / (1 - a).sqrt()), "The sign is off"),
        (average(points=lambda x_0, x_t, e: x_0), "lie in one cell: hand x_t over"),
        (average(points=lambda x_0, x_t, e: e), "around the noise"),
        (average(vectors=lambda x, e, a: x), "averages of the positions"),
        (average(t=0), r"lie in one cell.*alpha_bar\[t\]"),
        (average(t=700), "not those of the scores"),
        (average(vectors=lambda x, e, a: -e / (1 - a)), "not those of the scores"),
        (average(vectors=lambda x, e, a: -e), "not those of the scores"),
        (lambda x, t: -torch.randn_like(x), r"shape \(200000, 2\).*average_by_cell returns it"),
        (lambda x, t: average_by_cell(x), "Your code raised TypeError.*positional argument"),
    ]:
        assert_advice(advice, checks.average_score, wrong)


# --- Losses and training


def loss_with(
    t=lambda x: torch.randint(T, (len(x),)),
    noise=torch.randn_like,
    mix=add_noise,
    target=lambda x_0, e, x_t, a: e,
    reduce=lambda difference: difference.square().mean(),
    call=lambda network, x_t, t, label: network(x_t, t, label),
):
    """A training loss with one part of another kind."""

    def training_loss(network, x_0, label=None):
        times, e = t(x_0), noise(x_0)
        a = ALPHA_BAR[times].reshape(-1, 1)
        x_t = mix(x_0, e, a)
        return reduce(call(network, x_t, times, label) - target(x_0, e, x_t, a))

    return training_loss


def v_of(x_0, e, x_t, a):
    return velocity(x_0, e, a)


# What is wrong in the same way with noise and with v as the target.
COMMON_MISTAKES = [
    ({"reduce": lambda d: d.square()}, r"The loss has the shape \(4000, 2\).*\.mean\(\)"),
    ({"reduce": lambda d: d.square().mean().detach()}, "The loss has no gradient"),
    ({"reduce": lambda d: d.square().mean().item()}, r"The loss is a float"),
    ({"call": lambda n, x, t, label: n(x, t)}, "does not get the labels"),
    (
        {"call": lambda n, x, t, label: n(x, t[:, None], label)},
        r"timesteps of the shape \(4000, 1\)",
    ),
    ({"t": lambda x: torch.randint(T, ())}, "All points have one timestep"),
    ({"t": lambda x: torch.randint(T // 2, (len(x),))}, "lie between 0 and 499"),
    ({"t": lambda x: torch.randint(10, (len(x),)) * 111}, "Many points share a timestep"),
    ({"t": lambda x: (torch.rand(len(x)) ** 2 * T).long()}, "not uniform"),
    ({"noise": torch.rand_like}, "The noise is uniform"),
    ({"noise": lambda x: torch.randn(len(x), 1).expand(-1, 2)}, "Both coordinates"),
    ({"noise": lambda x: torch.randn(1, 2).expand(len(x), -1)}, "All points get the same noise"),
]


def test_training_loss_and_its_mistakes(lesson):
    checks.loss(lesson.training_loss)
    checks.loss(loss_with(reduce=lambda d: (d**2).sum() / d.numel()))
    checks.loss(loss_with(t=lambda x: (torch.rand(len(x)) * T).long()))
    checks.loss(loss_with(noise=lambda x: torch.normal(0.0, 1.0, x.shape)))
    for change, advice in [
        *COMMON_MISTAKES,
        ({"mix": lambda x, e, a: x}, "clean points: give it x_t"),
        ({"mix": lambda x, e, a: a * x + (1 - a) * e}, "does not hold standard normal noise"),
        ({"mix": lambda x, e, a: x + e}, "does not hold standard normal noise"),
        ({"call": lambda n, x, t, label: n(x, T - 1 - t, label)}, "does not hold standard normal"),
        ({"reduce": lambda d: d.square().sum()}, "sum of the squares"),
        ({"reduce": lambda d: d.abs().mean()}, "mean of absolute values|Half of the mean"),
        ({"reduce": lambda d: d.square().sum(1).mean()}, "sum over the coordinates"),
        ({"reduce": lambda d: d.square().mean() / 2}, "mean of absolute values|Half of the mean"),
        ({"target": lambda x_0, e, x_t, a: x_0}, "compared with x_0"),
        ({"target": lambda x_0, e, x_t, a: x_t}, "compared with x_t"),
        ({"target": lambda x_0, e, x_t, a: -e}, "wrong sign"),
        ({"target": lambda x_0, e, x_t, a: (1 - a).sqrt() * e}, "not sqrt"),
        ({"target": lambda x_0, e, x_t, a: torch.randn_like(e)}, "draw the noise once"),
    ]:
        assert_advice(advice, checks.loss, loss_with(**change))
    for wrong, advice in [
        (lambda n, x, label: None, "returns None: is a `return` missing"),
        (lambda n, x, label: torch.ones(()), "The network was not called"),
        (lambda n, x, label: n(x, torch.zeros(len(x))).mean() + n(x, 0).mean(), "several times"),
    ]:
        assert_advice(advice, checks.loss, wrong)


def train_with(
    network=PointNetwork, optimizer=None, batch=None, step=None, seed=0, result=None, steps=None
):
    """A training loop with one part of another kind."""

    def own_step(loss, optimizer):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def train(loss_function, count=10):
        if seed is not None:
            torch.manual_seed(seed)
        data, trained, losses = spirals(), network(), []
        first = data.sample(64)
        adam = (optimizer or (lambda p: torch.optim.Adam(p, 1e-2)))(trained.parameters())
        for _ in range(steps or count):
            x_0, label = batch(first, data) if batch else data.sample(64)
            loss = loss_function(trained, x_0, label)
            (step or own_step)(loss, adam)
            losses.append(loss.item())
        return result(trained, losses) if result else (trained, losses)

    return train


def test_training_and_its_mistakes(lesson):
    checks.training(lesson.train)
    checks.training(train_with(optimizer=lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9)))
    checks.training(train_with(seed=7))

    def backward(loss, optimizer):
        loss.backward()

    def without_zero(loss, optimizer):
        loss.backward()
        optimizer.step()

    def zero_after(loss, optimizer):
        loss.backward()
        optimizer.zero_grad()
        optimizer.step()

    def no_backward(loss, optimizer):
        optimizer.step()

    class Fresh:
        """A loss is computed with a new network in each step."""

        def __call__(self, loss_function, count=10):
            torch.manual_seed(0)
            losses = []
            for _ in range(count):
                network = PointNetwork()
                losses.append(loss_function(network, *spirals().sample(8)).item())
            return network, losses

    for wrong, advice in [
        (lambda loss, steps: None, "returns None: is a `return` missing"),
        (train_with(result=lambda n, losses: n), "return network, losses"),
        (train_with(result=lambda n, losses: (losses, n)), "has to be the network"),
        (train_with(result=lambda n, losses: (PointNetwork(), losses)), "not the trained one"),
        (train_with(result=lambda n, losses: (n, losses[-1])), "a list with one number"),
        (train_with(result=lambda n, losses: (n, list(map(torch.tensor, losses)))), r"loss\.item"),
        (train_with(steps=1), "For 6 steps the loss was computed 1 times"),
        (train_with(batch=lambda first, data: first), "Every step has the same batch"),
        (
            train_with(batch=lambda first, data: (data.sample(8)[0], None)),
            "does not get the labels",
        ),
        (train_with(step=backward), r"weights do not change.*optimizer\.step"),
        (train_with(step=zero_after), "weights do not change"),
        (train_with(step=no_backward), "No gradient was computed"),
        (train_with(step=without_zero), "Gradients pile up"),
        (train_with(optimizer=lambda p: torch.optim.Adam(p, 1e-2, maximize=True)), "loss grows"),
        (train_with(seed=None), "Two runs differ"),
        (Fresh(), "a new network in each step"),
    ]:
        assert_advice(advice, checks.training, wrong)


def test_hidden_labels_and_their_mistakes(lesson):
    checks.hidden_labels(lesson.loss_with_labels)

    def hide(change, loss=lesson.training_loss):
        return lambda network, x_0, label: loss(network, x_0, change(label))

    def copied(label):
        label = label.clone()
        label[torch.rand(len(label)) < 0.2] = NO_LABEL
        return label

    def in_place(label):
        label[torch.rand(len(label)) < 0.2] = NO_LABEL
        return label

    def share(part, hidden=NO_LABEL):
        return lambda label: torch.where(torch.rand(len(label)) < part, hidden, label)

    checks.hidden_labels(hide(copied))
    fixed = torch.rand(5000) < 0.2
    for wrong, advice in [
        (lambda n, x, label: None, "returns None: is a `return` missing"),
        (lambda n, x, label: torch.ones(()), "The network was not called"),
        (hide(in_place), "changed in place"),
        (hide(lambda label: None), "does not get a label for each point"),
        (hide(lambda label: label), "No label is hidden"),
        (hide(share(0.2, hidden=0)), "No label is hidden"),
        (hide(share(2.0)), "All labels are hidden"),
        (hide(share(0.8)), "Four in five"),
        (hide(share(0.5)), r"5\d% of the labels"),
        (hide(lambda label: copied(1 - label)), "labels that stay have changed"),
        (
            hide(lambda label: torch.where((torch.rand(5000) < 0.4) & (label == 0), 2, label)),
            "Labels of one class",
        ),
        (hide(lambda label: torch.where(fixed, NO_LABEL, label)), "same labels are hidden in each"),
        (hide(copied, loss_with(reduce=lambda d: d.square().sum())), "loss is not that of"),
    ]:
        assert_advice(advice, checks.hidden_labels, wrong)


def test_v_loss_and_its_mistakes(lesson):
    checks.v_loss(lesson.v_loss)
    checks.v_loss(loss_with(target=v_of, t=lambda x: (torch.rand(len(x)) * T).long()))
    checks.v_loss(loss_with(target=lambda x_0, e, x_t, a: (e - (1 - a).sqrt() * x_t) / a.sqrt()))
    for change, advice in [
        *COMMON_MISTAKES,
        ({"mix": lambda x, e, a: a * x + (1 - a) * e}, r"not the noisy point of \(b\)"),
        ({"target": lambda x_0, e, x_t, a: e}, "target is still the noise"),
        ({"target": lambda x_0, e, x_t, a: x_0}, "The target is x_0"),
        ({"target": lambda x_0, e, x_t, a: -velocity(x_0, e, a)}, "sign of v is off"),
        ({"target": lambda x_0, e, x_t, a: a.sqrt() * e + (1 - a).sqrt() * x_0}, "has a plus"),
        ({"target": lambda x_0, e, x_t, a: (1 - a).sqrt() * e - a.sqrt() * x_0}, "exchanged"),
        ({"target": lambda x_0, e, x_t, a: a * e - (1 - a) * x_0}, "square roots are missing"),
        ({"target": lambda x_0, e, x_t, a: a.sqrt() * e - (1 - a).sqrt() * x_t}, "has x_t"),
        ({"reduce": lambda d: d.square().sum()}, "not v, or the loss is not the mean"),
    ]:
        assert_advice(advice, checks.v_loss, loss_with(**({"target": v_of} | change)))


def flow_with(
    tau=lambda x: torch.rand(len(x)),
    mix=lambda x, e, s: (1 - s) * x + s * e,
    target=lambda x_0, e, x_t: e - x_0,
    time=lambda tau: T * tau,
    reduce=lambda d: d.square().mean(),
    noise=torch.randn_like,
):
    """A loss of flow matching with one part of another kind."""

    def flow_loss(network, x_0, label=None):
        share, e = tau(x_0), noise(x_0)
        x_t = mix(x_0, e, share.reshape(-1, 1))
        return reduce(network(x_t, time(share), label) - target(x_0, e, x_t))

    return flow_loss


def test_flow_loss_and_its_mistakes(lesson):
    checks.flow_loss(lesson.flow_loss)
    checks.flow_loss(flow_with(mix=torch.lerp))
    checks.flow_loss(flow_with(mix=lambda x, e, s: x + s * (e - x)))
    for change, advice in [
        ({"time": lambda tau: tau}, r"tau from 0 to 1: it takes timesteps"),
        ({"tau": lambda x: torch.rand(())}, "All points have one timestep"),
        ({"tau": lambda x: torch.rand(len(x)) / 2}, "lie between"),
        ({"tau": lambda x: torch.rand(len(x)) ** 2}, "not uniform"),
        ({"mix": lambda x, e, s: s * x + (1 - s) * e}, r"not \(1 - tau\) x_0 \+ tau noise"),
        ({"mix": lambda x, e, s: (1 - s).sqrt() * x + s.sqrt() * e}, r"not \(1 - tau\) x_0"),
        ({"time": lambda tau: T * (1 - tau)}, r"not \(1 - tau\) x_0"),
        ({"target": lambda x_0, e, x_t: e}, "The target is the noise"),
        ({"target": lambda x_0, e, x_t: x_0 - e}, "The sign is off"),
        ({"target": lambda x_0, e, x_t: x_0}, "The target is x_0"),
        ({"target": lambda x_0, e, x_t: e - x_t}, "noise - x_t"),
        ({"target": lambda x_0, e, x_t: x_t - x_0}, "x_t - x_0"),
        ({"target": lambda x_0, e, x_t: e + x_0}, "is a sum"),
        ({"reduce": lambda d: d.square().sum()}, "not noise - x_0, or the loss"),
        ({"reduce": lambda d: d.square()}, "Average over all points"),
    ]:
        assert_advice(advice, checks.flow_loss, flow_with(**change))


# --- Sampling


def test_ddpm_step_and_its_mistakes(lesson):
    checks.ddpm(lesson.ddpm_step)

    def step(
        alpha=lambda a, b: a / b,
        factor=lambda al, a: (1 - al) / (1 - a).sqrt(),
        scale=lambda al: al.sqrt(),
        sigma=lambda al, a, b: ((1 - b) / (1 - a) * (1 - al)).sqrt(),
        sign=-1,
    ):
        def ddpm_step(x_t, noise, a, b, fresh):
            al = alpha(a, b)
            return (x_t + sign * factor(al, a) * noise) / scale(al) + sigma(al, a, b) * fresh

        return ddpm_step

    def from_x_0(x_t, noise, a, b, fresh):
        """Equation 7 of the paper: the mean of x_0 and x_t."""
        al, x_0 = a / b, (x_t - (1 - a).sqrt() * noise) / a.sqrt()
        mean = b.sqrt() * (1 - al) / (1 - a) * x_0 + al.sqrt() * (1 - b) / (1 - a) * x_t
        return mean + ((1 - b) / (1 - a) * (1 - al)).sqrt() * fresh

    checks.ddpm(step())
    checks.ddpm(from_x_0)
    right = lesson.ddpm_step
    for wrong, advice in [
        (lambda *_: None, "returns None: is a `return` missing"),
        (step(sigma=lambda al, a, b: 0), "fresh noise is missing"),
        (step(sigma=lambda al, a, b: 1), "fresh noise is not scaled"),
        (step(sigma=lambda al, a, b: (1 - b) / (1 - a) * (1 - al)), r"sigma\^2: take the"),
        (step(sigma=lambda al, a, b: (1 - al).sqrt()), r"That sigma is sqrt\(1 - alpha\)"),
        (step(sigma=lambda al, a, b: (1 - b).sqrt()), r"by sqrt\(1 - alpha_bar_prev\)"),
        (step(alpha=lambda a, b: a, sigma=lambda al, a, b: (1 - b).sqrt()), "not alpha_bar"),
        (step(scale=lambda al: 1), r"division by sqrt\(alpha\) is missing"),
        (step(scale=lambda al: al), "Divide by the square root of alpha"),
        (step(sign=1), "The predicted noise is added"),
        (step(factor=lambda al, a: 1), "subtracted whole"),
        (step(factor=lambda al, a: (1 - al) / (1 - a)), "the root is missing"),
        (step(factor=lambda al, a: (1 - al).sqrt()), r"not sqrt\(1 - alpha\)"),
        (lambda x, e, a, b, z: right(x, z, a, b, e), "are exchanged"),
        (lambda x, e, a, b, z: right(x, e, a, b, torch.randn_like(x)), "Two calls differ"),
        (step(alpha=lambda a, b: b / a), "not finite"),
        (lambda x, e, a, b, z: right(x, e, a, b, z)[0], r"has the shape \(2,\)"),
        (lambda x, e, a, b, z: x, "compare each factor"),
        (lambda x, e, a, b, z: right(x, e, a, b, z) + (z if b == 1 else 0), "no noise may remain"),
    ]:
        assert_advice(advice, checks.ddpm, wrong)


def test_ddim_step_and_its_mistakes(lesson):
    checks.ddim(lesson.ddim_step)

    def x_0(x, e, a):
        return (x - (1 - a).sqrt() * e) / a.sqrt()

    checks.ddim(lambda x, e, a, b, z: b.sqrt() * x_0(x, e, a) + (1 - b).sqrt() * e)
    checks.ddim(
        lambda x, e, a, b, z: (b / a).sqrt() * x + ((1 - b).sqrt() - (b / a * (1 - a)).sqrt()) * e
    )
    for wrong, advice in [
        (lambda *_: None, "returns None: is a `return` missing"),
        (lambda x, e, a, b, z: x_0(x, e, a), "That is x_0"),
        (lambda x, e, a, b, z: b.sqrt() * x_0(x, e, a), "only the part of x_0"),
        (lambda x, e, a, b, z: add_noise(x_0(x, e, a), e, a), "leads back to x_t"),
        (lambda x, e, a, b, z: b.sqrt() * x_0(x, e, a) + (1 - a).sqrt() * e, "share of noise is"),
        (lambda x, e, a, b, z: a.sqrt() * x_0(x, e, a) + (1 - b).sqrt() * e, "share of x_0 is"),
        (lambda x, e, a, b, z: add_noise(x_0(x, -e, a), e, b), "wrong sign"),
        (lambda x, e, a, b, z: add_noise(x - (1 - a).sqrt() * e, e, b), r"divide by sqrt"),
        (lambda x, e, a, b, z: add_noise((x - (1 - a).sqrt() * e) / a, e, b), "by the square root"),
        (lambda x, e, a, b, z: b * (x - (1 - a) * e) / a + (1 - b) * e, "square roots are missing"),
        (lambda x, e, a, b, z: b * x_0(x, e, a) + (1 - b) * e, "last line lacks"),
        (lambda x, e, a, b, z: add_noise(x_0(x, e, a), z, b), "fresh noise in it"),
        (lambda x, e, a, b, z: add_noise(x_0(x, e, b), e, a), "are exchanged"),
        (lambda x, e, a, b, z: lesson.ddpm_step(x, e, a, b, z), "That is a step of DDPM"),
        (lambda x, e, a, b, z: x - e, "That is not sqrt"),
        (lambda x, e, a, b: x, "Your code raised TypeError.*positional argument"),
    ]:
        assert_advice(advice, checks.ddim, wrong)


def sample_with(
    times=lambda count: [T - 1 - i * T // count for i in range(count)],
    after=lambda chosen: [*chosen[1:], END],
    schedule=lambda t: ALPHA_BAR[t],
    fresh=torch.randn_like,
    result=torch.stack,
    advance=lambda predict, step, x, start, t, a, b, z: step(x, predict(x, t), a, b, z),
    no_grad=True,
):
    """A sampling loop with one part of another kind."""

    def sample(predict, step, x, count):
        with torch.set_grad_enabled(not no_grad):
            states, chosen, start = [x], times(count), x
            for t, t_prev in zip(chosen, after(chosen), strict=True):
                a, b = schedule(t), ALPHA_BAR[t_prev]
                x = advance(predict, step, x, start, t, a, b, fresh(x))
                states.append(x)
            return result(states)

    return sample


def test_sampling_loop_and_its_mistakes(lesson):
    checks.loop(lesson.sample)
    checks.loop(
        sample_with(
            advance=lambda p, s, x, start, t, a, b, z: s(x, p(x, torch.full((len(x),), t)), a, b, z)
        )
    )
    checks.loop(sample_with(result=lambda states: torch.cat([x[None] for x in states])))
    once = torch.randn(500, 2)
    for change, advice in [
        ({"times": lambda n: [T - 1 - i * T // n for i in range(n)][::-1]}, "The timesteps rise"),
        ({"times": lambda n: list(range(n - 1, -1, -1))}, "predict gets the timesteps"),
        ({"times": lambda n: [T - i * T // n for i in range(n)]}, "predict gets the timesteps"),
        ({"times": lambda n: [999]}, "For 4 steps predict was called 1 times"),
        ({"after": lambda c: [*c[1:], 0]}, "The last step has to lead to alpha_bar"),
        ({"after": lambda c: [*(t - 1 for t in c[:-1]), END]}, "leads to 998; the next timestep"),
        ({"after": lambda c: [END for _ in c]}, r"has to lead to alpha_bar\[749\]"),
        ({"schedule": lambda t: ALPHA_BAR[t] ** 2}, "is not alpha_bar"),
        ({"schedule": lambda t: 1 - ALPHA_BAR[t]}, "is not alpha_bar"),
        ({"fresh": lambda x: None}, "gets no fresh noise"),
        ({"fresh": torch.zeros_like}, "The fresh noise is the same"),
        ({"fresh": lambda x: once}, "The fresh noise is the same"),
        ({"fresh": torch.rand_like}, "not standard normal"),
        ({"fresh": lambda x: torch.randn(2)}, r"The fresh noise has the shape \(2,\)"),
        ({"result": lambda states: states}, r"return torch\.stack\(states\)"),
        ({"result": lambda states: states[-1]}, "Only the last state"),
        ({"result": lambda states: torch.stack(states[1:])}, "The start, and the result"),
        ({"result": lambda states: torch.stack(states[::-1])}, "reversed order"),
        ({"result": lambda states: torch.stack([states[0]] * len(states))}, "not the start and"),
        ({"no_grad": False}, "records gradients"),
        (
            {"advance": lambda p, s, x, start, t, a, b, z: s(x, p(start, t), a, b, z)},
            "predict has to get the result",
        ),
        (
            {"advance": lambda p, s, x, start, t, a, b, z: s(start, p(x, t), a, b, z)},
            "other points than predict",
        ),
        (
            {"advance": lambda p, s, x, start, t, a, b, z: s(x, z + 0 * p(x, t), a, b, z)},
            "does not get the noise that predict",
        ),
        (
            {"advance": lambda p, s, x, start, t, a, b, z: p(x, t) + x},
            "`step` was called 0 times",
        ),
    ]:
        assert_advice(advice, checks.loop, sample_with(**change))


def test_guidance_and_its_mistakes(lesson):
    checks.guidance(lesson.guided_noise)

    def in_one_batch(network, x_t, t, label, w):
        labels = torch.cat(
            [torch.full((len(x_t),), NO_LABEL), torch.as_tensor(label).expand(len(x_t))]
        )
        uncond, cond = network(torch.cat([x_t, x_t]), t, labels).chunk(2)
        return torch.lerp(uncond, cond, w)

    def combine(formula):
        return lambda n, x, t, label, w: formula(n(x, t), n(x, t, label), w)

    checks.guidance(in_one_batch)
    checks.guidance(combine(lambda u, c, w: (1 - w) * u + w * c))
    for wrong, advice in [
        (combine(lambda u, c, w: None), "returns None: is a `return` missing"),
        (combine(lambda u, c, w: c + w * (c - u)), "wrong term"),
        (combine(lambda u, c, w: (1 + w) * c - w * u), "their w is our w - 1"),
        (combine(lambda u, c, w: u - w * (c - u)), "away from the label"),
        (combine(lambda u, c, w: u + w * c), "Scale the difference"),
        (combine(lambda u, c, w: w * (c - u)), "add it to `uncond`"),
        (combine(lambda u, c, w: c), "`w` makes no difference"),
        (lambda n, x, t, label, w: n(x, t) + w * (n(x, t) - n(x, t)), "label makes no difference"),
        (combine(lambda u, c, w: c + w * (u - c)), "`uncond` and `cond` are exchanged"),
        (combine(lambda u, c, w: w * c), "scaled as a whole"),
        (combine(lambda u, c, w: u + w * (c - u) / 2), r"At w = 3 that is not uncond"),
        (combine(lambda u, c, w: u + max(w, 1) * (c - u)), "At w = 0 it is not uncond"),
        (lambda n, x, t, label: n(x, t, label), "Your code raised TypeError.*positional argument"),
    ]:
        assert_advice(advice, checks.guidance, wrong)


def test_noise_from_v_and_its_mistakes(lesson):
    checks.noise_of_v(lesson.noise_from_v)
    checks.noise_of_v(
        lambda x, v, a: (x - a.sqrt() * (a.sqrt() * x - (1 - a).sqrt() * v)) / (1 - a).sqrt()
    )
    for wrong, advice in [
        (lambda x, v, a: a.sqrt() * x - (1 - a).sqrt() * v, "That is x_0"),
        (lambda x, v, a: v, "That is v itself"),
        (lambda x, v, a: (1 - a).sqrt() * x - a.sqrt() * v, "both terms are added"),
        (lambda x, v, a: a.sqrt() * x + (1 - a).sqrt() * v, "factors are exchanged"),
        (lambda x, v, a: (1 - a) * x + a * v, "square roots are missing"),
        (lambda x, v, a: a.sqrt() * v, "part of x_t is missing"),
        (lambda x, v, a: x, "That is not sqrt"),
    ]:
        assert_advice(advice, checks.noise_of_v, wrong)


def test_flow_sampling_and_its_mistakes(lesson):
    checks.flow_sampling(lesson.sample_flow)

    def euler(
        tau=lambda i, n: 1 - i / n, time=T, length=lambda n: 1 / n, sign=-1, result=torch.stack
    ):
        def sample_flow(network, x, count):
            states = [x]
            for i in range(count):
                x = x + sign * length(count) * network(x, time * tau(i, count))
                states.append(x)
            return result(states)

        return sample_flow

    checks.flow_sampling(euler())
    checks.flow_sampling(euler(tau=lambda i, n: torch.linspace(1, 0, n + 1)[i]))

    def in_place(network, x, count):
        for i in range(count):
            x -= network(x, T * (1 - i / count)) / count
        return torch.stack([x] * (count + 1))

    def all_from_the_start(network, x, count):
        steps = [x] + [x - network(x, T * (1 - i / count)) / count for i in range(count)]
        return torch.stack(steps)

    for wrong, advice in [
        (lambda n, x, count: None, "returns None: is a `return` missing"),
        (in_place, "changed in place"),
        (lambda n, x, count: torch.stack([x, x - n(x, T)]), "called 1 times"),
        (euler(time=1), r"T \* tau"),
        (euler(tau=lambda i, n: i / n), "tau rises"),
        (euler(tau=lambda i, n: 1 - (i + 1) / n), r"begins at tau = 1 - i / count"),
        (euler(tau=lambda i, n: 1 - i / (n - 1)), r"begins at tau = 1 - i / count"),
        (euler(result=lambda states: states), "Return all states"),
        (euler(result=lambda states: states[-1]), "Return all states"),
        (euler(result=lambda states: torch.stack(states[1:])), "The start, and each"),
        (euler(sign=1), "The sign is off"),
        (euler(length=lambda n: 1), "steps are too long"),
        (euler(length=lambda n: 0.5 / n), "A step is not"),
        (all_from_the_start, "A step is not"),
    ]:
        assert_advice(advice, checks.flow_sampling, wrong)


# --- The challenge and the token


def test_challenge_and_its_mistakes(lesson, capsys):
    checks.challenge(lesson.fast_sample)
    assert "with 8 calls" in capsys.readouterr().out

    def solve(times, second_order=False):
        def fast_sample(predict, x):
            before = None
            for t, t_prev in zip(times, [*times[1:], END], strict=True):
                noise = predict(x, t)
                used = 1.5 * noise - 0.5 * before if second_order and before is not None else noise
                x = lesson.ddim_step(x, used, ALPHA_BAR[t], ALPHA_BAR[t_prev])
                before = noise
            return x

        return fast_sample

    equal = [T - 1 - i * T // 8 for i in range(8)]
    checks.challenge(solve(equal, second_order=True))
    for wrong, advice in [
        (lambda predict, x: None, "returns None: is a `return` missing"),
        (lambda predict, x: x, "predict was not called"),
        (solve(equal), r"distance to the data is 0\.\d+ after 8 calls; the goal is 0\.05"),
        (solve(list(range(999, 0, -100))), "predict may be called 8 times"),
        (solve([1000, 500]), "timesteps from 0 to 999, got 1000"),
        (lambda predict, x: (predict(x, 999), x)[1][:10], r"shape \(10, 2\).*one for each start"),
        (lambda predict, x: predict(x, 999), "distance to the data"),
        (lambda predict, x: predict(x, 5) * float("nan"), "not finite"),
    ]:
        assert_advice(advice, checks.challenge, wrong)


def test_token_is_never_printed(capsys):
    checks.token(None)
    checks.token("hf_secret")
    assert "secret" not in capsys.readouterr().out
    assert_advice("still empty", checks.token, ...)
    assert_advice('starts with "hf_"', checks.token, "secret")
    assert_advice("is a int", checks.token, 3)
