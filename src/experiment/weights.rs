//! Weights on this machine: a model of the hub is fetched with its progress on the console.

use crate::error::Result;
use crate::hub::{DownloadProgress, Hub, RepoId, Wanted};
use crate::report::{Console, ProgressBar};
use std::borrow::Cow;

/// What [`Backbone::load`](crate::backbone::Backbone::load) is to load for `model.backbone`: the folder in the cache for
/// a model of the hub, everything else as it is.
///
/// # Errors
/// As [`Hub::fetch`].
pub fn local<'a>(backbone: &'a str, wanted: Wanted, console: &Console) -> Result<Cow<'a, str>> {
    let Some(id) = RepoId::of_backbone(backbone)? else { return Ok(backbone.into()) };
    let mut bar = None;
    let snapshot = Hub::from_process()?.fetch(&id, wanted, &mut |at| show(&mut bar, &id, at, console))?;
    drop(bar);
    snapshot.warnings.iter().for_each(|warning| console.warn(warning));
    console.detail(format!("commit    {} of {}", snapshot.commit, id.repo()));
    Ok(snapshot.folder.to_string_lossy().into_owned().into())
}

/// One bar a file, and one line in the log for those who see no bars.
fn show(bar: &mut Option<(String, ProgressBar)>, id: &RepoId, at: DownloadProgress<'_>, console: &Console) {
    if bar.as_ref().is_none_or(|(file, _)| file != at.file) {
        *bar = None;
        let size = at.total.map_or_else(String::new, |total| format!(", {:.2} MB", total as f64 / 1e6));
        console.info(format!("fetching {} of {id}{size}", at.file));
        *bar = Some((at.file.to_owned(), console.progress(at.total.unwrap_or(0), "bytes")));
    }
    if let Some((_, bar)) = bar {
        bar.set(at.done);
    }
}
