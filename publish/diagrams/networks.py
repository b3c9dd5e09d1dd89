"""Diagrams of the networks: the parts of latent diffusion, the U-Net and its attention."""

from publish.diagrams.numbers import latent_size, read_config
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
