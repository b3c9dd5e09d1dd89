"""Downloads from the Hub: every failure names its cause and the remedy. A server on this machine
plays the Hub."""

import errno
import json
import os
import shlex
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants
from huggingface_hub import errors as hub_errors

from course.models import ModelError, find_model, hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "somebody/something"
WEIGHTS = "diffusion_pytorch_model.safetensors"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


class Hub(ThreadingHTTPServer):
    """As much of the Hub as a download needs: one repository, or one answer to everything."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder: Path | None = None
        self.answer: tuple[int, dict[str, str], bytes] = (404, {}, b"")
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        if self.path == "/api/agent-harnesses":  # the client asks once in a process, and remembers
            self.send_error(404)
            return
        self.server.requests.append(self.path)
        status, headers, body = self.server.answer
        folder = self.server.folder
        if folder and self.path.startswith(f"/api/models/{REPO}/revision/"):
            status, headers, body = 200, {}, json.dumps({"id": REPO, "sha": COMMIT}).encode()
        elif folder and self.path.startswith(f"/api/models/{REPO}/tree/"):
            files = [
                {
                    "type": "file",
                    "path": path.relative_to(folder).as_posix(),
                    "size": path.stat().st_size,
                    "oid": f"{number:040x}",
                }
                for number, path in enumerate(sorted(folder.rglob("*")))
                if path.is_file()
            ]
            status, headers, body = 200, {}, json.dumps(files).encode()
        elif folder and self.path.startswith(f"/{REPO}/resolve/"):
            file = self.path.split("?")[0].partition(f"{COMMIT}/")[2]
            headers = {"ETag": f'"{file.replace("/", "-")}"', "X-Repo-Commit": COMMIT}
            status, body = 200, (folder / file).read_bytes()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


def use_home(home: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what HF_HOME does when the Hub's client is imported."""
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", f"{home}/hub")
    monkeypatch.setattr(constants, "HF_XET_CACHE", f"{home}/xet")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", f"{home}/token")
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", f"{home}/.agent_harnesses.json")


def use_endpoint(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what HF_ENDPOINT does when the Hub's client is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in for the Hub, an empty cache, and no proxy."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    use_home(tmp_path / "cache", monkeypatch)
    server = Hub()
    use_endpoint(server.address, monkeypatch)
    thread = threading.Thread(
        target=server.serve_forever,
        kwargs={"poll_interval": 0.02},
        daemon=True,
    )
    thread.start()
    close_session()  # the client reads proxies and certificates when it starts
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
    close_session()


def expect(advice: str) -> None:
    """Check the one error that `find_model` gives: it names the model, and matches `advice`."""
    with pytest.raises(ModelError, match=advice) as caught:
        find_model(REPO)
    assert f'"{REPO}"' in str(caught.value)


# --- The server's answers


def test_a_model_is_downloaded_once_and_then_needs_no_network(server, tiny_folder):
    server.folder = tiny_folder
    model = find_model(REPO)
    assert model.name == REPO and model.folder.name == COMMIT and model.image_size == 64
    assert sorted(os.listdir(model.folder)) == sorted(os.listdir(tiny_folder))
    server.folder, server.answer = (
        None,
        (200, {"Content-Type": "text/html"}, b"<html>Sign in</html>"),
    )
    assert find_model(REPO).folder == model.folder
    server.answer = (500, {}, b"")
    assert find_model(REPO).folder == model.folder


@pytest.mark.parametrize(
    ("status", "headers", "advice"),
    [
        (401, {}, r"answers HTTP 401\. It does not accept your access token: run `hf auth login`"),
        (
            401,
            {"X-Error-Code": "RepoNotFound"},
            r"has no model.*or it is private.*hf auth login.*pocket, sd-1",
        ),
        (403, {}, r"answers HTTP 403\. It forbids the download.*read access.*firewall"),
        (
            403,
            {"X-Error-Code": "GatedRepo"},
            r"is gated.*https://huggingface\.co/somebody/something.*settings/tokens",
        ),
        (404, {}, r"answers HTTP 404\. It has no such repository or file: check the spelling"),
        (407, {}, r"answers HTTP 407\. A proxy in between asks for a user name.*HTTPS_PROXY"),
        (418, {}, r"answers HTTP 418\. It refuses the request"),
        (429, {}, r"answers HTTP 429\. It had too many requests.*wait some minutes"),
        (
            500,
            {},
            r"answers HTTP 500\. It has a fault at present: try again in some minutes\. The emb",
        ),
        (503, {}, r"answers HTTP 503\. It has a fault at present"),
    ],
)
def test_a_status_names_its_cause_and_the_remedy(server, status, headers, advice):
    server.answer = (status, headers, b'{"error": "from the server"}')
    expect(advice)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "text/html"}, b"<html><title>Sign in</title></html>"),
        ({}, b""),
        ({"Content-Type": "application/json"}, b"[]"),
        ({"Content-Type": "application/json"}, b"null"),
        ({"Content-Type": "application/json"}, b'"sign in"'),
        ({"Content-Type": "application/json"}, b"{}"),
        ({"Content-Type": "application/json"}, b'{"id": "somebody/something"}'),
    ],
    ids=["page", "nothing", "list", "null", "text", "object", "no commit"],
)
def test_a_login_page_in_place_of_the_hub(server, headers, body):
    server.answer = (200, headers, body)
    expect(
        r"something else answers in place of the Hub at http://127.*login page.*sign in.*embedded",
    )


def test_a_login_page_behind_a_redirect(server):
    server.answer = (302, {"Location": "/login"}, b"")
    expect(r"something else answers in place of the Hub .*redirects.*login page")


def test_a_download_that_breaks_off(server, tiny_folder, monkeypatch):
    """The list of files comes, and then a login page for each of them."""
    server.folder, files = tiny_folder, Handler.do_GET

    def stop(self):
        if "/resolve/" in self.path:
            server.folder, server.answer = None, (200, {}, b"<html>Sign in</html>")
        files(self)

    monkeypatch.setattr(Handler, "do_GET", stop)
    monkeypatch.setattr(Handler, "do_HEAD", stop)
    expect(r"something else answers in place of the Hub .*X-Repo-Commit.*login page")


@pytest.mark.parametrize(
    ("damage", "advice"),
    [
        (
            lambda folder: (folder / "unet" / WEIGHTS).rename(folder / "unet" / "weights.bin"),
            "has no diffusion_pytorch",
        ),
        (
            lambda folder: (folder / "vae" / WEIGHTS).write_bytes(b"short"),
            "is damaged or cut short",
        ),
        (lambda folder: (folder / "unet" / "config.json").write_text("[]"), r"got \[\]"),
        (
            lambda folder: (folder / "tokenizer" / "tokenizer.json").unlink(),
            "neither tokenizer.json nor vocab.json",
        ),
        (
            lambda folder: shutil.rmtree(folder / "scheduler"),
            "is incomplete: .*scheduler is missing",
        ),
        (lambda folder: (folder / "model_index.json").write_text("null"), "got null"),
        (lambda folder: (folder / "model_index.json").unlink(), "has no model_index.json"),
    ],
)
def test_a_damaged_model_of_the_hub(server, tiny_folder, tmp_path, damage, advice):
    server.folder = shutil.copytree(tiny_folder, tmp_path / "repository")
    damage(server.folder)
    with pytest.raises(ModelError, match=advice) as caught:
        find_model(REPO)
    assert REPO in str(caught.value)
    if server.requests[-1].count("/resolve/") and "model_index" not in server.requests[-1]:
        assert "To download it again, delete " in str(caught.value)


# --- Settings of this machine


def test_a_socks_proxy_without_socksio(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "socksio", None)  # not installed
    for name, proxy in [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("ALL_PROXY", "socks5h://127.0.0.1:9"),
        ("HTTP_PROXY", "socks5://127.0.0.1:9"),
        ("all_proxy", "socks5://127.0.0.1:9"),
        ("http_proxy", "socks5://user:secret@127.0.0.1:9"),
    ]:
        close_session()
        with monkeypatch.context() as environment:
            environment.setenv(name, proxy)
            expect(
                r"the proxy (socks5h?://)?127\.0\.0\.1:9 gives .*socksio.*HTTPS_PROXY",
            )


@pytest.mark.parametrize(
    ("proxy", "advice"),
    [
        (
            "http://127.0.0.1:9",
            r"proxy http://127\.0\.0\.1:9 gives no connection \(.*refused\)\. Set",
        ),
        ("http://user:secret@127.0.0.1:9", r"the proxy 127\.0\.0\.1:9 gives no connection"),
        (
            "127.0.0.1:9x",
            r"gives no connection \(.*9x.*\)\. Set HTTPS_PROXY.*http://proxy\.exam",
        ),
        ("ftp://127.0.0.1:9", r"gives no connection \(Unknown scheme"),
        ("http://[::1", r"the proxy http://\[::1 gives no connection"),
    ],
)
def test_a_bad_proxy(server, proxy, advice, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setattr(hub, "proxy_bypass", lambda _: False)
    expect(advice)


def test_no_password_of_a_proxy_is_shown(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:9")
    with pytest.raises(ModelError) as caught:
        find_model(REPO)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "kind",
    ["missing file", "missing folder", "no certificates", "a folder", "below a file"],
)
def test_certificates_that_cannot_be_read(server, kind, tmp_path, monkeypatch):
    """SSL_CERT_FILE is read when the client starts, whatever the address."""
    (tmp_path / "text.pem").write_text("no certificates")
    place = {
        "missing file": tmp_path / "gone.pem",
        "missing folder": tmp_path / "gone" / "ca.pem",
        "no certificates": tmp_path / "text.pem",
        "a folder": tmp_path,
        "below a file": tmp_path / "text.pem" / "ca.pem",
    }[kind]
    monkeypatch.setenv("SSL_CERT_FILE", str(place))
    expect(
        rf"SSL_CERT_FILE names {place}, which does not exist or holds no certificates\. Unset it",
    )


AUTHORITY = """\
[ca]
default_ca = authority
[authority]
database = index.txt
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = names
copy_extensions = copy
[names]
commonName = supplied
"""


def openssl(folder: Path, arguments: str) -> None:
    command = ["openssl", *shlex.split(arguments)]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)


def write_certificate(folder: Path, years: tuple[int, int], host: str) -> None:
    """Write authority.pem, and key.pem with certificate.pem, which that authority has signed."""
    (folder / "authority.cnf").write_text(AUTHORITY)
    (folder / "index.txt").touch()
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout"
    own = f"{key} authority.key -out authority.pem -days 2 -subj '/CN=an authority'"
    wanted = f"{key} key.pem -out request.pem -subj '/CN=a server' -addext subjectAltName={host}"
    first, last = (f"{year}0101000000Z" for year in years)
    signed = "-keyfile authority.key -cert authority.pem -in request.pem -out certificate.pem"
    openssl(folder, f"req -x509 {own}")
    openssl(folder, f"req -new {wanted}")
    openssl(
        folder,
        f"ca -batch -notext -config authority.cnf {signed} -startdate {first} -enddate {last}",
    )


def serve_encrypted(
    server: Hub, certificate: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    use_endpoint(server.address.replace("http:", "https:"), monkeypatch)


needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl, which makes the certificates, is missing"
)


@needs_openssl
@pytest.mark.parametrize(
    ("years", "host", "trusted", "reason"),
    [
        ((2020, 2090), "IP:127.0.0.1", False, "unable to get local issuer certificate"),
        ((2020, 2090), "DNS:somebody.example", True, "IP address mismatch"),
        ((2020, 2090), "IP:127.0.0.2", True, "IP address mismatch"),
        ((2020, 2021), "IP:127.0.0.1", True, "certificate has expired"),
        ((2089, 2090), "IP:127.0.0.1", True, "certificate is not yet valid"),
        ((2020, 2090), "IP:127.0.0.1", True, None),
    ],
    ids=["unknown authority", "other name", "other address", "expired", "not yet", "right"],
)
def test_certificates_of_somebody_else(
    server, years, host, trusted, reason, tiny_folder, tmp_path, monkeypatch
):
    write_certificate(tmp_path, years, host)
    serve_encrypted(server, tmp_path / "certificate.pem", tmp_path / "key.pem", monkeypatch)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    else:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    if reason is None:
        server.folder = tiny_folder
        assert find_model(REPO).name == REPO
    else:
        expect(
            rf"certificate of the Hub at https://127.* is not trusted .*{reason}.*a wrong clock. "
            "Set the environment variable SSL_CERT_FILE",
        )


@needs_openssl
def test_a_certificate_signed_by_itself(server, tmp_path, monkeypatch):
    write_certificate(tmp_path, (2020, 2090), "IP:127.0.0.1")
    serve_encrypted(server, tmp_path / "authority.pem", tmp_path / "authority.key", monkeypatch)
    expect(
        r"certificate of the Hub at https://127.* is not trusted .*VERIFY_FAILED.*SSL_CERT_FILE",
    )
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "gone"))
    close_session()
    expect(r"SSL_CERT_DIR names .*gone, which does not exist")


@pytest.mark.parametrize(
    "kind",
    ["below a file", "a file", "deep below a file", "null device", "/proc"],
)
def test_a_home_that_cannot_be_written(server, kind, tiny_folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    home = {
        "below a file": tmp_path / "file" / "home",
        "a file": tmp_path / "file",
        "deep below a file": tmp_path / "file" / "one" / "two",
        "null device": os.devnull,
        "/proc": "/proc/home",
    }[kind]
    server.folder = tiny_folder
    use_home(home, monkeypatch)
    expect(
        rf"the Hub's cache folder {home} cannot be used \(.*set the environment variable HF_HOME",
    )


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/models/hub"),
            r"cache folder .* cannot be used.*HF_HOME",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "/models/hub"),
            r"cannot be used \(.*Read-only file system",
        ),
        (
            RuntimeError("I/O error: Permission denied (os error 13)"),
            r"cache folder .* cannot be used.*HF_HOME",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), r"No space left.*HF_HOME"),
        (
            RuntimeError("Data processing error: No space left on device (os error 28)"),
            r"No space left.*Free some.*HF_HOME",
        ),
        (hub_errors.LocalEntryNotFoundError("nothing cached"), r"cannot be reached.*pocket"),
        (ConnectionError("refused"), r"cannot be reached \(refused\)\. .*pocket"),
        (TimeoutError("timed out"), r"cannot be reached \(timed out\)"),
        (hub_errors.HFValidationError("bad"), r"has no model"),
        (
            RuntimeError("the transfer stopped.\nDetails"),
            r"downloaded: the transfer stopped\. The embedded",
        ),
        (RuntimeError(), r"could not be downloaded: RuntimeError\. "),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_other_errors_of_the_client(server, error, advice, monkeypatch):
    def download(*_, local_files_only=False, **__):
        raise hub_errors.LocalEntryNotFoundError("nothing cached") if local_files_only else error

    monkeypatch.setattr(hub, "snapshot_download", download)
    expect(advice)


def test_a_full_disk_below_another_error(monkeypatch):
    error = RuntimeError("download failed")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    advice = hub.download_advice(hub.HUB_IDS["sd-1.5"], "sd-1.5", error)
    assert "No space left on device). Free some gigabytes" in advice
    assert f'"sd-1.5" ({hub.HUB_IDS["sd-1.5"]})' in advice


def test_nobody_answers(server, monkeypatch):
    for address, reason in [
        ("http://127.0.0.1:9", "refused"),
        ("nonsense", "missing an 'http://'"),
        ("http://127.0.0.1:99999999", "."),
        ("ftp://127.0.0.1", "protocol"),
        ("", "missing an 'http://'"),
    ]:
        use_endpoint(address, monkeypatch)
        expect(rf"could not be downloaded: .*{reason}")


def test_downloads_that_are_switched_off(server, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    expect(r"not on this disk yet, and HF_HUB_OFFLINE forbids downloads: unset it")
    assert server.requests == []


def test_settings_are_read_from_the_environment(server):
    """In a process of its own: HF_ENDPOINT and HF_HOME count."""
    program = "from course.models import find_model; find_model('somebody/something')"
    environment = os.environ | {"HF_ENDPOINT": server.address, "HF_HOME": constants.HF_HOME}
    server.answer = (403, {}, b"{}")
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert f"the Hub at {server.address} answers HTTP 403. It forbids the download" in result.stderr
