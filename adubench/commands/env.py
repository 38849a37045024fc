"""`adubench env`: versions and devices, for bug reports."""

from __future__ import annotations

import click


@click.command("env", epilog="Example: adubench env --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Print versions of adubench, Python and the libraries, and the devices torch sees."""
    import json
    import os
    import platform
    from importlib import metadata

    from adubench import __version__

    packages = (
        "numpy",
        "scipy",
        "h5py",
        "Pillow",
        "pydantic",
        "isal",
        "numba",
        "torch",
        "torchvision",
        "timm",
        "accelerate",
    )
    facts: dict[str, str] = {
        "adubench": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu cores": str(os.cpu_count()),
    }
    for name in packages:
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            facts[name] = "not installed"
    facts["devices"] = _devices() if facts["torch"] != "not installed" else "cpu (torch is not installed)"
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    width = max(map(len, facts))
    for key, value in facts.items():
        click.echo(f"{key:<{width}}  {value}")


def _devices() -> str:
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return ", ".join(["cpu", *names])
