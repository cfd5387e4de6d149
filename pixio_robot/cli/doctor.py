"""`pixio-robot doctor`: checks what this machine can do by trying it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from pixio_robot.errors import UserError

MINIMUM_FREE_GB = 2.0
GL_FIX = "apt-get install -y libegl1 libgl1 libglib2.0-0"
GPU_GL_FIX = (
    "install the NVIDIA driver's EGL library (libnvidia-gl-...); in a container, NVIDIA_DRIVER_CAPABILITIES=all"
)
GPU_FIX = "check with `nvidia-smi` that it works and that nobody else has taken its memory; until then, device=cpu"
OSMESA_FIX = "apt-get install -y libosmesa6 libgl1 libglib2.0-0 (only needed where EGL does not work)"
TORCHCODEC_FIX = (
    "nothing: no command here needs it, and without it lerobot's own commands decode videos with PyAV. To use it, "
    "install FFmpeg's libraries (apt-get install -y ffmpeg)"
)
COMPILER_FIX = (
    f"only for compile=true: apt-get install -y gcc libc6-dev python{sys.version_info[0]}.{sys.version_info[1]}-dev; "
    "set CC to use another compiler"
)
REINSTALL_FIX = "run ./scripts/bootstrap again"

# Each probe runs in a fresh process: a GL backend is chosen once per process, and a broken driver may crash it.
RENDER_PROBE = """
import numpy as np, mujoco
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 3"/><geom type="sphere" size=".3" rgba="1 0 0 1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 48, 64) as renderer:
    renderer.update_scene(data)
    frame = renderer.render()
if frame.max() == 0:
    raise SystemExit('the frame is all black')
from OpenGL import GL
"""
EGL_LIST = """
from envs.rendering.egl_devices import list_devices
print(*(device.number for device in list_devices() if not device.software))
"""
ROBOSUITE_PROBE = """
from envs.config import EnvConfig
from envs.registry import make_env
import numpy as np
env = make_env(EnvConfig())
env.reset(0, False)
env.step(np.zeros(env.spec.action_dim, np.float32), False)
env.close()
"""
MUJOCO_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><body><freejoint/><geom size=".1"/></body></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_step(model, data)
assert data.time > 0
"""
MATMUL_PROBE = """
import torch
try:
    ones = torch.ones(64, 64, device='{device}')
    product = (ones @ ones).cpu()
except Exception as error:
    raise SystemExit(str(error).splitlines()[0])  # the other lines advise those who write kernels
if (product != 64).any():
    raise SystemExit('a product of matrices is wrong')
"""
EXTRAS = {
    # extra in pyproject.toml: (its distributions, its purpose)
    "encoders": (("timm", "transformers", "peft"), "other visual encoders, LoRA"),
    "export": (("onnx", "onnxruntime", "onnxscript"), "encoders as ONNX"),
    "formats": (("imagecodecs",), "JPEG 2000 and JPEG XL in diffusion_policy stores"),
    "metaworld": (("metaworld",), "MetaWorld's tasks"),
    "ray": (("ray",), "ingestion, scoring and rollouts on several machines"),
    "serve": (("msgpack", "websockets"), "the policy server and its client"),
    "slurm": (("hydra-submitit-launcher",), "sweeps on a Slurm cluster"),
    "view": (("rerun-sdk",), "viewing episodes in rerun"),
    "wandb": (("wandb",), "metrics to Weights & Biases"),
    "warp": (("mujoco-warp",), "simulation on the GPU"),
}


@dataclass
class Check:
    name: str
    ok: bool
    detail: str
    fix: str = ""
    required: bool = True


def _probe(code: str, environment: dict[str, str], timeout_s: float = 180) -> str | None:
    """Run `code` in a new interpreter. Returns None on success, otherwise the last line of output."""
    try:
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout_s:.0f} s"
    if result.returncode == 0:
        return None
    lines = (result.stderr or result.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit code {result.returncode}"


def check_python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check("Python", sys.version_info >= (3, 12), version, "install Python 3.12, then ./scripts/bootstrap")


def check_torch() -> list[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        return [Check("torch", False, str(error), REINSTALL_FIX)]
    from pixio_robot.training.device import computes_in_bfloat16, explain_missing_gpu, explain_missing_kernels

    in_bfloat16 = ", which compute in bfloat16" if computes_in_bfloat16(torch.device("cpu")) else ""
    checks = [Check("torch", True, f"{torch.__version__}, {torch.get_num_threads()} CPU threads{in_bfloat16}")]

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            error = _probe(MATMUL_PROBE.format(device=f"cuda:{index}"), {})
            detail = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {error or 'multiplied matrices'}"
            fix = explain_missing_kernels(index) or GPU_FIX
            checks.append(Check(f"CUDA device {index}", error is None, detail, fix, required=False))
    else:
        fix = explain_missing_gpu() or "nothing if there is no NVIDIA GPU; otherwise check that `nvidia-smi` works"
        checks.append(Check("CUDA device", False, "none found: everything runs on the CPU", fix, required=False))
    return checks


def check_compiler() -> list[Check]:
    """The C compiler and Python headers that torch.compile needs on a GPU: Triton builds a C extension module for
    Python (its runtime/build.py)."""
    if not _cuda_devices():
        return []
    compiler = shutil.which(os.environ["CC"]) if "CC" in os.environ else shutil.which("gcc") or shutil.which("clang")
    # The scheme that Triton uses; Debian's default scheme outside a virtual environment would point to /usr/local.
    header = Path(sysconfig.get_path("include", "posix_prefix")) / "Python.h"
    detail = f"{compiler or 'no C compiler'}, {header if header.is_file() else f'no {header}'}"
    return [Check("compile on a GPU", bool(compiler) and header.is_file(), detail, COMPILER_FIX, required=False)]


def check_rendering() -> list[Check]:
    egl = _probe(RENDER_PROBE, {"MUJOCO_GL": "egl"})
    checks = [Check("EGL rendering", egl is None, egl or "rendered a frame", GL_FIX, required=False)]
    for index in [] if egl else _egl_gpus():
        error = _probe(RENDER_PROBE, {"MUJOCO_GL": "egl", "MUJOCO_EGL_DEVICE_ID": str(index)})
        detail = error or "rendered a frame"
        checks.append(Check(f"EGL on GPU {index} (EGL's numbering)", error is None, detail, GPU_GL_FIX, required=False))
    if egl is None and len(checks) == 1 and _cuda_devices():
        detail = "EGL finds none of the GPUs: images are rendered on the CPU"
        checks.append(Check("EGL on a GPU", False, detail, GPU_GL_FIX, required=False))
    osmesa = _probe(RENDER_PROBE, {"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "osmesa"})
    checks.append(Check("OSMesa rendering", osmesa is None, osmesa or "rendered a frame", OSMESA_FIX, required=False))
    works = egl is None or osmesa is None
    detail = "EGL" if egl is None else "OSMesa (set MUJOCO_GL=osmesa)" if works else "no backend works"
    checks.append(Check("off-screen rendering", works, detail, GL_FIX))
    return checks


def _cuda_devices() -> int:
    try:
        import torch
    except (ImportError, OSError):
        return 0
    return torch.cuda.device_count()


def _egl_gpus() -> list[int]:
    """Numbers of the GPUs that EGL lists, whether they can be opened or not."""
    query = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EGL_LIST],
        env=os.environ | {"MUJOCO_GL": "egl"},
        capture_output=True,
        text=True,
    )
    return [int(number) for number in query.stdout.split()]


def check_simulators() -> list[Check]:
    checks = []
    for name, code in (("mujoco", MUJOCO_PROBE), ("robosuite", ROBOSUITE_PROBE)):
        error = _probe(code, {})
        version = _version(name) or "not installed"
        checks.append(Check(name, error is None, f"{version}, {error or 'stepped'}", REINSTALL_FIX))
    return checks


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_extras() -> list[Check]:
    checks = []
    for extra, (distributions, purpose) in EXTRAS.items():
        versions = {name: _version(name) for name in distributions}
        missing = [name for name, version in versions.items() if version is None]
        detail = (
            f"{', '.join(missing)} not installed" if missing else ", ".join(f"{n} {v}" for n, v in versions.items())
        )
        fix = f"pip install 'pixio-robot[{extra}]'"
        checks.append(Check(f"extra {extra}: {purpose}", not missing, detail, fix, required=False))
    return checks


def check_torchcodec() -> list[Check]:
    """lerobot depends on torchcodec and uses it for its videos if it loads; pixio-robot itself decodes with PyAV."""
    if (version := _version("torchcodec")) is None:
        return []
    error = _probe("import torchcodec", {})
    detail = f"{version}, {'loaded' if error is None else 'cannot be loaded'}"
    return [Check("torchcodec (used by lerobot)", error is None, detail, TORCHCODEC_FIX, required=False)]


def check_disk() -> Check:
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    fix = f"free at least {MINIMUM_FREE_GB:.0f} GB here"
    return Check("free disk", free_gb >= MINIMUM_FREE_GB, f"{free_gb:.1f} GB in {Path.cwd()}", fix)


def print_table(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="pixio-robot doctor", title_justify="left")
    for column in ("", "what", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for check in checks:
        mark = "[green]ok[/]" if check.ok else "[red]no[/]" if check.required else "[yellow]--[/]"
        table.add_row(mark, check.name, check.detail, "" if check.ok else check.fix)
    Console().print(table)


def main(arguments: list[str]) -> int:
    unexpected = [argument for argument in arguments if argument not in ("--gl-only", "-h", "--help")]
    if unexpected:
        raise UserError(f"`doctor` does not take {unexpected[0]!r}; its only option is --gl-only.")
    if "-h" in arguments or "--help" in arguments:
        print(
            "usage: pixio-robot doctor [--gl-only]\n\nCheck what this machine can run. "
            "Exits with 1 if a required check fails."
        )
        return 0
    checks = check_rendering()
    if "--gl-only" not in arguments:
        checks = [
            check_python(),
            *check_torch(),
            *check_compiler(),
            *checks,
            *check_simulators(),
            *check_extras(),
            *check_torchcodec(),
            check_disk(),
        ]
    print_table(checks)
    return 0 if all(check.ok for check in checks if check.required) else 1
