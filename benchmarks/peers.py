"""Our selectors beside scikit-activeml's and batchbald-redux's: the same rows, in one process.

The peers get an environment of their own in ``benchmarks/.peers``, made at the first run, which
borrows torch and all else from the one that runs this script. ``peers_side_by_side.py`` is what is
run in it.

python benchmarks/peers.py                   # about half an hour on two cores
python benchmarks/peers.py --rows 5000 --num 50 --repeats 2
python benchmarks/peers.py --only batchbald core_set
"""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE / ".peers"
PACKAGES = ["scikit-activeml==1.0.1", "batchbald-redux==2.0.5"]


def main() -> None:
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / "complete").exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        (site,) = ENVIRONMENT.glob("lib/python*/site-packages")
        (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (ENVIRONMENT / "complete").touch()
    # An editable install is found by a hook that a borrowed folder does not run.
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    script = [str(python), str(HERE / "peers_side_by_side.py"), *sys.argv[1:]]
    os.execve(python, script, {**os.environ, "PYTHONPATH": path})


if __name__ == "__main__":
    main()
