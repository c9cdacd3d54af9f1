//! An experiment from settings to a scored run and its answers. The commands say what is typed and printed; what they do
//! is here, in the order in which data flows:
//!
//! - a first configuration for images: [`init`]; whether there are enough of them, and fine enough: [`balance`],
//!   [`resolution`], [`image_neighbors`], [`sheets`];
//! - a backbone and images: [`device`], [`weights`], [`session`], [`open`], [`images`];
//! - what the head is, and the texts it may start from: [`head`], [`texts`], [`prompt`];
//! - what frozen layers make of the images: [`features`], [`frozen`], [`feature_source`]; where these may be tiles: [`tiles`];
//! - what is done with them: [`pooling`], [`mahalanobis`], [`fit_probe`], [`probe`], `patchcore`, [`zeroshot`], [`forecast`],
//!   [`loss`], [`training`], [`extension`], [`finetune`], [`tsne`];
//! - what is left: [`record`], [`score`], [`mod@reference`], [`page`];
//! - a run that is opened again: [`saved`], [`doubts`], [`predict`], [`answers`], [`finder`], [`maps`], [`places`], [`robustness`], [`mod@adopt`],
//!   [`exporting`];
//!   several of them: [`runs`].

pub mod adopt;
pub mod answers;
pub mod balance;
pub mod device;
pub mod doubts;
pub mod exporting;
pub mod extension;
pub mod feature_source;
pub mod features;
pub mod finder;
pub mod finetune;
pub mod fit_probe;
pub mod forecast;
pub mod frozen;
pub mod head;
pub mod image_neighbors;
pub mod images;
pub mod init;
pub mod loss;
pub mod mahalanobis;
pub mod maps;
pub mod open;
pub mod page;
mod patchcore;
pub mod places;
pub mod pooling;
pub mod predict;
pub mod probe;
pub mod prompt;
pub mod record;
pub mod reference;
pub mod resolution;
pub mod robustness;
pub mod runs;
pub mod saved;
pub mod score;
pub mod session;
pub mod sheets;
pub mod texts;
pub mod tiles;
pub mod training;
pub mod tsne;
pub mod weights;
pub mod zeroshot;
