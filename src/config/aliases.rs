//! What other programs call our keys, for "did you mean". Not read as keys: a file has one spelling.

use super::document::join;

/// A key, and what it is called elsewhere: a name in whatever section, or with its section. Names that are ours in the
/// right section or only spelt differently need no line.
const ALIASES: &[(&str, &[&str])] = &[
    ("run.name", &["experiment", "experiment_name", "run_name", "project"]),
    ("run.seed", &["random_seed", "random_state", "rng_seed"]),
    ("run.out", &["output", "output_dir", "out_dir", "save_dir", "log_dir", "logging_dir", "results_dir"]),
    ("run.device", &["gpu", "gpus", "cuda", "accelerator", "gpu_id"]),
    ("run.precision", &["amp", "fp16", "bf16", "half", "mixed_precision", "dtype", "torch_dtype"]),
    ("run.threads", &["num_threads", "cpus", "cores", "train.workers"]),
    ("run.decode_threads", &["num_workers", "workers", "dataloader_num_workers"]),
    ("data.root", &["data.path", "data.dir", "data.folder", "data_dir", "data_path", "dataset", "image_dir", "images"]),
    ("data.manifest", &["data.csv", "csv", "csv_file", "annotations", "labels", "data.file"]),
    ("data.val", &["val_split", "validation_split", "val_size", "val_ratio", "val_fraction", "valid_size"]),
    ("data.test", &["test_split", "test_size", "test_ratio", "test_fraction"]),
    ("data.split_seed", &["data.seed"]),
    ("data.classes", &["class_map", "label_map", "merge", "merge_classes", "rename_classes"]),
    ("data.ignore", &["exclude", "exclude_classes", "ignore_classes", "skip_classes", "drop_classes"]),
    ("data.max_per_class", &["max_samples_per_class", "samples_per_class", "per_class", "max_images", "max_samples"]),
    ("data.group_by", &["patient"]),
    ("data.columns.group", &["group_column", "patient_column"]),
    ("data.stratified", &["stratify"]),
    (
        "model.backbone",
        &[
            "model.name", "model_name", "model_name_or_path", "arch", "architecture", "encoder", "pretrained",
            "checkpoint", "weights", "model.path", "model.weights",
        ],
    ),
    (
        "model.image_size",
        &[
            "img_size", "image_size", "imgsz", "input_size", "resolution", "crop_size", "data.size", "model.size",
            "preprocess.size",
        ],
    ),
    ("model.pool", &["pooling", "global_pool"]),
    ("model.drop_path", &["stochastic_depth", "drop_path_rate", "drop_path"]),
    ("model.head_dropout", &["model.dropout", "train.dropout", "drop_rate", "dropout_rate", "head_drop", "drop"]),
    ("preprocess.mean", &["image_mean", "data.mean"]),
    ("preprocess.std", &["image_std", "data.std"]),
    ("augment.preset", &["augmentation", "augmentations", "auto_augment", "rand_augment", "data.augment"]),
    ("augment.color", &["color_jitter", "colour", "color_jitter_prob"]),
    ("augment.hflip", &["flip", "horizontal_flip", "fliplr", "random_flip"]),
    ("augment.vflip", &["vertical_flip", "flipud"]),
    ("augment.rotate90", &["rotate", "rotation", "rot90"]),
    ("augment.crop", &["random_crop", "random_resized_crop", "augment.scale", "rrc"]),
    ("augment.erasing", &["random_erasing", "reprob", "random_erase", "cutout"]),
    (
        "strategy.kind",
        &[
            "strategy.type", "strategy.name", "strategy.method", "train.strategy", "method", "peft", "peft_type",
            "finetune", "freeze",
        ],
    ),
    ("strategy.rank", &["lora_rank", "lora_r", "r"]),
    ("strategy.alpha", &["lora_alpha"]),
    ("strategy.dropout", &["lora_dropout"]),
    ("strategy.targets", &["target_modules"]),
    ("strategy.tokens", &["num_virtual_tokens", "num_tokens", "prompt_length"]),
    ("train.epochs", &["num_epochs", "n_epochs", "max_epochs", "num_train_epochs", "epoch"]),
    ("train.steps", &["max_steps", "num_steps", "iterations", "max_iter"]),
    ("train.batch_size", &["bs", "batch", "per_device_train_batch_size", "train_batch_size", "bsz"]),
    (
        "train.accumulate",
        &[
            "accum_iter", "grad_accum", "gradient_accumulation", "gradient_accumulation_steps", "accumulation_steps",
            "accumulate_grad_batches", "update_freq",
        ],
    ),
    ("train.lr", &["learning_rate", "learningrate", "base_lr", "lr0", "max_lr", "init_lr", "step_size", "blr"]),
    ("train.head_lr", &["lr_head", "head_learning_rate", "classifier_lr"]),
    ("train.weight_decay", &["wd", "decay", "l2", "adam_weight_decay"]),
    ("train.layer_decay", &["llrd", "layerwise_lr_decay", "layer_lr_decay", "lr_decay"]),
    ("train.warmup", &["warmup_epochs", "warmup_steps", "warmup_ratio", "warmup_iters"]),
    ("train.schedule", &["scheduler", "lr_scheduler", "lr_scheduler_type", "sched", "lr_schedule"]),
    ("train.clip_grad", &["grad_clip", "max_grad_norm", "gradient_clip_val", "clip", "clip_norm"]),
    ("train.label_smoothing", &["smoothing", "label_smoothing_factor"]),
    ("train.loss", &["criterion", "loss_fn", "loss_function"]),
    ("train.class_weights", &["class_weight", "train.weights", "weighted_loss"]),
    ("train.mixup", &["mixup_alpha"]),
    ("train.cutmix", &["cutmix_alpha"]),
    ("train.ema", &["model_ema", "ema_decay"]),
    ("train.soup", &["swa", "model_soup"]),
    ("train.checkpoint_blocks", &["grad_checkpointing", "gradient_checkpointing", "use_checkpoint"]),
    ("train.checkpoint_steps", &["save_steps", "save_every"]),
    ("early_stop.patience", &["early_stopping", "early_stopping_patience", "train.early_stop"]),
    ("early_stop.metric", &["monitor", "metric_for_best_model", "eval_metric", "best_metric"]),
    ("cache.dir", &["cache_dir", "cache_folder"]),
    ("inspection.good", &["ok_class", "normal_class", "good_class", "negative_class"]),
];

/// The key that `name` in the table `section` most likely means; none when nothing of that meaning is known.
pub(super) fn meant(section: &str, name: &str) -> Option<&'static str> {
    let name = name.to_lowercase().replace(['-', ' '], "_");
    let find = |wanted: &str| ALIASES.iter().find(|(_, names)| names.contains(&wanted)).map(|(key, _)| *key);
    find(&join(section, &name)).or_else(|| find(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::{at, schema};
    use std::collections::BTreeSet;

    #[test]
    fn aliases_lead_to_keys_and_are_none() {
        let schema = schema();
        let mut seen = BTreeSet::new();
        for (key, names) in ALIASES {
            assert!(at(schema, key.split('.')).is_some(), "{key} is not a key");
            for name in *names {
                assert!(seen.insert(name), "{name} is listed twice");
                assert!(!name.contains('.') || at(schema, name.split('.')).is_none(), "{name} is a key itself");
            }
        }
    }

    #[test]
    fn a_name_with_its_section_comes_first() {
        for (section, name, key) in [
            ("train", "learning_rate", "train.lr"),
            ("model", "dropout", "model.head_dropout"),
            ("data", "Path", "data.root"),
            ("", "learning-rate", "train.lr"),
            ("optimizer", "wd", "train.weight_decay"),
            ("lora", "r", "strategy.rank"),
        ] {
            assert_eq!(meant(section, name), Some(key), "{section}.{name}");
        }
        assert_eq!(meant("train", "sede"), None);
    }
}
