//! Training that is stopped after any step and resumed ends in the same bits as training that was not.
#![allow(clippy::unwrap_used, clippy::panic)] // a test stops at the first surprise

use candle_core::Device;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vitadapt::backbone::Backbone;
use vitadapt::config::{self, Settings};
use vitadapt::data::decode::DecodeOptions;
use vitadapt::data::transform::{Pipeline, Preprocess};
use vitadapt::data::{Dataset, Sample, Split};
use vitadapt::error::Result;
use vitadapt::nn::Criterion;
use vitadapt::strategy::Plan;
use vitadapt::system::signals::{Signal, StopRequest};
use vitadapt::system::workers::Workers;
use vitadapt::train::adamw::AdamW;
use vitadapt::train::checkpoint::Checkpoints;
use vitadapt::train::classifier::{Regularisation, all_shapes, assemble};
use vitadapt::train::feed::Feed;
use vitadapt::train::fit::{Ending, Fit, Observer};
use vitadapt::train::progress::{EpochRecord, Progress};
use vitadapt::train::trainer::Trainer;

/// Asks for a stop after a number of steps of this process.
struct StopAfter {
    steps: usize,
    request: StopRequest,
}

impl Observer for StopAfter {
    fn step(&mut self, _epoch: usize, _step: usize, _images: usize, _loss: f64) {
        self.steps = self.steps.wrapping_sub(1);
        if self.steps == 0 {
            self.request.request(Signal::Interrupt);
        }
    }

    fn epoch(&mut self, _record: &EpochRecord, _best: bool) -> Result<()> {
        Ok(())
    }

    fn warn(&mut self, message: &str) {
        panic!("{message}");
    }
}

fn settings(strategy: &[&str], length: &str) -> Settings {
    let fixed = [
        "data.root=data/textile",
        "model.image_size=32",
        "model.drop_path=0.2",
        "model.head_dropout=0.1",
        "augment.preset=light",
        "train.batch_size=4",
        length,
    ];
    let sets: Vec<String> = fixed.iter().chain(strategy).map(ToString::to_string).collect();
    config::load(None, &sets).unwrap()
}

/// Ten training and four validation images.
fn dataset() -> Dataset {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/textile");
    let mut dataset = Dataset { classes: vec!["global".into(), "local".into()], ..Dataset::default() };
    for (split, folder, count) in [(Split::Train, "train", 5), (Split::Val, "val", 2)] {
        for (label, class) in ["global", "local"].iter().enumerate() {
            let files = std::fs::read_dir(root.join(folder).join(class)).unwrap().map(|entry| entry.unwrap().path());
            let mut files: Vec<PathBuf> = files.collect();
            files.sort();
            dataset.samples.extend(files.into_iter().take(count).map(|path| Sample {
                name: path.display().to_string(),
                path,
                label,
                group: None,
                split,
            }));
        }
    }
    dataset
}

/// One process: from the last checkpoint of `run`, or from the start, for at most `steps` steps.
fn train(settings: &Settings, run: &Path, steps: usize) -> (Ending, Progress) {
    let backbone = Backbone::load(&settings.model.backbone, settings.model.image_size).unwrap();
    let shapes = all_shapes(&backbone.spec, backbone.spec.width, 2);
    let shapes = shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()));
    let plan = Plan::new(&settings.strategy, 1.0, backbone.spec.depth, shapes).unwrap().unfreezing(settings.unfreeze);
    let mut params = assemble(backbone.params, backbone.spec.width, 2, settings.run.seed, &Device::Cpu).unwrap();
    if let Some(lora) = &plan.lora {
        lora.insert(&mut params, settings.run.seed).unwrap();
    }
    let params = params.train_where(|name| plan.get(name).is_some()).unwrap();
    let rates = Regularisation { drop_path: settings.model.drop_path, head_dropout: settings.model.head_dropout };
    let workers = Workers::new(2, &Device::Cpu).unwrap();
    let trainer = Trainer::new(&backbone.spec, params, &plan, rates.into(), workers, Device::Cpu).unwrap();
    let preprocess = Preprocess::resolve(&settings.preprocess, 32, &backbone.spec.input, None).unwrap();
    let decode = DecodeOptions::default();
    let feed = Feed {
        dataset: Arc::new(dataset()),
        training: Arc::new(Pipeline::training(preprocess, decode, &settings.augment, settings.run.seed)),
        evaluation: Arc::new(Pipeline::evaluation(preprocess, decode)),
        seed: settings.run.seed,
        batch_size: settings.train.batch_size,
        threads: 2,
        views: 0,
        kept: None,
    };
    let checkpoints = Checkpoints::of_run(run);
    let mut optimizer = AdamW::new(plan, &trainer.params).unwrap();
    let mut progress = Progress::default();
    if let Some(saved) = checkpoints.load::<Progress>("last").unwrap() {
        for (name, var) in trainer.params.trained() {
            var.set(&saved.params[name]).unwrap();
        }
        progress = saved.state;
        optimizer.restore(saved.optimizer.unwrap()).unwrap();
    }
    let request = StopRequest::default();
    let fit = Fit {
        settings: &settings.train,
        early_stop: &settings.early_stop,
        seed: settings.run.seed,
        trainer: &trainer,
        criterion: &Criterion { label_smoothing: 0.1, class_weights: vec![] },
        feed: &feed,
        checkpoints: &checkpoints,
        stop: &request,
    };
    let mut observer = StopAfter { steps, request: request.clone() };
    (fit.run(&mut progress, &mut optimizer, &mut observer).unwrap(), progress)
}

fn tensors(run: &Path) -> Vec<Vec<u8>> {
    ["last/model", "last/optimizer", "best/model"]
        .map(|file| std::fs::read(run.join("checkpoints").join(format!("{file}.safetensors"))).unwrap())
        .to_vec()
}

/// The records without what the clock and the system say.
fn numbers(progress: &Progress) -> Vec<EpochRecord> {
    let timeless =
        |e: &EpochRecord| EpochRecord { images_per_second: 0.0, seconds: 0.0, peak_memory_bytes: None, ..*e };
    progress.history.iter().map(timeless).collect()
}

fn stopped_after_any_step(strategy: &[&str], length: &str, total: usize, epochs: usize) {
    let settings = settings(strategy, length);
    let whole = tempfile::tempdir().unwrap();
    let (ending, expected) = train(&settings, whole.path(), usize::MAX);
    assert_eq!((ending, expected.step, expected.history.len()), (Ending::Finished, total, epochs));
    for steps in 1..=total {
        let cut = tempfile::tempdir().unwrap();
        assert_eq!(train(&settings, cut.path(), steps).0, Ending::Stopped(Signal::Interrupt));
        let (ending, progress) = train(&settings, cut.path(), usize::MAX);
        assert_eq!(ending, Ending::Finished);
        assert_eq!(numbers(&progress), numbers(&expected), "{length}, stopped after {steps}");
        assert!(tensors(cut.path()) == tensors(whole.path()), "{length}, stopped after {steps}: other tensors");
    }
}

// Three steps an epoch: whole epochs, and an epoch that is cut short.

#[test]
fn of_the_last_block() {
    let strategy = ["strategy.kind=partial", "strategy.blocks=1"];
    stopped_after_any_step(&strategy, "train.epochs=2", 6, 2);
    stopped_after_any_step(&strategy, "train.steps=5", 5, 2);
}

#[test]
fn of_adapters_with_dropout() {
    let strategy = ["strategy.kind=lora", "strategy.blocks=[1, 5]", "strategy.dropout=0.3"];
    stopped_after_any_step(&strategy, "train.steps=4", 4, 2);
}

#[test]
fn of_gradual_unfreezing() {
    let strategy = ["strategy.kind=partial", "strategy.blocks=2", "strategy.unfreeze=1"];
    stopped_after_any_step(&strategy, "train.steps=8", 8, 3);
}
