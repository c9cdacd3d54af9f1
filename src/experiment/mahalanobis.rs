//! `model.pool = "mahalanobis"`: mean and covariance of the patches of the training images, measured before features are
//! computed.

use super::session::Session;
use crate::backbone::{Activations, Layer};
use crate::config::PoolChoice;
use crate::data::Split;
use crate::error::{Error, Result};
use crate::features::Images;
use crate::report::Console;
use crate::system::digest::hex;
use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};

/// What to do instead.
const ELSE: &str = "set model.pool to \"max\" or another pooling";

/// Measures the patch tokens of the training images and stores their whitening among the parameters of the backbone. Returns
/// the content address of the parameters, which for any other pooling are the pretrained ones.
///
/// # Errors
/// Data errors of files that changed under way; a usage error when there is nothing to tell patches apart by.
pub fn measure(session: &mut Session, images: &Images, console: &Console) -> Result<String> {
    if session.settings.model.pool != PoolChoice::Mahalanobis {
        return Ok(session.pretrained().1.to_owned());
    }
    measured(session, images, console)?.ok_or_else(|| {
        Error::usage_hint(
            "model.pool = \"mahalanobis\": the patches of the training images are all alike, or not finite",
            ELSE,
        )
    })
}

/// As [`measure`], for a session with this pooling; none when there is nothing to tell patches apart by.
///
/// # Errors
/// Data errors of files that changed under way.
pub fn measured(session: &mut Session, images: &Images, console: &Console) -> Result<Option<String>> {
    let (params, sha256) = session.pretrained();
    let spec = &session.backbone.spec;
    let (width, prefix) = (spec.width, spec.prefix_tokens());
    let extractor = session.extractor(params, Activations::Block(spec.depth))?;
    let train = images.dataset.indices(Split::Train);
    let progress = console.progress(train.len() as u64, "usual patches");
    let moments = images.moments(&train, (&extractor, width, prefix), &mut |images| {
        progress.inc(images as u64);
        Ok(())
    });
    progress.finish();
    let Some((weight, bias)) = moments?.whitening() else { return Ok(None) };
    let mut sum = Sha256::new_with_prefix(sha256);
    [&weight, &bias].into_iter().for_each(|values| sum.update(bytemuck::cast_slice::<f32, u8>(values)));
    let device = session.device.clone();
    let on_device =
        |values: Vec<f32>, shape: &[usize]| Tensor::from_vec(values, shape, &Device::Cpu)?.to_device(&device);
    let params = &mut session.backbone.params;
    params.insert(Layer::Whitening.weight(), on_device(weight, &[width, width])?);
    params.insert(Layer::Whitening.bias(), on_device(bias, &[width])?);
    Ok(Some(hex(&sum.finalize())))
}

/// Refuses the pooling where no training images are looked at before their features.
///
/// # Errors
/// A usage error.
pub fn refuse(pool: PoolChoice, command: &str) -> Result<()> {
    if pool != PoolChoice::Mahalanobis {
        return Ok(());
    }
    Err(Error::usage_hint(
        format!(
            "model.pool = \"mahalanobis\" is measured on training images, which `vitadapt {command}` does not read"
        ),
        format!("use `vitadapt probe`, or {ELSE}"),
    ))
}
