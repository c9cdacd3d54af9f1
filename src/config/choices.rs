//! Choices that bring other keys along: a strategy's recipe, the keys of a loss, a preset of augmentations. Each is a
//! layer below what the file and the overrides say.

use crate::augment::AugmentPreset;

/// The layers: a key, its value, and the TOML that they bring.
pub(super) fn layers() -> impl Iterator<Item = (&'static str, &'static str, String)> {
    let presets = AugmentPreset::LAYERS.map(|(name, keys)| ("augment.preset", name, format!("augment = {{ {keys} }}")));
    LAYERS.into_iter().map(|(key, value, text)| (key, value, text.to_owned())).chain(presets)
}

/// The keys whose choices bring other keys along.
pub(super) fn keys() -> Vec<&'static str> {
    let mut keys: Vec<&str> = layers().map(|(key, ..)| key).collect();
    keys.dedup();
    keys.push("model.head_init");
    keys
}

const LAYERS: [(&str, &str, &str); 9] = [
    (
        "strategy.kind",
        "frozen",
        // A linear map of fixed features: a large rate is safe, and there is nothing pretrained to stay close to. No decay,
        // as in the linear probes of MAE (He et al. 2022).
        "train = { lr = 1e-3, weight_decay = 0.0, layer_decay = 1.0 }",
    ),
    (
        "strategy.kind",
        "partial",
        // AdamW with 1e-5 to 1e-4 and decay 0.05 is usual for pretrained ViTs (MAE, FT-CLIP). The last blocks alone bear the
        // upper end; the new head starts from nothing and needs more than they do. Three blocks: the depth with the best
        // return in the recipe that this follows.
        "strategy.blocks = 3
         train = { lr = 1e-4, head_lr = 1e-3, weight_decay = 0.05, layer_decay = 1.0 }",
    ),
    (
        "strategy.kind",
        "full",
        // All blocks move: the middle of that range, and lower layers, which hold general features, move less.
        "train = { lr = 5e-5, head_lr = 1e-3, weight_decay = 0.05, layer_decay = 0.75 }",
    ),
    (
        "strategy.kind",
        "lora",
        // CLIP-LoRA (Zanella and Ben Ayed 2024): the factors start from nothing and bear more than weights do, and decay
        // pulls their product towards the pretrained weights. All products of the attention at a low rank are as good as any
        // choice in section 7.1 of Hu et al. 2021. peft's default rank, and an alpha of twice the rank as is common.
        "strategy = { targets = ['q', 'k', 'v', 'o'], rank = 8, alpha = 16.0, dropout = 0.0 }
         train = { lr = 2e-4, head_lr = 1e-3, weight_decay = 0.01, layer_decay = 1.0 }",
    ),
    (
        "strategy.kind",
        "prompt",
        // The length and the epochs for one image a class that CoOp trains by default, and the rate of its SGD, which suits
        // AdamW too: a prompt's entries are of size 0.02, and VPT searches AdamW's rate up to 5e-3. CoOp's decay of 5e-4
        // takes less than 1 % of a prompt away in a whole training, so there is none. Ten tokens are a middle of the 5 to 50
        // that VPT finds best, by the data.
        "strategy = { modality = 'auto', context = 16, shared = true, position = 'end', tokens = 10, deep = true }
         train = { epochs = 50, lr = 2e-3, head_lr = 1e-3, weight_decay = 0.0, layer_decay = 1.0 }",
    ),
    // Patches are compared at the resolution of the images, by a backbone at its own size: on generated textures better
    // than whole images at their size.
    ("probe.method", "patchcore", "preprocess.tiles = true"),
    // The exponent that Lin et al. found best.
    ("train.loss", "focal", "train.focal_gamma = 2.0"),
    // The strength for which logit adjustment is consistent with the balanced error (Menon et al. 2021).
    ("train.loss", "logit_adjusted", "train.tau = 1.0"),
    // Between none (0) and inverse frequency (1): of a few hundred images a class, most count as new.
    ("train.class_weights", "effective", "train.effective_beta = 0.999"),
];
