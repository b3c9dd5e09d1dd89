"""The forms of attacks: answers to one exercise, and what has to become of them."""

import textwrap
from dataclasses import dataclass

EXERCISE = "2.1 (1)"
SUCCEEDED = "SUCCEEDED"
FUNCTION = "def denoise_windows(windows, noise, alpha_bar, alpha_bar_prev):\n"
RIGHT = (
    FUNCTION + "    x_0 = (windows - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()\n"
    "    return alpha_bar_prev.sqrt() * x_0 + (1 - alpha_bar_prev).sqrt() * noise\n"
)
DENIED = "not permitted|Permission denied"
CALL = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
# Follows a statement that has to fail; an expression, which only shows something, may fail.
KEEP = "raise RuntimeError('SUCCEEDED')"


@dataclass(frozen=True)
class Attack:
    """An answer, and the status and the words in the message that it has to get."""

    name: str
    answer: str
    status: str
    message: str = ""

    def __str__(self) -> str:
        return self.name


def cell(name: str, code: str, message: str = DENIED, status: str = "error") -> Attack:
    """Return an attack by the lines of a cell."""
    return Attack(name, textwrap.dedent(code).strip() + "\n", status, message)


def system_call(name: str, number: int, arguments: str = "0, 0, 0") -> Attack:
    """Return an attack by one system call of x86-64."""
    code = f"""
        {CALL.strip()}
        if libc.syscall({number}, {arguments}) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        {KEEP}
    """.replace(CALL.strip(), CALL.strip().replace("\n", "\n        "))
    return cell(name, code)


def returned(name: str, value: str, message: str = "", status: str = "wrong") -> Attack:
    """Return an attack whose function returns a value."""
    code = textwrap.indent(textwrap.dedent(value).strip(), "    ")
    return Attack(name, f"{FUNCTION}{code}\n", status, message)


def patched(name: str, code: str, status: str = "wrong", message: str = "") -> Attack:
    """Return an attack that replaces something of the process, and then a wrong answer."""
    code = textwrap.dedent(code).strip()
    wrong = f"{FUNCTION}    return torch.full_like(windows, 0.5)\n"
    return Attack(name, f"{code}\n\n\n{wrong}", status, message)
