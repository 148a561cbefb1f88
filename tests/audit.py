"""Known vulnerabilities of the installed packages, by pip-audit, which succeeds even if it can ask nobody."""

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

COMMAND = ("pip_audit", "--skip-editable", "--progress-spinner", "off", "--format", "json", "--timeout", "10")


def main() -> None:
    """Audit this environment; exit code 1 unless every package was looked up and none is vulnerable."""
    done = subprocess.run([sys.executable, "-m", *COMMAND], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        reason = (done.stderr.strip().splitlines() or ["it gives no reason"])[-1]
        sys.exit(f"pip-audit could not ask for known vulnerabilities: {reason[:200]}")
    said, code = judged(packages)
    sys.stdout.write(f"{said}\n")
    sys.exit(code)


def judged(packages: Sequence[dict[str, Any]]) -> tuple[str, int]:
    """Return what to say of packages, and the exit code.

    Args:
        packages: As pip-audit lists them: ``name``, and ``version`` and ``vulns``, or ``skip_reason``.
    """
    ours = importlib.metadata.metadata("sgbench")["Name"]
    skipped = [each["name"] for each in packages if "skip_reason" in each and each["name"] != ours]
    found = [each for each in packages if each.get("vulns")]
    asked = len(packages) - len(skipped)
    if not any("version" in each for each in packages):
        return "nothing was audited: the package index cannot be asked from this machine.", 1
    lines = [
        f"{each['name']} {each['version']}: {vulnerability['id']}, fixed in {', '.join(vulnerability['fix_versions'])}"
        for each in found
        for vulnerability in each["vulns"]
    ]
    if skipped:
        lines.append(f"not audited, as the package index does not know these versions: {', '.join(skipped)}.")
    return "\n".join([*lines, f"{len(found)} of {asked} packages are vulnerable."]), int(bool(found))


if __name__ == "__main__":
    main()
