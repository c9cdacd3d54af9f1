//! Resized images kept in memory, so that a small data set is decoded once and not once an epoch.

use image::RgbImage;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The most that one cache holds, in bytes: 1,700 images of 224 x 224 pixels.
const MOST_BYTES: usize = 256 << 20;

/// Resized images by their file. What no longer fits is made anew each time; nothing is ever evicted, since an
/// epoch visits every image once and a least-recently-used rule would then always miss.
#[derive(Default)]
pub(super) struct ResizedCache(Mutex<KeptImages>);

#[derive(Default)]
struct KeptImages {
    by_file: HashMap<PathBuf, Arc<RgbImage>>,
    bytes: usize,
}

impl ResizedCache {
    /// The resized image of `file`, made by `make` when it is not in the cache.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn get_or_make<E>(&self, file: &Path, make: impl FnOnce() -> Result<RgbImage, E>) -> Result<RgbImage, E> {
        // The pixels are copied while other threads read theirs.
        let kept = self.contents().by_file.get(file).map(Arc::clone);
        if let Some(resized) = kept {
            return Ok((*resized).clone());
        }
        let resized = make()?;
        let mut contents = self.contents();
        if contents.bytes + resized.len() <= MOST_BYTES && !contents.by_file.contains_key(file) {
            contents.bytes += resized.len();
            contents.by_file.insert(file.to_path_buf(), Arc::new(resized.clone()));
        }
        Ok(resized)
    }

    /// A thread that panicked while holding the lock left a whole map behind: insertion comes last.
    fn contents(&self) -> std::sync::MutexGuard<'_, KeptImages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_once_and_failures_are_not_cached() {
        let resized = ResizedCache::default();
        let file = Path::new("a.png");
        assert_eq!(resized.get_or_make(file, || Err("damaged")), Err("damaged"));
        let first = resized.get_or_make(file, || Ok::<_, &str>(RgbImage::from_pixel(2, 2, image::Rgb([7; 3]))));
        let second = resized.get_or_make(file, || Err("made again"));
        assert_eq!((first.is_ok(), &first), (true, &second));
    }

    #[test]
    fn memory_is_bounded() {
        let resized = ResizedCache::default();
        let large = || Ok::<_, ()>(RgbImage::new(8192, 8192)); // 192 MiB
        resized.get_or_make(Path::new("a"), large).unwrap();
        resized.get_or_make(Path::new("b"), large).unwrap();
        assert_eq!(resized.contents().by_file.len(), 1);
    }
}
