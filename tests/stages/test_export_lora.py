"""A run with LoRA leaves an encoder of the plain architecture."""

import timm
import torch
from safetensors.torch import save_file
from tiny_runs import recipe_file, tiny_overrides
from torchvision.transforms.functional import normalize

from lofi.config.load import load_recipe
from lofi.encoders.build import build_encoder
from lofi.encoders.weights.libraries import library_weights
from lofi.stages.export import describe_encoder, load_run_encoder


def test_timm_loads_an_encoder_that_learnt_in_lora_and_computes_the_same(benchmark, tmp_path):
    name = "chunked_tiny_actionformer"
    own = [each for each in tiny_overrides(name, benchmark, tmp_path) if not each.startswith("encoder.")]
    recipe = load_recipe(
        recipe_file(name), [*own, "encoder.name=image", "encoder.network=test_vit", "encoder.lora_rank=2"]
    )
    torch.manual_seed(0)
    trained, _ = build_encoder("image", recipe.encoder.config)
    for key, parameter in trained.named_parameters():
        if "adapter.up" in key:
            parameter.data.normal_(std=0.3)
    state = {f"encoder.{key}": value for key, value in trained.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")

    encoder = load_run_encoder(recipe, tmp_path / "weights.safetensors")
    library = library_weights(encoder)
    assert library.library == "timm test_vit"
    plain = timm.create_model("test_vit", num_classes=0).eval()
    plain.load_state_dict(library.state)
    side = plain.pretrained_cfg["input_size"][1]
    frames = torch.randint(0, 256, (2, 3, 3, side, side), dtype=torch.uint8)
    images = frames.transpose(1, 2).flatten(0, 1).float() / 255
    about = describe_encoder(recipe, encoder, names=library.library, run=tmp_path, checkpoint="step")
    assert "lora_rank" not in about["encoder"]
    seen = normalize(images, about["normalization"]["mean"], about["normalization"]["std"])
    with torch.no_grad():
        expected = plain(seen).unflatten(0, (2, 3)).mean(dim=1)
        torch.testing.assert_close(trained.eval()(frames), expected, rtol=1e-4, atol=1e-5)
