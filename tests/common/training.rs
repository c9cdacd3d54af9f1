//! A model and what trains it, without the command line.

use candle_core::{Device, Tensor};
use vitadapt::backbone::{Backbone, Params, Readout, Segment, Shapes};
use vitadapt::config::StrategySettings;
use vitadapt::data::loader::Batch;
use vitadapt::model::{HeadKind, Model, ModelSpec};
use vitadapt::nn::workers::Workers;
use vitadapt::strategy::Plan;
use vitadapt::text::ContextPrompts;
use vitadapt::train::adamw::{AdamW, Rates};
use vitadapt::train::step_options::StepOptions;
use vitadapt::train::trainer::{Computation, Objective, Step, Trainer};

pub struct Training {
    pub model: Model,
    pub plan: Plan,
    pub objective: Objective,
    pub computation: Computation,
}

/// The first blocks of the bundled model, at an image size.
pub fn shallow(image_size: usize, depth: usize) -> Backbone {
    let mut backbone = Backbone::load("builtin:vit-mini", Some(image_size)).unwrap();
    backbone.spec.depth = depth;
    let block = |name: &str| name.strip_prefix("blocks.")?.split('.').next()?.parse::<usize>().ok();
    backbone.params.retain(|name| block(name).is_none_or(|block| block < depth));
    backbone
}

/// The plan of a strategy over parameters of these shapes.
pub fn plan(strategy: &StrategySettings, depth: usize, shapes: &Shapes) -> Plan {
    Plan::new(strategy, 1.0, depth, shapes).unwrap()
}

impl Training {
    /// From pixels to a fresh linear head.
    pub fn new(mut backbone: Backbone, strategy: &StrategySettings, classes: usize, threads: usize) -> Self {
        let width = Readout::POOL.width(&backbone.spec);
        backbone.params.extend(HeadKind::Linear.fresh(width, classes, 1, &Device::Cpu).unwrap());
        let shapes = shapes(&backbone.params);
        let plan = plan(strategy, backbone.spec.depth, &shapes);
        Self::of(backbone, plan, HeadKind::Linear, classes, threads)
    }

    /// From pixels to a head whose parameters are among those of the backbone.
    pub fn of(backbone: Backbone, plan: Plan, head: HeadKind, classes: usize, threads: usize) -> Self {
        let Backbone { spec, mut params, .. } = backbone;
        if let Some(lora) = &plan.lora {
            lora.insert(&mut params, 1).unwrap();
        }
        let params = params.train_where(|name| plan.get(name).is_some()).unwrap();
        let spec = ModelSpec { lora: plan.lora.clone(), head, classes, ..pixels(spec) };
        let model = Model::new(spec, params, workers(threads), Device::Cpu).unwrap();
        Self { model, plan, objective: Objective::default(), computation: Computation::default() }
    }

    /// From pixels to directions that follow from learnt words.
    pub fn prompted(backbone: Backbone, plan: Plan, prompts: ContextPrompts, threads: usize) -> Self {
        let spec = ModelSpec { head: HeadKind::Cosine, classes: prompts.classes(), ..pixels(backbone.spec) };
        let model = Model::prompted(prompts, spec, backbone.params, workers(threads), Device::Cpu).unwrap();
        Self { model, plan, objective: Objective::default(), computation: Computation::default() }
    }

    pub fn trainer(&self) -> Trainer<'_> {
        let Self { model, plan, objective, computation } = self;
        Trainer { model, plan, objective, computation: *computation }
    }

    pub fn optimizer(&self) -> AdamW {
        AdamW::new(self.plan.clone(), &self.model.params).unwrap()
    }

    /// One step that nothing stops.
    pub fn step(&self, batch: &Batch, options: StepOptions<'_>) -> Step {
        let trainer = self.trainer();
        trainer.step(&trainer.whole(), batch, options).unwrap().unwrap()
    }

    /// One step and its update.
    pub fn update(&self, batch: &Batch, number: usize, optimizer: &mut AdamW, rates: Rates) -> Step {
        let step = self.step(batch, StepOptions::new(0, number));
        optimizer.step(&self.model.params, &step.gradients, rates, &self.model.workers).unwrap();
        step
    }

    pub fn logits(&self, batch: &Batch) -> Vec<f32> {
        self.model.run(batch).unwrap().logits
    }

    pub fn set(&self, name: &str, value: &Tensor) {
        self.model.params.trained().find(|(trained, _)| *trained == name).unwrap().1.set(value).unwrap();
    }
}

/// The shapes of parameters.
pub fn shapes(params: &Params) -> Shapes {
    params.iter().map(|(name, param)| (name.parse().unwrap(), param.tensor().dims().to_vec())).collect()
}

pub fn workers(threads: usize) -> Workers {
    Workers::new(threads, &Device::Cpu).unwrap()
}

/// A linear head of no classes on the pooled features of pixels.
fn pixels(vit: vitadapt::backbone::VitSpec) -> ModelSpec {
    ModelSpec { vit, lora: None, start: Segment::Embed, readout: Readout::POOL, head: HeadKind::Linear, classes: 0 }
}
