"""Diagrams of ControlNet."""

from publish.diagrams.data import latent_size, read_config
from publish.diagrams.svg import Canvas


def controlnet() -> Canvas:
    """ControlNet beside the U-Net: a trained copy of the encoder, and zero convolutions."""
    channels = read_config("unet", "config.json")["block_out_channels"]
    sides = [latent_size()[1] // 2**i for i in range(len(channels))]
    canvas = Canvas(
        540,
        "ControlNet beside the U-Net",
        "On the left the U-Net, whose weights are frozen: encoder, middle and decoder, with skip "
        "connections. On the right the ControlNet, a trained copy of encoder and middle, which "
        "also reads the condition. Its outputs pass zero convolutions, are multiplied by the "
        "control scale s and added to the skip connections and to the middle.",
    )
    canvas.text(240, 28, "U-Net, frozen", 16, bold=True, color="blue")
    canvas.text(650, 28, "ControlNet, trained", 16, bold=True, color="red")
    x_t = canvas.box(30, 46, 130, 44, "noisy latents $x_t$")
    output = canvas.box(320, 46, 130, 44, "noise $ε̂$")
    x_copy = canvas.box(500, 46, 110, 44, "$x_t$")
    condition = canvas.box(640, 46, 130, 44, "condition $c$")
    hint = canvas.box(640, 112, 130, 44, "convolutions", kind="trained")
    for index, row in enumerate(("each level has several", "skip connections;", "one is shown")):
        canvas.text(240, 126 + 18 * index, row, 13, color="muted")
    plus = canvas.operator(555, 134, "+")
    canvas.arrow(x_copy.bottom, plus.top)
    canvas.arrow(condition.bottom, hint.top)
    canvas.arrow(hint.left, plus.right)
    rows = [196, 276, 356]
    above = (x_t, plus, output)
    for y, side, width in zip(rows, sides, channels, strict=True):
        size = f"{side} × {side}, {width}"
        down = canvas.box(30, y, 130, 46, "encoder", size, kind="network")
        up = canvas.box(320, y, 130, 46, "decoder", size, kind="network")
        copy = canvas.box(490, y, 130, 46, "encoder copy", size, kind="trained")
        canvas.arrow(above[0].bottom, down.top)
        canvas.arrow(above[1].bottom, copy.top)
        canvas.arrow(up.top, above[2].bottom)
        add = canvas.operator(240, y + 23, "+")
        canvas.arrow(down.right, add.left)
        canvas.arrow(add.right, up.left)
        zero = canvas.box(652, y + 3, 118, 40, "zero conv.", kind="trained")
        canvas.arrow(copy.right, zero.left)
        # Past the decoder, in the gap below it, to the skip connection.
        canvas.arrow(zero.bottom, (711, y + 61), (240, y + 61), add.bottom, color="red")
        canvas.text(640, y + 57, "× $s$", 14, anchor="end", color="red")
        above = (down, copy, up)
    middle = canvas.box(30, 446, 130, 46, "middle", kind="network")
    copy = canvas.box(490, 446, 130, 46, "middle copy", kind="trained")
    zero = canvas.box(652, 449, 118, 40, "zero conv.", kind="trained")
    add = canvas.operator(385, 469, "+")
    canvas.arrow(above[0].bottom, middle.top)
    canvas.arrow(above[1].bottom, copy.top)
    canvas.arrow(copy.right, zero.left)
    canvas.arrow(zero.bottom, (711, 508), (385, 508), add.bottom, color="red")
    canvas.text(640, 504, "× $s$", 14, anchor="end", color="red")
    canvas.arrow(middle.right, add.left)
    canvas.arrow(add.top, above[2].bottom)
    note = "$t$ and the prompt go into all blocks of both networks; $s$ is the control scale"
    canvas.text(400, 530, note, 13, color="muted")
    return canvas


def zero_convolution() -> Canvas:
    """Why a convolution that starts at zero learns, in its first steps."""
    canvas = Canvas(
        396,
        "A zero convolution in training",
        "Three rows. At the start weight and bias are zero: the output is 0 and the U-Net works as "
        "before; the gradient of the weight is not zero, but the copy gets none. After the first "
        "step the weight is not zero: the copy gets a gradient too. Later control emerges.",
    )
    rows = [
        ("at the start", "$Z$ = 0", "0", "0", "is the U-Net’s own"),
        ("after the first step", "$Z$ ≠ 0", "small", "small", "changes a little"),
        ("trained", "$Z$ ≠ 0", "control", "full", "follows the condition"),
    ]
    for index, (when, state, forward, backward, effect) in enumerate(rows):
        y = 52 + 126 * index
        canvas.text(24, y - 14, when, 15, anchor="start", bold=True)
        copy = canvas.box(24, y, 150, 58, "encoder copy", kind="trained")
        zero = canvas.box(300, y, 130, 58, "zero conv.", state, kind="trained")
        plus = canvas.operator(566, y + 20, "+")
        skip = (566, y - 22)
        output = canvas.box(624, y - 8, 160, 58, "output", effect, kind="network")
        canvas.arrow(copy.point(1, 0.35), zero.point(0, 0.35))
        canvas.text(237, y + 12, "features", 14)
        canvas.arrow(zero.point(1, 0.35), plus.left)
        canvas.text(490, y + 12, forward, 14)
        canvas.arrow(skip, plus.top, color="muted")
        canvas.text(576, y - 14, "skip", 13, anchor="start", color="muted")
        canvas.arrow(plus.right, output.point(0, 28 / 58))
        canvas.arrow(
            output.point(0.5, 1),
            (704, y + 68),
            (365, y + 68),
            zero.bottom,
            color="red",
            dashes="7 4",
        )
        dead = index == 0
        canvas.arrow(
            zero.point(0, 0.78),
            copy.point(1, 0.78),
            color="muted" if dead else "red",
            dashes="2 5" if dead else "7 4",
        )
        canvas.text(237, y + 64, f"gradient: {backward}", 14, color="muted" if dead else "red")
        canvas.text(536, y + 62, "gradient of $Z$: not 0", 14, color="red")
    return canvas
