"""Wrong names: what was probably meant, said before anything slow is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from skipserve.errors import suggestion


def test_a_name_that_begins_as_the_one_given_is_nearest() -> None:
    names = ["export/net.toml", "export/mnist1d_resnet.toml", "export/mnist1d.toml"]
    assert suggestion("export/mnist.toml", names[:2], "") == f"did you mean {names[1]!r}?"
    assert suggestion("export/mnist1.toml", names, "") == f"did you mean {names[2]!r}?"
    assert suggestion("m", names[:1], "") == "there are export/net.toml"


def test_a_name_that_only_ends_as_another_is_not_near() -> None:
    assert (
        suggestion("export/moon.toml", ["export/onlyov.toml"], "") == "there are export/onlyov.toml"
    )
    assert suggestion("smal.mar", ["small.mar"], "") == "did you mean 'small.mar'?"
    assert suggestion("at.yy", ["at.x", "at.y"], "") == "did you mean 'at.y'?"


def test_a_hint_lists_five_names_and_counts_the_others() -> None:
    names = [f"n{number}" for number in range(6)]
    assert suggestion("zebra", names, "") == "there are n0, n1, n2, n3, n4, n5"
    assert suggestion("zebra", [*names, "n6"], "") == "there are n0, n1, n2, n3, n4 and 2 more"


WITHOUT_TORCH = """
build export/no.toml
build export/key.toml
train export/no.toml
export export/no.toml
calibrate export/no.toml
package export/no.toml
plot checkpoints/no
inspect no
report no --data rows.npz
bring no.onnx --data rows.npz
bring json:load --data no.npz
bring nomod:fn --data rows.npz
bring export --data rows.npz
bring json:load --data rows.npz --name a-b
bring json:load --data rows.npz --task regress
predict no rows.npz --out a.csv
certify no
verify no.json no
attest artifacts/no
serve no
versions no
rollback no
loadtest --model no --rate 9
"""


def test_a_wrong_name_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    """Importing torch takes seconds, and minutes on a machine that is busy."""
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "key.toml").write_text('nam = "key"\n')
    np.savez(tmp_path / "rows.npz", inputs=np.zeros((4, 2), np.float32))
    ask = (
        "import sys\nfrom skipserve.cli import main\n"
        "for line in sys.stdin.read().split('\\n'):\n"
        "    sys.argv = ['skipserve', *line.split()]\n"
        "    try:\n        main()\n"
        "    except SystemExit as ended:\n"
        "        print(ended.code, line, 'imports torch' * ('torch' in sys.modules))\n"
    )
    lines = WITHOUT_TORCH.strip()
    done = subprocess.run(
        *([sys.executable, "-c", ask],), cwd=tmp_path, capture_output=True, text=True, input=lines
    )
    assert done.stdout == "".join(f"2 {line} \n" for line in lines.splitlines()), done.stderr
