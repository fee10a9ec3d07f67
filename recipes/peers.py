"""Other systems, each in a virtual environment of its own, so that none of their requirements meets ours.

python_of("implicit", "implicit==0.7.3", "scipy", "threadpoolctl")   -> runs/peers/implicit/bin/python
run(python, "peers/implicit_als.py", "--factors", "256")             -> what the script printed last, as a dict
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = Path("runs/peers")


def python_of(name: str, *requirements: str, folder: Path = ENVIRONMENTS) -> Path:
    """The interpreter of the environment ``name``, made and filled with ``requirements`` where it is not there yet."""
    home = folder.absolute() / name
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    installed = home / "requirements.txt"
    wanted = "\n".join(requirements) + "\n"
    if installed.is_file() and installed.read_text(encoding="utf-8") == wanted:
        return python
    print(f"Installing {', '.join(requirements)} into {home} …", file=sys.stderr)
    venv.create(home, with_pip=True, clear=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    subprocess.run(command, check=True)
    installed.write_text(wanted, encoding="utf-8")
    return python


def run(python: Path, script: str, *arguments: str | Path) -> dict[str, Any]:
    """Run a script of this folder; it prints one JSON object as its last line, which is returned."""
    command = [str(python), str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with exit code {done.returncode}.")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
