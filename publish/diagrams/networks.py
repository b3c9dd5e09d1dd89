"""Diagrams of the networks: the parts of latent diffusion, the U-Net and its attention."""

import numpy as np

from publish.diagrams.data import latent_size, read_config
from publish.diagrams.svg import Canvas


def latent_diffusion() -> Canvas:
    """The parts of a latent diffusion model, from prompt and noise to the image."""
    channels, side = latent_size()
    text = read_config("text_encoder", "config.json")
    pixels = read_config("vae", "config.json")["sample_size"]
    latents = f"{channels} × {side} × {side}"
    canvas = Canvas(
        450,
        "Latent diffusion",
        "A text encoder turns the prompt into vectors. Starting from noise of the size of the "
        "latents, the U-Net predicts the noise and the scheduler removes a part of it, at each "
        "timestep again. The decoder of the autoencoder turns the clean latents into an image. Its "
        "encoder, which turns images into latents, is needed for training and for editing.",
    )
    prompt = canvas.box(24, 30, 200, 58, "prompt $y$", "“a bunny in a red car”")
    encoder = canvas.box(276, 30, 150, 58, "text encoder", "(CLIP)", kind="network")
    tokens, width = text["max_position_embeddings"], text["hidden_size"]
    vectors = canvas.box(478, 30, 150, 58, "text embedding", f"{tokens} × {width}")
    canvas.arrow(prompt.right, encoder.left)
    canvas.arrow(encoder.right, vectors.left)

    canvas.box(184, 128, 412, 190, kind="note")
    canvas.text(574, 150, "repeated for each timestep $t$", 14, anchor="end", color="muted")
    noise = canvas.box(24, 184, 120, 64, "noise $x_T$", latents)
    unet = canvas.box(214, 176, 150, 80, "U-Net", "$ε_θ(x_t, t, y)$", kind="network")
    step = canvas.box(436, 176, 136, 80, "scheduler", "$x_t$, $ε̂$ → $x_{prev}$", kind="operation")
    clean = canvas.box(640, 184, 136, 64, "latents $x_0$", latents)
    canvas.arrow(noise.right, unet.left)
    canvas.arrow(vectors.bottom, (553, 108), (289, 108), unet.top)
    canvas.arrow(unet.right, step.left)
    canvas.text(400, 206, "noise $ε̂$", 14)
    canvas.arrow(step.bottom, (504, 294), (289, 294), unet.bottom)
    canvas.text(396, 286, "$x_{prev}$ becomes $x_t$", 14)
    canvas.arrow(step.right, clean.left)

    decoder = canvas.box(640, 284, 136, 58, "decoder", "(VAE)", kind="network")
    image = canvas.box(640, 376, 136, 58, "image", f"3 × {pixels} × {pixels}")
    canvas.arrow(clean.bottom, decoder.top)
    canvas.arrow(decoder.bottom, image.top)
    back = canvas.box(440, 376, 136, 58, "encoder", "(VAE)", kind="network")
    latents_of = canvas.box(240, 376, 136, 58, "latents $x_0$", latents)
    canvas.arrow(image.left, back.right, color="muted", dashes="5 4")
    canvas.arrow(back.left, latents_of.right, color="muted", dashes="5 4")
    canvas.text(228, 400, "the other direction,", 13.5, anchor="end", color="muted")
    canvas.text(228, 418, "for training and editing", 13.5, anchor="end", color="muted")
    return canvas


def unet() -> Canvas:
    """The U-Net of the denoiser: levels, skip connections, and where it reads the prompt."""
    config = read_config("unet", "config.json")
    channels = config["block_out_channels"]
    sides = [latent_size()[1] // 2**i for i in range(len(channels))]
    reads = ["CrossAttn" in block for block in config["down_block_types"]]
    canvas = Canvas(
        470,
        "The U-Net",
        "Noisy latents go down through the encoder, each level with half the side and more "
        "channels, through the middle, and up through the decoder. Skip connections carry the "
        "features of each encoder level to the decoder level of the same size. The smaller levels "
        "read the prompt by cross-attention, and the timestep goes into every block.",
    )
    rows = [84, 174, 264]
    noisy = canvas.box(24, 16, 130, 40, "noisy latents $x_t$")
    output = canvas.box(646, 16, 130, 40, "noise $ε̂$")
    above = (noisy.point(0.5, 1), output.point(0.5, 1))
    for index, (y, side, width) in enumerate(zip(rows, sides, channels, strict=True)):
        inset = 24 + 70 * index
        size = f"{side} × {side}, {width} channels"
        what = "convolutions, attention" if reads[index] else "convolutions"
        down = canvas.box(inset, y, 190, 54, size, what, kind="network")
        up = canvas.box(800 - inset - 190, y, 190, 54, size, what, kind="network")
        x = above[0][0]
        canvas.arrow(above[0], (x, y))
        canvas.arrow((800 - x, y), (800 - x, above[1][1]))
        canvas.arrow(down.right, up.left, color="green")
        above = (down.point(0.75, 1), up.point(0.25, 1))
    canvas.text(400, rows[0] + 18, "skip connections", 14, color="green")
    middle = canvas.box(338, 350, 124, 54, f"middle, {sides[-1]} × {sides[-1]}", kind="network")
    canvas.arrow(above[0], (above[0][0], 377), middle.left)
    canvas.arrow(middle.right, (above[1][0], 377), above[1])
    text = canvas.box(330, 428, 140, 34, "text embedding")
    canvas.arrow(text.top, middle.bottom, color="purple")
    outer = 24 + 70 * (reads.index(True)) - 30
    for index, y in enumerate(rows):
        if reads[index]:
            inset = 24 + 70 * index
            canvas.arrow(text.left, (outer, 445), (outer, y + 36), (inset, y + 36), color="purple")
            canvas.arrow(
                text.right,
                (800 - outer, 445),
                (800 - outer, y + 36),
                (800 - inset, y + 36),
                color="purple",
            )
    canvas.text(200, 436, "cross-attention", 14, color="purple")
    canvas.text(600, 436, "cross-attention", 14, color="purple")
    canvas.text(400, 36, "the timestep $t$ goes into every block", 14, color="muted")
    return canvas


def cross_attention() -> Canvas:
    """Cross-attention: each pixel reads the tokens of the prompt."""
    canvas = Canvas(
        420,
        "Cross-attention",
        "A query for each pixel and a key for each token give a table of weights: a row for each "
        "pixel, which sums to 1, and a column for each token. The result of a pixel is the average "
        "of the tokens' values with these weights. A column, arranged as an image, is the "
        "attention map of its token.",
    )
    tokens = ["a", "red", "car", "on", "grass"]
    scores = np.array(  # of six pixels, chosen for this example: sky, car (2), border, grass (2)
        [[2, 0, 0, 1, 0.5], [0, 2.5, 3, 0, 0], [0, 2, 3.5, 0, 0], [0, 1, 2, 1.5, 2],
         [0, 0, 0, 1, 3], [0.5, 0, 0, 0, 3.5]]
    )  # fmt: skip
    weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    left, top, cell, high = 300, 92, 52, 32
    for column, token in enumerate(tokens):
        canvas.text(left + cell * (column + 0.5), top - 10, token, 14)
        for row, weight in enumerate(weights[:, column]):
            x, y = left + cell * column, top + high * row
            canvas.rectangle(x + 1, y + 1, cell - 2, high - 2, "blue", 0.06 + 0.75 * weight)
    table_bottom = top + high * len(weights)
    pixels = canvas.box(24, 130, 120, 60, "pixels", "$n$ × $C$")
    words = canvas.box(24, 330, 120, 60, "tokens", "$L$ × $D$")
    queries = canvas.box(178, 130, 86, 60, "queries $Q$", "$n$ × $d$", kind="tensor")
    keys = canvas.box(386, 330, 88, 60, "keys $K$", "$L$ × $d$")
    values = canvas.box(606, 330, 100, 60, "values $V$", "$L$ × $d$")
    canvas.arrow(pixels.right, queries.left)
    canvas.arrow(queries.right, (left - 4, 160))
    canvas.arrow(words.right, keys.left)
    canvas.arrow(keys.top, (430, table_bottom + 4))
    canvas.arrow(words.bottom, (84, 408), (656, 408), values.bottom)
    result = canvas.box(606, 130, 100, 60, "result", "$n$ × $d$")
    canvas.arrow((left + 5 * cell + 4, 160), result.left)
    canvas.arrow(values.top, result.bottom)
    canvas.text(670, 266, "average of $V$", 14, anchor="start", color="muted")
    for row, line in enumerate(
        ("the column of “car”,", "arranged as an image,", "is its attention map")
    ):
        canvas.text(656, 50 + 19 * row, line, 14, color="muted")
    canvas.text(left + 2.5 * cell, 40, "weights = softmax($Q K^T / √d$)", 16)
    canvas.text(left + 2.5 * cell, 62, "a row for each pixel, which sums to 1", 13, color="muted")
    return canvas
