"""Diagrams of lesson 3 about score distillation."""

from publish.diagrams.svg import Canvas


def sds_loop() -> Canvas:
    """The loop of score distillation: render, encode, add noise, denoise, gradient."""
    canvas = Canvas(
        350,
        "The loop of score distillation",
        "The scene is rendered from a random camera, and the image encoded to latents. Noise is "
        "added, and the frozen U-Net predicts it for the prompt of this view. The predicted minus "
        "the added noise, weighted by omega of t, is the gradient of the latents: it skips the "
        "U-Net and goes back through encoder and renderer to the parameters of the scene.",
    )
    scene = canvas.box(24, 86, 110, 70, "scene", "parameters $θ$", kind="trained")
    render = canvas.box(176, 90, 104, 62, "render", kind="operation")
    encoder = canvas.box(330, 90, 104, 62, "encoder", "(VAE)", kind="network")
    noisy = canvas.box(494, 90, 112, 62, "add noise", kind="operation")
    unet = canvas.box(664, 86, 116, 70, "U-Net", "frozen", kind="network")
    gradient = canvas.box(540, 244, 190, 62, "$ω(t) (ε̂ − ε)$", kind="operation")
    camera = canvas.box(160, 20, 136, 38, "random camera")
    epsilon = canvas.box(482, 20, 136, 38, "random $t$ and $ε$")
    prompt = canvas.box(650, 20, 130, 38, "prompt, view")
    canvas.arrow(camera.bottom, render.top)
    canvas.arrow(epsilon.bottom, noisy.top)
    canvas.arrow(prompt.bottom, (715, 86))
    canvas.arrow(scene.right, render.left)
    canvas.arrow(render.right, encoder.left)
    canvas.text(305, 112, "image", 13)
    canvas.arrow(encoder.right, noisy.left)
    canvas.text(463, 110, "$x_0$", 16)
    canvas.arrow(noisy.right, unet.left)
    canvas.text(634, 110, "$x_t$", 16)
    canvas.arrow((700, 156), (700, 244))
    canvas.text(712, 204, "$ε̂$, guided", 15, anchor="start")
    canvas.arrow((570, 152), (570, 244), color="muted")
    canvas.text(560, 204, "$ε$", 16, anchor="end", color="muted")
    canvas.arrow(
        gradient.left, (79, 275), scene.bottom, color="red", dashes="7 4", width=2.4, head=11
    )
    canvas.text(312, 264, "gradient of $x_0$, backpropagated through", 14, color="red")
    canvas.text(312, 297, "encoder and renderer to $θ$, but not through the U-Net", 14, color="red")
    canvas.text(92, 214, "the optimizer updates $θ$", 14, anchor="start", color="muted")
    return canvas
