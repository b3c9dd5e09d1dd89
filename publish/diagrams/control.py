"""Diagrams of ControlNet."""

from publish.diagrams.numbers import latent_size, read_config
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
