//! Training that is stopped after any step and resumed ends in the same bits as training that was not.

use candle_core::Device;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vitadapt::backbone::{Backbone, Readout, Segment};
use vitadapt::config::{self, Precision, Settings};
use vitadapt::data::decode::DecodeOptions;
use vitadapt::data::transform::{Pipeline, Preprocess};
use vitadapt::data::{Dataset, Sample, Split};
use vitadapt::error::Result;
use vitadapt::metrics::SelectionMetric;
use vitadapt::model::{BatchSource, DropRates, HeadKind, Model, ModelSpec};
use vitadapt::nn::Criterion;
use vitadapt::nn::workers::Workers;
use vitadapt::strategy::Plan;
use vitadapt::system::signals::{Signal, StopRequest};
use vitadapt::train::checkpoint::Checkpoints;
use vitadapt::train::fit::{Ending, Fit, Observer};
use vitadapt::train::mix::Mixer;
use vitadapt::train::progress::{EpochRecord, Progress};
use vitadapt::train::safeguard::Safeguard;
use vitadapt::train::state::TrainState;
use vitadapt::train::trainer::{Computation, Objective, Trainer};

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

const LAST_BLOCK: [&str; 2] = ["strategy.kind=partial", "strategy.blocks=1"];

fn settings(strategy: &[&str], own: &[&str]) -> Settings {
    let fixed = [
        "data.root=data/textile", "model.image_size=32", "model.drop_path=0.2", "model.head_dropout=0.1",
        "augment.preset=light", "train.batch_size=4",
    ];
    let sets: Vec<String> = fixed.iter().chain(strategy).chain(own).map(ToString::to_string).collect();
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
                kind: None,
                group: None,
                mask: None,
                split,
            }));
        }
    }
    dataset
}

/// One process: from the last checkpoint of `run`, or from the start, for at most `steps` steps or `life`.
fn train(settings: &Settings, run: &Path, steps: usize, life: Option<Duration>) -> (Ending, Progress) {
    let backbone = Backbone::load(&settings.model.backbone, &settings.model).unwrap();
    let head = HeadKind::Linear;
    let mut shapes = backbone.spec.shapes();
    shapes.extend(head.shapes(backbone.spec.width, 2));
    let plan = Plan::new(&settings.strategy, 1.0, backbone.spec.depth, &shapes).unwrap().unfreezing(settings.unfreeze);
    let mut params = backbone.params;
    params.extend(head.fresh(backbone.spec.width, 2, settings.run.seed, &Device::Cpu).unwrap());
    if let Some(lora) = &plan.lora {
        lora.insert(&mut params, settings.run.seed).unwrap();
    }
    let params = params.train_where(|name| plan.get(name).is_some()).unwrap();
    let preprocess = Preprocess::resolve(&settings.preprocess, 32.into(), &backbone.spec.input, None).unwrap();
    let (vit, lora) = (backbone.spec, plan.lora.clone());
    let spec = ModelSpec { vit, lora, start: Segment::Embed, readout: Readout::POOL, head, classes: 2 };
    let model = Model::new(spec, params, Workers::new(2, &Device::Cpu).unwrap(), Device::Cpu).unwrap();
    let objective = Objective {
        criterion: Criterion { label_smoothing: 0.1, ..Criterion::default() },
        regulariser: None,
        drop: DropRates { path: settings.model.drop_path, head: settings.model.head_dropout },
    };
    let decode = DecodeOptions::default();
    let source = BatchSource {
        dataset: Arc::new(dataset()),
        training: Arc::new(Pipeline::training(preprocess, decode, &settings.augment, settings.run.seed)),
        evaluation: Arc::new(Pipeline::evaluation(preprocess, decode)),
        sampler: settings.train.sampler,
        seed: settings.run.seed,
        batch_size: settings.train.batch_size,
        threads: 2,
        views: 0,
        frozen: None,
    };
    let checkpoints = Checkpoints::of_run(run);
    let safeguard = Safeguard::new(settings.train.accumulate.unwrap_or(1), Precision::F32);
    let mut state = TrainState::new(&settings.train, plan.clone(), &model.params, safeguard).unwrap();
    if let Some(saved) = checkpoints.load::<Progress>("last").unwrap() {
        for (name, var) in model.params.trained() {
            var.set(&saved.params[name]).unwrap();
        }
        state.restore(saved.state, saved.optimizer.unwrap()).unwrap();
    }
    let request = StopRequest::default();
    let fit = Fit {
        settings: &settings.train,
        metric: SelectionMetric::Accuracy,
        patience: settings.early_stop.patience,
        seed: settings.run.seed,
        trainer: Trainer { model: &model, plan: &plan, objective: &objective, computation: Computation::default() },
        source: &source,
        mixer: Mixer::new(&settings.train, 2, 32.into(), settings.run.seed),
        checkpoints: &checkpoints,
        stop: &request,
    };
    if let Some(life) = life {
        let request = request.clone();
        std::thread::spawn(move || {
            std::thread::sleep(life);
            request.request(Signal::Terminate);
        });
    }
    let mut observer = StopAfter { steps, request: request.clone() };
    (fit.run(&mut state, &mut observer).unwrap(), state.progress)
}

fn tensors(run: &Path) -> Vec<Vec<u8>> {
    ["last/model", "last/optimizer", "best/model"]
        .map(|file| std::fs::read(run.join("checkpoints").join(format!("{file}.safetensors"))).unwrap())
        .to_vec()
}

/// The records without what the clock and the system say.
fn numbers(progress: &Progress) -> Vec<EpochRecord> {
    let timeless =
        |e: &EpochRecord| EpochRecord { images_per_second: None, seconds: 0.0, peak_memory_bytes: None, ..*e };
    progress.history.iter().map(timeless).collect()
}

#[test]
fn stopped_after_any_step() {
    // Three steps an epoch: whole epochs, and an epoch that is cut short.
    resumes_to_the_same_bits(&LAST_BLOCK, &["train.epochs=2"], 6, 2);
    resumes_to_the_same_bits(&LAST_BLOCK, &["train.steps=5"], 5, 2);
}

#[test]
fn stopped_with_mixed_and_repeated_images() {
    let sets = ["train.steps=4", "train.sampler=balanced", "train.mixup=true", "train.cutmix=true", "train.loss=focal"];
    resumes_to_the_same_bits(&LAST_BLOCK, &sets, 4, 2);
}

#[test]
fn stopped_with_averaged_and_sharpness_aware_steps() {
    let sets = ["train.steps=4", "train.ema=0.9", "train.sam=true", "train.soup=2"];
    resumes_to_the_same_bits(&LAST_BLOCK, &sets, 4, 2);
}

#[test]
fn stopped_within_a_step() {
    // Every image is a micro-batch of its own, and every step has two passes: a signal seldom falls between two steps.
    let settings = settings(&LAST_BLOCK, &["train.steps=4", "train.accumulate=4", "train.sam=0.1", "train.ema=true"]);
    let whole = tempfile::tempdir().unwrap();
    let clock = Instant::now();
    let (_, expected) = train(&settings, whole.path(), usize::MAX, None);
    let life = clock.elapsed() / 20;
    let cut = tempfile::tempdir().unwrap();
    let mut stops = 0;
    while let (Ending::Stopped(signal), _) = train(&settings, cut.path(), usize::MAX, Some(life * (1 + stops))) {
        assert_eq!(signal, Signal::Terminate);
        stops += 1;
    }
    let (ending, progress) = train(&settings, cut.path(), usize::MAX, None);
    assert!(stops > 1 && ending == Ending::Finished, "{stops} stops");
    assert_eq!(numbers(&progress), numbers(&expected));
    assert!(tensors(cut.path()) == tensors(whole.path()), "other tensors after {stops} stops");
}

#[test]
fn stopped_while_adapters_drop_out() {
    let strategy = ["strategy.kind=lora", "strategy.blocks=[1, 5]", "strategy.dropout=0.3"];
    resumes_to_the_same_bits(&strategy, &["train.steps=4"], 4, 2);
}

#[test]
fn stopped_while_blocks_join_one_by_one() {
    let strategy = ["strategy.kind=partial", "strategy.blocks=2", "strategy.unfreeze=1"];
    // What averaging and sharpness-aware steps keep must be there again too.
    resumes_to_the_same_bits(&strategy, &["train.steps=8", "train.ema=0.9", "train.sam=true"], 8, 3);
}

/// Stops after each of `total` steps, in that many epochs.
fn resumes_to_the_same_bits(strategy: &[&str], sets: &[&str], total: usize, epochs: usize) {
    let settings = settings(strategy, sets);
    let whole = tempfile::tempdir().unwrap();
    let (ending, expected) = train(&settings, whole.path(), usize::MAX, None);
    assert_eq!((ending, expected.step, expected.history.len()), (Ending::Finished, total, epochs));
    for steps in 1..=total {
        let cut = tempfile::tempdir().unwrap();
        assert_eq!(train(&settings, cut.path(), steps, None).0, Ending::Stopped(Signal::Interrupt));
        let (ending, progress) = train(&settings, cut.path(), usize::MAX, None);
        assert_eq!(ending, Ending::Finished);
        assert_eq!(numbers(&progress), numbers(&expected), "{sets:?}, stopped after {steps}");
        assert!(tensors(cut.path()) == tensors(whole.path()), "{sets:?}, stopped after {steps}: other tensors");
    }
}
