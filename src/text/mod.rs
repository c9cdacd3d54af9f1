//! Classes in words: names and templates become prompts, prompts tokens, tokens embeddings, and those of a class one
//! direction that images are compared with.
//!
//! prompts (texts) → clean, `tokenizer_files`, tokenizer (tokens) → model (embeddings) → classes (one row per class).
//! context does the same with learnt vectors in place of words.

mod classes;
mod clean;
mod context;
mod model;
mod prompts;
mod tokenizer;
mod tokenizer_files;
mod tokenizer_rules;

pub use classes::PromptEmbeddings;
pub use context::ContextPrompts;
pub use model::TextModel;
pub use prompts::{ClassPrompts, Prompts};
pub use tokenizer::Tokenizer;
