"""DeiT."""

from originals.vit import TIMM, TRANSFORMERS, case

DISTILLED = {"dist_token": True, "placed": 2}
HUGGING_FACE = {"stem": "deit.embeddings", "stage1": "deit.layers.0", "stage3": "deit.layers.1", "neck": "deit.layernorm"}


def _case(name, theirs, convention="timm", stages=None, **fields):
    return case(name, theirs, convention, stages, "deit", **fields)


def _timm(name):
    return lambda lib: lib.timm.create_model(name, **TIMM)


def _transformers(network):
    def make(lib):
        config = lib.transformers.DeiTConfig(**TRANSFORMERS, intermediate_size=128)
        return getattr(lib.transformers, network)(config)

    return make


CASES = (
    _case("distilled", _timm("deit_tiny_distilled_patch16_224"), **DISTILLED, pool="tokens"),
    _case("third", _timm("deit3_small_patch16_224"), placed=0, layer_scale=1e-6),
    _case(
        "transformers", _transformers("DeiTForImageClassification"), "transformers", HUGGING_FACE, **DISTILLED, epsilon=1e-12
    ),
    _case(
        "teacher",
        _transformers("DeiTForImageClassificationWithTeacher"),
        "transformers",
        HUGGING_FACE,
        **DISTILLED,
        pool="tokens",
        epsilon=1e-12,
    ),
)
