//! From a text to the numbers that a text tower takes, as the tower's own library makes them.

use super::clean::clean;
use super::tokenizer_files::TokenizerFiles;
use crate::backbone::{Cleaning, TextPool, TextTower};
use crate::error::{Error, Result, WeightsError};
use candle_core::{Device, Tensor};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The tokenizer of a text tower.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    encoder: tokenizers::Tokenizer,
    path: PathBuf,
    config: Value,
    cleaning: Cleaning,
    padding: u32,
    /// Whether padding comes before the text.
    pads_left: bool,
    /// The token that is replaced by zero.
    stripped: Option<u32>,
    context: usize,
    vocabulary: usize,
}

impl Tokenizer {
    /// Loads the tokenizer that lies beside the weights of `tower`, and checks it against the tower.
    ///
    /// # Errors
    /// A weights error when a file is missing or damaged, or belongs to another tower.
    pub fn load(folder: &Path, tower: &TextTower) -> Result<Self> {
        let files = TokenizerFiles::read(folder)?;
        let zeros = tower.preparation.zero_padding;
        let pads_left = !zeros && files.config["padding_side"] == "left";
        let padding = match &files.padding {
            Some(token) if !zeros => files.tokenizer.token_to_id(token).unwrap_or(0),
            _ => 0,
        };
        let separator = Some(&files.separator).filter(|_| tower.preparation.strips_separator);
        let tokenizer = Self {
            stripped: separator.and_then(|token| files.tokenizer.token_to_id(token)),
            encoder: files.tokenizer,
            path: files.path,
            config: files.config,
            cleaning: tower.preparation.cleaning,
            padding,
            pads_left,
            context: tower.spec.context,
            vocabulary: tower.spec.vocabulary,
        };
        tokenizer.check_end(tower.spec.pool)?;
        Ok(tokenizer)
    }

    /// Tokens of a text, padding included.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The tokens of a text of any length, with those that mark its start and end, without padding.
    ///
    /// # Errors
    /// A weights error when the tokenizer has tokens that the tower does not know.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let invalid = |reason: String| WeightsError::invalid(&self.path, reason);
        let cleaned = clean(text, self.cleaning, &self.config);
        let encode = || self.encoder.encode_fast(cleaned, true);
        // As when the file is read: rules that contradict each other make the library panic.
        let encoding = std::panic::catch_unwind(std::panic::AssertUnwindSafe(encode))
            .map_err(|_| invalid(format!("cannot encode {text:?}")))?;
        let encoding = encoding.map_err(|error| invalid(format!("cannot encode {text:?} ({error})")))?;
        let kept = |&token: &u32| if self.stripped == Some(token) { 0 } else { token };
        let tokens: Vec<u32> = encoding.get_ids().iter().map(kept).collect();
        match tokens.iter().find(|token| **token as usize >= self.vocabulary) {
            Some(token) => {
                let reason = format!("gives token {token}, but the text tower has {} tokens", self.vocabulary);
                Err(invalid(reason).into())
            }
            None => Ok(tokens),
        }
    }

    /// Texts as the tower takes them (B, T): each filled up to the context.
    ///
    /// # Errors
    /// A usage error that names the first text that is longer than the context.
    pub fn batch(&self, texts: &[String], device: &Device) -> Result<Tensor> {
        let mut ids = Vec::with_capacity(texts.len() * self.context);
        for text in texts {
            let tokens = self.tokens(text)?;
            if tokens.len() > self.context {
                return Err(Error::usage_hint(
                    format!(
                        "the prompt {text:?} has {} tokens, and the text tower takes {}",
                        tokens.len(),
                        self.context
                    ),
                    "shorten the name in [prompts.classes] or the template; start and end count as tokens too",
                ));
            }
            ids.extend(self.padded(tokens, |id| id));
        }
        Ok(Tensor::from_vec(ids, (texts.len(), self.context), device)?)
    }

    /// Tokens, or what is made of them, filled up to the context.
    pub(super) fn padded<T: Clone>(&self, tokens: Vec<T>, made: impl Fn(u32) -> T) -> Vec<T> {
        let padding = vec![made(self.padding); self.context.saturating_sub(tokens.len())];
        if self.pads_left { [padding, tokens].concat() } else { [tokens, padding].concat() }
    }

    /// What a text is enclosed in: the tokens of its start and those of its end.
    pub(super) fn marks(&self) -> Result<(Vec<u32>, Vec<u32>)> {
        let (empty, letter) = (self.tokens("")?, self.tokens("a")?);
        let start = empty.iter().zip(&letter).take_while(|(a, b)| a == b).count();
        Ok((empty[..start].to_vec(), empty[start..].to_vec()))
    }

    /// The tokens of a text without the marks of start and end.
    pub(super) fn words(&self, text: &str) -> Result<Vec<u32>> {
        let (start, end) = self.marks()?;
        let tokens = self.tokens(text)?;
        let last = tokens.len().saturating_sub(end.len());
        Ok(tokens.get(start.len()..last).unwrap_or_default().to_vec())
    }

    /// A tower that reads the end of the text needs a tokenizer that writes it.
    fn check_end(&self, pool: TextPool) -> Result<()> {
        let tokens = self.tokens("a")?;
        let last = tokens.last().copied();
        let read = match pool {
            TextPool::EndOfText(id) => Some(id),
            TextPool::Largest => tokens.iter().copied().max(),
            TextPool::First | TextPool::Last => last,
        };
        if last.is_some() && last == read {
            return Ok(());
        }
        let shown = |token: Option<u32>| token.map_or("none".to_owned(), |token| token.to_string());
        let reason = format!(
            "ends a text with token {}, but the text tower reads token {}: it belongs to another model",
            shown(last),
            shown(read)
        );
        Err(WeightsError::invalid(&self.path, reason).into())
    }
}
