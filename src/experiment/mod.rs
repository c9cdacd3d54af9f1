//! An experiment from settings to a scored run: the images, the model, what frozen layers keep, the head, the scores, the
//! record and its page. The commands say what is typed and printed; what they do is here.

pub mod device;
pub mod features;
pub mod forecast;
pub mod inspect;
pub mod keep;
pub mod known;
pub mod loss;
pub mod page;
pub mod probe;
pub mod prompt;
pub mod record;
pub mod saved;
pub mod score;
pub mod session;
pub mod texts;
pub mod weights;
