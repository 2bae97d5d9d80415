"""A command pays for the libraries that its recipe needs, and for no others."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

OTHERS = ("timm", "torchvision", "huggingface_hub", "matplotlib", "deepspeed")

SCRIPT = f"""
import sys
import lofi.stages.plan, lofi.stages.train
from lofi.config.load import load_recipe
from lofi.encoders.build import build_encoder

recipe = load_recipe("configs/synthetic/lofi_s_tiny_actionformer.yaml")
build_encoder(recipe.encoder.name, recipe.encoder.config)
print([name for name in {OTHERS} if name in sys.modules])
"""


def test_a_recipe_of_the_tiny_encoder_imports_no_library_of_other_encoders():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
