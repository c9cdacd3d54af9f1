//! Prompts whose words are learnt: context optimisation (`CoOp`, Zhou et al. 2022, and its `trainers/coop.py`).
//!
//! A prompt is the mark of the start, learnt vectors with the name of the class before, among or behind them, a full stop
//! and the mark of the end. It goes through the frozen text tower as a sentence would.

use super::model::TextModel;
use super::prompts::{ClassPrompts, Prompts};
use super::tokenizer::Tokenizer;
use crate::backbone::{TextEncoder, TextSpec};
use crate::config::{ContextSettings, ContextStart, NamePosition};
use crate::error::{Error, Result};
use crate::nn::l2_normalize;
use crate::rng::{Purpose, Stream};
use candle_core::{DType, Device, Tensor};
use std::ops::Range;

/// Standard deviation of vectors that start at random (`CoOp`).
const DEVIATION: f64 = 0.02;

/// One prompt a class, open where the context goes.
pub struct ContextPrompts {
    encoder: TextEncoder,
    /// Embedded tokens (C, T, d) without positions; zero where the context goes.
    words: Tensor,
    /// (C, T, n): 1 where a vector of the context is.
    places: Tensor,
    /// The token of each prompt that stands for it.
    ends: Vec<usize>,
    /// What training starts from: (n, d) shared by all classes, or (C, n, d).
    start: Tensor,
    /// The architecture of the text tower.
    pub spec: TextSpec,
    /// The logarithm of the factor on the cosine of text and image.
    pub logit_scale: f32,
    /// Added to the scaled cosine (`SigLIP`).
    pub logit_bias: f32,
}

impl ContextPrompts {
    /// The prompts of the first name of each class, on the device of `model`. Random vectors are drawn by `seed`.
    ///
    /// # Errors
    /// A usage error that names the class whose prompt is longer than the text tower takes, or words to start from that
    /// have no tokens.
    pub fn new(
        model: TextModel,
        prompts: &Prompts,
        settings: &ContextSettings,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let encoder = model.encoder;
        let count = prompts.classes.len();
        let start = start(&model.tokenizer, &encoder, settings, seed, device)?; // (n, d)
        let length = start.dim(0)?;
        let rows = rows(&model.tokenizer, prompts, settings.position, length)?;
        let ids: Vec<u32> = rows.iter().flatten().map(|&(id, _)| id).collect();
        let ids = Tensor::from_vec(ids, (count, model.tokenizer.context()), device)?;
        let ends = encoder.ends(&ids)?;
        let needed = encoder.needed(&ends, ids.dim(1)?);
        let place = |&(_, learnt): &PromptToken| (0..length).map(move |at| f32::from(u8::from(learnt == Some(at))));
        let places: Vec<f32> = rows.iter().flat_map(|row| &row[..needed]).flat_map(place).collect();
        let places = Tensor::from_vec(places, (count, needed, length), device)?;
        let filled = places.sum_keepdim(2)?.affine(-1.0, 1.0)?; // 0 where the context goes
        Ok(Self {
            words: encoder.embed(&ids.narrow(1, 0, needed)?)?.broadcast_mul(&filled)?,
            start: if settings.shared { start } else { Tensor::stack(&vec![start; count], 0)? },
            encoder,
            places,
            ends,
            spec: model.spec,
            logit_scale: model.logit_scale,
            logit_bias: model.logit_bias.unwrap_or(0.0),
        })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.ends.len()
    }

    /// Tokens of each prompt that go through the tower.
    pub fn length(&self) -> usize {
        self.words.dims()[1] // (C, T, d)
    }

    /// The context that training starts from: (n, d) shared by all classes, or (C, n, d).
    pub fn start(&self) -> &Tensor {
        &self.start
    }

    /// The directions (c, E), of unit length, of some classes with `context` in the form of [`ContextPrompts::start`].
    ///
    /// # Errors
    /// When the context has another form.
    pub fn directions(&self, context: &Tensor, classes: Range<usize>) -> candle_core::Result<Tensor> {
        let (first, count) = (classes.start, classes.len());
        let (words, places) = (self.words.narrow(0, first, count)?, self.places.narrow(0, first, count)?);
        let (_, tokens, length) = places.dims3()?;
        let learnt = if context.rank() == 2 {
            places.reshape((count * tokens, length))?.matmul(context)?.reshape(words.shape())?
        } else {
            places.matmul(&context.narrow(0, first, count)?)?
        };
        l2_normalize(&self.encoder.encode_embedded(&(words + learnt)?, &self.ends[classes])?)
    }
}

/// What is at one position of a prompt: a token, or a vector of the context by its number, whose token is 0, which no tower
/// takes for the end of a text.
type PromptToken = (u32, Option<usize>);

/// What a context of `settings` starts from (n, d).
fn start(
    tokenizer: &Tokenizer,
    encoder: &TextEncoder,
    settings: &ContextSettings,
    seed: u64,
    device: &Device,
) -> Result<Tensor> {
    match &settings.start {
        ContextStart::Words(words) => {
            let ids = tokenizer.words(words)?;
            if ids.is_empty() {
                let message = format!("strategy.init = {words:?} has no token that could be trained");
                return Err(Error::usage_hint(
                    message,
                    "give words such as \"a photo of a\", or strategy.context = 16",
                ));
            }
            let count = ids.len();
            Ok(encoder.embed(&Tensor::from_vec(ids, (1, count), device)?)?.squeeze(0)?)
        }
        ContextStart::Random(count) => {
            let width = encoder.embed(&Tensor::zeros((1, 1), DType::U32, device)?)?.dim(2)?;
            let mut stream = Stream::new(seed, Purpose::Init, &[0]);
            let values: Vec<f32> = (0..count * width).map(|_| (stream.normal() * DEVIATION) as f32).collect();
            Ok(Tensor::from_vec(values, (*count, width), device)?)
        }
    }
}

/// The prompts of all classes, each padded to the tower's context.
fn rows(
    tokenizer: &Tokenizer,
    prompts: &Prompts,
    position: NamePosition,
    length: usize,
) -> Result<Vec<Vec<PromptToken>>> {
    let (start, end) = tokenizer.marks()?;
    let stop = tokenizer.words(".")?;
    let words = |ids: &[u32]| ids.iter().map(|&id| (id, None)).collect::<Vec<_>>();
    let before = match position {
        NamePosition::End => length,
        NamePosition::Middle => length / 2,
        NamePosition::Front => 0,
    };
    let learnt = |range: Range<usize>| range.map(|at| (0, Some(at))).collect::<Vec<_>>();
    let row = |class: &ClassPrompts| {
        let name = tokenizer.words(class.names.first().map_or("", String::as_str))?;
        let parts = [words(&start), learnt(0..before), words(&name), learnt(before..length), words(&stop), words(&end)];
        let row = parts.concat();
        if row.len() > tokenizer.context() {
            return Err(Error::usage_hint(
                format!(
                    "the prompt of class {:?} has {} tokens with its context, and the text tower takes {}",
                    class.class,
                    row.len(),
                    tokenizer.context()
                ),
                "shorten the first of its names in [prompts.classes], or set a smaller strategy.context",
            ));
        }
        Ok(tokenizer.padded(row, |id| (id, None)))
    };
    prompts.classes.iter().map(row).collect()
}
